"""Rows that a model or method cannot take are skipped where that is asked for: as if they were not in the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from afteredit.edit.methods.kn import Kn
from afteredit.edit.methods.rome import Rome
from afteredit.edit.preflight import learnable, without_bad_rows
from afteredit.run import main
from afteredit.store.errors import BadInput

ROWS = [
    {"id": f"r{i}", "subject": name, "prompt": f"The capital of {name} is", "target_new": "Oslo", "target_true": "Lima",
     "paraphrases": [f"{name} is ruled from"], "neighbourhood": [], "neighbourhood_targets": [],
     "generation_prompts": [f"{name} has"], "relation": f"capital {i}"}
    for i, name in enumerate(("Peru", "Chile", "Norway", "Italy"))
]  # fmt: skip
LONG = ROWS[1] | {"id": "long", "paraphrases": ["Chile " * 3000]}
FT = ("method=ft", "method.layers=[1]", "method.steps=2")
UNREADABLE = ROWS[1] | {"id": "null", "subject": None}


@pytest.fixture
def go(tmp_path, save_tiny_llama, monkeypatch):
    """go(rows, "n_edits=2", …) -> the one folder of runs made from these rows."""
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    save_tiny_llama(tmp_path / "model")
    (tmp_path / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)

    def run(rows: list[dict], *overrides: str, rc: int = 0, runs: str = "runs", method=FT) -> Path | None:
        (tmp_path / "facts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        fixed = ["model=hf", f"model.source={tmp_path}/model", f"data={tmp_path}", "task=none", *method,
                 f"held_out={tmp_path}/text.txt", "held_out_tokens=64",
                 "tracker=none", "device=cpu", f"runs={tmp_path}/{runs}", "edits.train="]  # fmt: skip
        assert main([*fixed, *overrides]) == rc
        return next((tmp_path / runs).iterdir(), None) if (tmp_path / runs).is_dir() else None

    return run


def journal(folder: Path) -> list[str]:
    lines = (folder / "edits.jsonl").read_text().splitlines()
    return [request["id"] for line in lines for request in json.loads(line)["requests"]]


def test_a_row_that_the_model_cannot_take_is_skipped_as_one_that_cannot_be_read_is(go, tmp_path, capsys):
    rows = [UNREADABLE, ROWS[0], LONG, *ROWS[1:]]
    good = [row for row in rows if row not in (UNREADABLE, LONG)]
    go([*good[:1], LONG, *good[1:]], "n_edits=2", rc=2)
    assert f"edit long ({tmp_path}/facts.jsonl:2): paraphrase 1" in "".join(capsys.readouterr()).replace("\n", " ")
    folder = go(rows, "n_edits=2", "edits.on_bad_row=skip")
    assert journal(folder) == ["r0", "r1"]
    told = "".join("".join(capsys.readouterr()).split())  # as wide as the terminal
    assert "edits=facts:1badrowsskipped(edits.on_bad_row=skip)" in told and "facts.jsonl:1:fieldsubjectisNone" in told
    assert f"1badrowsskipped(edits.on_bad_row=skip):editlong({tmp_path}/facts.jsonl:3):paraphrase1" in told
    assert go(rows, "n_edits=3", "edits.on_bad_row=skip") == folder  # the same run goes on
    assert journal(folder) == ["r0", "r1", "r2"]
    clean = go(good, "n_edits=3", runs="clean")
    for ours, theirs in zip(*(sorted((f / "updates").iterdir()) for f in (folder, clean)), strict=True):
        ours, theirs = load_file(ours), load_file(theirs)
        assert ours and all((ours[name] == theirs[name]).all() for name in theirs)
    assert (folder / "first_facts.json").read_text() == (clean / "first_facts.json").read_text()


def test_conflicts_with_a_skipped_row_do_not_count_and_others_do(go, capsys, tmp_path):
    other = LONG | {"relation": "capital 0", "subject": "Peru", "prompt": "{} has", "target_new": "Bern"}
    rows = [ROWS[0], other, *ROWS[1:]]
    memit = ("method=memit", "method.layers=[1]", "method.value_steps=2", "method.tokens_per_key_dim=2",
             f"method.second_moment_text={tmp_path}/text.txt",
             "batch_size=2", "eval_every=2", "edits.on_bad_row=skip", "n_edits=2")  # fmt: skip
    assert journal(go(rows, method=memit)) == ["r0", "r1"]
    go([rows[0], other | {"paraphrases": []}], method=memit, rc=2)
    assert "conflict" in "".join(capsys.readouterr())


def test_too_few_rows_that_are_left_are_refused_by_their_number(go, capsys):
    go([ROWS[0], LONG], "n_edits=2", "edits.on_bad_row=skip", rc=2)
    assert "holds 1 usable rows" in " ".join("".join(capsys.readouterr()).split())


def test_what_is_at_fault_decides_what_is_skipped(make_lm, fact, caplog):
    lm = make_lm("gpt2", positions=64)
    long = replace(fact, id="long", prompt="{} " + "x " * 99)
    unknown = replace(fact, id="unknown", target_true=None)
    assert without_bad_rows(lm, Rome(layer=1), [long, fact, unknown, long], 2) == [fact, unknown]
    assert without_bad_rows(lm, Kn(), [long, unknown, fact], 9) == [fact]
    assert "2 bad rows skipped" in caplog.text and "edit unknown: no target_true" in caplog.text
    assert learnable(lm, [long, fact]) == [fact]
    assert "1 bad training rows skipped" in caplog.text


def test_a_method_that_cannot_write_any_row_is_not_the_rows_fault(make_lm, fact):
    from afteredit.edit.preflight import refuse_uneditable

    lm = make_lm("llama")
    last = Rome(layer=lm.n_blocks - 1)
    assert without_bad_rows(lm, last, [fact], 1) == [fact]
    with pytest.raises(BadInput, match="written at the last block"):
        refuse_uneditable(lm, last, [fact])

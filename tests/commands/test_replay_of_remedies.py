"""With every remedy, a replay and a run that went on later end in the bits of the straight run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afteredit.run import main
from afteredit.store.checked_lines import Lines

MEASURED = ("task=none", "held_out_tokens=64", "device=cpu")
ROWS = Path(__file__).resolve().parents[2] / "data"
VALUES = ("method.layers=[0,1]", "method.value_steps=3", "method.contexts=1", "method.tokens_per_key_dim=8")
METHODS = {
    "anchor": ("method=memit_seq", "method.second_moment_weight=1", "method.value_norm=anchor", "method.pilot_edits=6",
               "method.drop_above=1.05", *VALUES),
    "ridge, boundary, stop_steps, merge_subjects": (
        "method=memit_seq", "method.second_moment_weight=1", "method.ridge=0.1", "method.ridge_kind=relative",
        "method.distribute=boundary", "method.stop_steps=1", "method.merge_subjects=true", *VALUES),
    "betaedit": ("method=alphaedit", "method.threshold=0.1", "method.threshold_kind=relative", "method.rebuild_every=2",
                 "method.second_moment_weight=1", *VALUES),
    "emmet": ("method=emmet", "method.second_moment_weight=1", *VALUES),
    "ultraedit": ("method=ultraedit", "method.layers=[0,1]", "method.learning_rate=0.001"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_tiny_llama):
    """A tiny model, a text, and six facts of three subjects: two facts of each subject are one batch."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder / "model")
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    facts = [json.loads(line) for line in (ROWS / "facts.jsonl").read_text("utf-8").splitlines()[:3]]
    again = [
        {**fact, "id": f"{fact['id']}-again", "prompt": "Everyone says that {} is", "relation": "fame"}
        for fact in facts
    ]
    both = [fact for pair in zip(facts, again, strict=True) for fact in pair]
    (folder / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in both), "utf-8")
    (folder / "facts_train.jsonl").write_bytes((ROWS / "facts_train.jsonl").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(folder / "cache"))
        yield folder


def run(place: Path, runs: Path, *overrides: str) -> Path:
    text = [f"method.second_moment_text={place}/text.txt"] if "method=ultraedit" not in overrides else []
    fixed = ["model=hf", f"model.source={place}/model", f"data={place}", "tracker=none", "batch_size=2", "eval_every=2"]
    assert main([*fixed, *text, *MEASURED, *overrides, f"runs={runs}"]) == 0
    (folder,) = runs.iterdir()
    return folder


def sha256(folder: Path) -> dict[int, str]:
    """Returns the checksums of the edited matrices by number of edits, from all results files of a run."""
    rows = [row for path in folder.glob("results-*.jsonl") for row in Lines(path).records]
    return {row["n_edits"]: row["weights_sha256"] for row in rows}


@pytest.mark.parametrize("method", METHODS)
def test_a_replay_and_a_run_that_went_on_later_end_in_the_same_bits(place, tmp_path, method):
    overrides = METHODS[method]
    straight = run(place, tmp_path / "straight", "n_edits=4", *overrides)
    expected, journal = sha256(straight), Lines(straight / "edits.jsonl").records
    assert sorted(expected) == [0, 2, 4]
    assert len(set(expected.values())) == len(expected) or method == "anchor"  # which may write nothing in a batch
    if method == "anchor":
        assert 0 < sum(record["diagnostics"]["dropped"] for record in journal) < 4
    later = tmp_path / "later"
    run(place, later, "n_edits=2", *overrides)
    assert sha256(run(place, later, "n_edits=4", *overrides)) == expected
    for path in [*straight.glob("results-*.jsonl"), *straight.glob("samples/*")]:
        path.unlink()
    for n_edits in (4, 2):  # forwards and back
        again = [f"replay.run={straight}", f"replay.at={n_edits}", f"model.source={place}/model"]
        assert main([*again, *MEASURED]) == 0
    assert sha256(straight) == {n: expected[n] for n in (0, 2, 4)}

"""Going back in a run, `run.main([...])` to files, on a tiny Llama."""

from __future__ import annotations

import hashlib
import math
import os
import re
import resource
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save
from transformers import AutoModelForCausalLM, AutoTokenizer

from afteredit.commands.collapse_search import crossing
from afteredit.edit.constraint import Unconstrained
from afteredit.edit.constraints.prune import Prune
from afteredit.edit.edit_set import EditSet
from afteredit.edit.methods.rome import Rome
from afteredit.edit.update import LowRank, load_update
from afteredit.evaluate.measure import Checkpoint, Measure
from afteredit.model.loading.model_source import ModelSource
from afteredit.record.journal import Journal
from afteredit.run import main
from afteredit.store.checked_lines import Lines

EVALUATION = ("limit=3", "held_out_tokens=64", "device=cpu")


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """What is said is not broken into lines."""
    monkeypatch.setenv("COLUMNS", "500")


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_tiny_llama):
    """One tiny model, one text and one cache for all runs here."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder / "model")
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def made(place, few_facts):
    """made("n_edits=4", …) -> the directory of that run, made once."""
    known: dict[tuple, Path] = {}
    source = ("model=hf", f"model.source={place}/model", "tracker=none", few_facts)
    rome = (f"method.second_moment_text={place}/text.txt", "method.tokens_per_key_dim=2", "method.layer=1",
            "method.value_steps=4", "method.contexts_short=2", "method.contexts_long=0")  # fmt: skip

    def make(*overrides: str) -> Path:
        if overrides not in known:
            own = rome if not any(o.startswith("method=") for o in overrides) else ()
            runs = place / f"runs{len(known)}"
            assert main([*source, *own, *EVALUATION, *overrides, f"runs={runs}"]) == 0
            (known[overrides],) = runs.iterdir()
        return known[overrides]

    make.fixed = (*source, *rome, *EVALUATION)
    return make


@pytest.fixture
def copied(made, tmp_path):
    """copied("n_edits=4", …) -> a copy of that run, to be replayed and altered."""

    def copy(*overrides: str) -> Path:
        original = made(*overrides)
        return Path(shutil.copytree(original, tmp_path / "runs" / original.name))

    return copy


STRAIGHT = ("n_edits=4", "eval_every=1", "task=[sentiment]")
LONG = ("n_edits=11", "eval_every=11", "task=none", "edits.file=facts.jsonl")
BATCHES = ("method=ft", "method.layers=[0,1]", "method.steps=2", "n_edits=6", "batch_size=2", "eval_every=2",
           "task=none")  # fmt: skip


def go(folder: Path, *overrides: str, rc: int = 0) -> None:
    """A run of model=hf names a folder, which is loaded only where the command names it too."""
    if not any(override.startswith("model.source=") for override in overrides):
        overrides = (*overrides, f"model.source={made_with(folder)}")
    assert main([f"replay.run={folder}", *EVALUATION, *overrides]) == rc


def made_with(folder: Path) -> str:
    path = folder / "config.yaml"
    found = re.search(r"^  source: (.+)$", path.read_text(), re.M) if path.is_file() else None
    return found[1] if found else "/nowhere"


def rows(folder: Path) -> list[dict]:
    """Of the one results file, by the number of edits."""
    (path,) = folder.glob("results-*.jsonl")
    return sorted(Lines(path).records, key=lambda row: row["n_edits"])


def untimed(row: dict) -> dict:
    return {k: v for k, v in row.items() if not k.startswith(("time/", "memory/"))}


def forget_results(folder: Path) -> list[dict]:
    forgotten = rows(folder)
    for path in [*folder.glob("results-*.jsonl"), *folder.glob("samples/*")]:
        path.unlink()
    return forgotten


def out(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def refuse(*_args, **_kwargs):
    raise AssertionError("a replay needs nothing of this")


def test_rows_at_every_n_are_those_of_the_straight_run_from_its_journal_alone(copied, monkeypatch):
    folder = copied(*STRAIGHT)
    samples = {path.name: pd.read_parquet(path) for path in folder.glob("samples/*.parquet")}
    kept = {name: (folder / name).read_bytes() for name in ("config.yaml", "environment.json", "edits.jsonl")}
    expected = forget_results(folder)
    for verb in ("prepare", "update"):
        monkeypatch.setattr(Rome, verb, refuse)
    monkeypatch.setattr(EditSet, "read", refuse)
    for at in (3, 1, 4, 2):
        go(folder, f"replay.at={at}", "task=[sentiment]")
    assert [untimed(row) for row in rows(folder)] == [untimed(row) for row in expected]
    assert {path.name for path in folder.glob("samples/*.parquet")} == set(samples)
    for path in folder.glob("samples/*.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(path), samples[path.name])
    assert {name: (folder / name).read_bytes() for name in kept} == kept


@pytest.mark.parametrize(
    "run",
    [
        ("n_edits=3", "eval_every=1", "setting=single", "task=none"),
        ("n_edits=3", "eval_every=1", "constraint=rect", "task=none"),
        ("n_edits=3", "eval_every=1", "constraint=prune", "task=none"),
        BATCHES,
    ],
    ids=["single", "rect", "prune", "batches"],
)
def test_settings_constraints_views_and_batches_are_gone_back_in_too(copied, run):
    folder = copied(*run)
    expected = forget_results(folder)
    for row in reversed(expected):
        go(folder, f"replay.at={row['n_edits']}", "task=none")
    assert [untimed(row) for row in rows(folder)] == [untimed(row) for row in expected]
    assert len({row["weights_sha256"] for row in expected}) == len(expected)


def test_a_task_that_the_run_did_not_have_is_measured_as_a_run_that_has_it_does(copied, made, capsys):
    folder, (first,) = copied(*STRAIGHT), made(*STRAIGHT).glob("results-*.jsonl")
    go(folder, "replay.at=2", "task=[nli]")
    (second,) = {path.name for path in folder.glob("results-*.jsonl")} - {first.name}
    expected = rows(made("n_edits=4", "eval_every=1", "task=[nli]"))
    measured = Lines(folder / second).records
    assert [untimed(row) for row in measured] == [untimed(expected[0]), untimed(expected[2])]
    assert (folder / first.name).read_bytes() == first.read_bytes()
    assert "after 2 edits: weights" in (said := out(capsys)) and "identical to the run's" in said


def test_what_is_measured_is_not_measured_again(copied, monkeypatch, capsys):
    folder = copied(*STRAIGHT)
    before = rows(folder)
    monkeypatch.setattr(Measure, "checkpoint", refuse)
    go(folder, "replay.at=3", "task=[sentiment]")
    assert rows(folder) == before
    assert "measured already" in (said := out(capsys)) and "identical to the run's" in said


def test_immediate_success_is_the_runs_own_since_the_checkpoint_before(copied):
    """In a run measured every 3 edits, the row at 5 speaks of edits 4 and 5."""
    folder = copied("n_edits=6", "eval_every=3", "task=none")
    forget_results(folder)
    go(folder, "replay.at=5", "task=none")
    stored = Lines(folder / "edits.jsonl").records
    (path,) = folder.glob("immediate-*.jsonl")
    immediate = Lines(path).records
    samples = pd.read_parquet(next(folder.glob("samples/*-000005.parquet")))
    assert set(samples[samples["kind"] == "immediate"]["request"]) == {stored[i]["requests"][0]["id"] for i in (3, 4)}
    assert len(samples[samples["kind"] == "immediate"]) == sum(len(immediate[i]["immediate"]) for i in (3, 4))


def test_weights_that_are_not_the_runs_are_told(copied, capsys):
    folder = copied(*STRAIGHT)
    (path,) = folder.glob("results-*.jsonl")
    records = Lines(path).records
    path.unlink()
    altered = Lines(path)
    for record in records:
        altered.append(record | ({"weights_sha256": "0" * 64} if record["n_edits"] == 2 else {}))
    go(folder, "replay.at=2", "task=[sentiment]")
    said = out(capsys)
    assert "not identical" in said and "0 of 1 stored rows" in said and "hardware or versions differ" in said


def test_another_order_of_summing_moves_a_weight_by_a_rounding_for_each_edit(made, place):
    """What other hardware or thread counts do to a product of factors; one rank at a time is exact everywhere."""
    folder = made("method=memit", "method.layers=[0,1]", "method.value_steps=3", "method.contexts=1",
                  f"method.second_moment_text={place}/text.txt", "method.tokens_per_key_dim=8",
                  "method.second_moment_weight=1", "n_edits=6", "batch_size=3", "eval_every=3",
                  "task=none")  # fmt: skip
    ours, theirs = (ModelSource("hf", f"{place}/model").load("cpu", "float32") for _ in range(2))
    for index in range(2):
        update = load_update(folder / "updates" / f"{index:06d}.safetensors")
        assert {change.left_Dr.shape[1] for change in update.changes.values()} == {3}
        ours.weights.add(update.changes)
        flipped = {name: LowRank(c.left_Dr.flip(1), c.right_Fr.flip(1)) for name, c in update.changes.items()}
        theirs.weights.add(flipped)
    assert ours.weights.sha256() == rows(folder)[-1]["weights_sha256"]
    for name in ours.weights.base:
        torch.testing.assert_close(theirs.weights.W(name), ours.weights.W(name), rtol=2 * 2**-23, atol=1e-12)


@pytest.mark.parametrize("threads", [2])
def test_rows_measured_with_other_threads_are_the_same_within_tolerance(copied, threads):
    folder = copied(*STRAIGHT)
    expected = forget_results(folder)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        go(folder, "replay.at=4", "task=[sentiment]")
    finally:
        torch.set_num_threads(before)
    (row,) = (row for row in rows(folder) if row["n_edits"] == 4)
    assert row["weights_sha256"] == expected[4]["weights_sha256"]  # rank one: nothing is summed
    for key in ("drift/perplexity", "ability/sentiment/gold_nll", "drift/1/relative_norm", "drift/1/spectral_norm"):
        assert row[key] == pytest.approx(expected[4][key], rel=1e-5)


def test_the_model_may_lie_elsewhere_but_must_be_the_same(copied, place, tmp_path, capsys):
    folder, moved = copied(*STRAIGHT), tmp_path / "moved"
    shutil.copytree(place / "model", moved)
    go(folder, "replay.at=2", "task=[nli]", f"model.source={moved}")
    assert "identical to the run's" in out(capsys)
    model = AutoModelForCausalLM.from_pretrained(moved)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] += 1
    model.save_pretrained(moved)
    go(folder, "replay.at=3", "task=[nli]", f"model.source={moved}", rc=2)
    assert "is not the model that" in capsys.readouterr().err


def half_seen(_self, W_base_DF, W_DF):
    return (W_base_DF + W_DF) / 2


@pytest.mark.parametrize("constraint", ["none", "prune"])
def test_an_export_is_what_metrics_see_to_the_last_logit(copied, place, tmp_path, monkeypatch, constraint):
    folder = copied("n_edits=3", "eval_every=1", f"constraint={constraint}", "task=none")
    monkeypatch.setattr(Prune, "view", half_seen)  # these edits are too small for PRUNE itself to restrain
    monkeypatch.setattr(Measure, "checkpoint", refuse)
    go(folder, "replay.at=2", f"replay.export={tmp_path}/new/model")
    lm = ModelSource("hf", f"{place}/model").load("cpu", "float32")
    for n in range(2):
        lm.weights.add(load_update(folder / "updates" / f"{n:06d}.safetensors").changes)
    ids_BT = torch.tensor([lm.tokens.encode("The market is in the old town")])
    raw = lm.model(ids_BT).logits
    with lm.weights.seen_through(Prune().view if constraint == "prune" else Unconstrained().view):
        expected = lm.model(ids_BT).logits
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new" / "model")
    assert torch.equal(exported(ids_BT).logits, expected)
    assert torch.equal(raw, expected) == (constraint == "none")
    assert tokenizer("The market is in the old town").input_ids == ids_BT[0].tolist()


def test_an_export_that_fails_leaves_nothing_and_a_folder_with_something_in_it_is_kept(
    copied, tmp_path, monkeypatch, capsys
):
    folder, target = copied(*STRAIGHT), tmp_path / "exported" / "model"
    with monkeypatch.context() as patch:
        patch.setattr("afteredit.commands.export.export_model.write_json", refuse)
        with pytest.raises(AssertionError):
            go(folder, "replay.at=2", f"replay.export={target}")
    assert list(target.parent.iterdir()) == []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as a full disk
    try:
        go(folder, "replay.at=2", f"replay.export={target}", rc=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"replay.export={target} cannot be written (File too large); make room" in capsys.readouterr().err
    assert list(target.parent.iterdir()) == []
    target.mkdir()
    go(folder, "replay.at=2", f"replay.export={target}")
    assert (target / "config.json").is_file()
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    go(folder, "replay.at=3", f"replay.export={target}", rc=2)
    assert "not empty" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


@pytest.fixture
def scored(monkeypatch):
    """scored(score by n_edits) -> the n_edits measured from then on, in order."""
    measured: list[int] = []

    def score(by_n, before=lambda: None) -> list[int]:
        def checkpoint(self, done, *, last):
            self.progress("sentiment")
            before()
            measured.append(len(done))
            n_right = round(40 * by_n(len(done)))
            samples = [{"kind": "ability", "name": "sentiment", "numerator": float(i < n_right), "denominator": 1.0}
                       for i in range(40)]  # fmt: skip
            row = {"ability/sentiment": by_n(len(done)), "drift/perplexity": 10.0, "time/eval_s": 0.0}
            return Checkpoint(row, samples)

        monkeypatch.setattr(Measure, "checkpoint", checkpoint)
        return measured

    return score


@pytest.mark.parametrize("lost_at", [1, 7, 11])
def test_a_collapse_is_found_in_few_evaluations_with_both_sides_measured(copied, scored, capsys, lost_at):
    """Half of 0.9 over a chance of 0.5 is left at 0.7: that counts as lost."""
    folder = copied(*LONG)
    forget_results(folder)
    measured = scored(lambda n: 0.9 if n < lost_at else 0.7)
    go(folder, "replay.collapse=sentiment")
    assert {lost_at - 1, lost_at} <= set(measured)
    assert len(measured) == len(set(measured)) <= math.ceil(math.log2(11)) + 2
    said = out(capsys)
    assert f"1.00 of sentiment is left after {lost_at - 1} edits" in said
    assert f"0.50 of sentiment is left after {lost_at} edits" in said
    assert "a crossing of 0.5" in said and "there can be others" in said
    assert [row["n_edits"] for row in rows(folder)] == sorted(measured)
    assert all("ability/nli" not in row and len(row["weights_sha256"]) == 64 for row in rows(folder))
    n_before = len(measured)
    go(folder, "replay.collapse=sentiment")
    assert len(measured) == n_before


def test_how_much_must_be_lost_is_a_key(copied, scored, capsys):
    folder = copied(*LONG)
    forget_results(folder)
    scored(lambda n: 0.9 - 0.02 * n)  # left: 1 - n / 20
    go(folder, "replay.collapse=sentiment", "replay.drop=0.22")
    assert "0.80 of sentiment is left after 4 edits, 0.75 of sentiment is left after 5 edits" in out(capsys)


def test_where_enough_is_left_at_the_end_no_crossing_is_said(copied, scored, capsys):
    folder = copied(*LONG)
    forget_results(folder)
    measured = scored(lambda n: 0.9 if n < 3 else 0.8)
    go(folder, "replay.collapse=sentiment")
    assert measured == [0, 11]
    assert "no crossing found: 0.75 of sentiment is left after 11 edits" in out(capsys)


def test_a_search_that_is_stopped_goes_on_with_what_it_has(copied, scored, capsys):
    folder = copied(*LONG)
    forget_results(folder)

    def stop_at_the_third() -> None:
        if len(measured) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    measured = scored(lambda n: 0.9 if n < 7 else 0.5, stop_at_the_third)
    go(folder, "replay.collapse=sentiment", rc=128 + signal.SIGTERM)
    assert "stopped" in out(capsys)
    assert [row["n_edits"] for row in rows(folder)] == sorted(measured)
    assert len(measured) == 3  # the point being measured is the last one
    go(folder, "replay.collapse=sentiment")
    assert len(measured) == len(set(measured)) <= math.ceil(math.log2(11)) + 2
    assert "1.00 of sentiment is left after 6 edits, 0.00 of sentiment is left after 7 edits" in out(capsys)


@pytest.mark.parametrize("n_batches", [1, 2, 3, 8, 9, 100])
def test_bisection_finds_every_step_in_logarithmic_time(n_batches):
    borders = [3 * i for i in range(n_batches + 1)]
    for lost in borders[1:]:
        asked: list[int] = []

        def share(n, lost=lost, asked=asked):
            asked.append(n)
            return 1.0 if n < lost else 0.5

        assert crossing(borders, share, 0.5) == (lost - 3, lost)
        assert len(asked) <= math.ceil(math.log2(n_batches)) + 1


def test_a_crossing_of_a_curve_that_falls_and_rises_is_one():
    shares = [1.0, 0.4, 0.9, 0.3, 0.8, 0.7, 0.2]
    a, b = crossing(range(7), lambda n: shares[n], 0.5)
    assert b == a + 1 and shares[a] > 0.5 >= shares[b]
    assert crossing(range(7), lambda n: shares[n], 0.1) is None
    assert crossing([0], lambda n: 0.0, 0.5) is None


REFUSED = [
    (["replay.at=5"], ["replay.at=5", "holds 4 edits", "0 to 4"]),
    (["replay.at=-1"], ["replay.at=-1", "0 to 4"]),
    ([], ["neither", "replay.at", "replay.collapse"]),
    (["replay.at=1", "replay.collapse=sentiment"], ["replay.at and replay.collapse", "allowed"]),
    (["replay.export=x"], ["replay.export", "replay.at="]),
    (["replay.collapse=sentimnt"], ["replay.collapse=sentimnt", "sentiment", "harness=[sentimnt]"]),
    (["replay.collapse=nli", "task=[sentiment]"], ["replay.collapse=nli", "task=[nli]"]),
    (["replay.collapse=sentiment", "replay.drop=1"], ["replay.drop=1", "between 0 and 1"]),
    (["replay.collapse=sentiment", "replay.drop=0"], ["replay.drop=0", "between 0 and 1"]),
    (["replay.at=1", "method.layer=2"], ["method.layer", "the run's own", "Allowed"]),
    (["replay.at=1", "model=gptj"], ["model is given", "the run's own"]),
    (["replay.at=1", "model.start_token=x"], ["model.start_token", "the run's own"]),
    (["replay.at=1", "constraint=rect"], ["constraint", "the run's own"]),
    (["replay.at=1", "edits.order=shuffled"], ["edits.order", "the run's own"]),
    (["replay.at=1", "batch_size=5"], ["batch_size", "the run's own"]),
    (["replay.at=1", "setting=single"], ["setting", "the run's own"]),
    (["replay.at=1", "seed=0"], ["seed", "the run's own"]),
    (["replay.at=1", "dtype=bfloat16"], ["dtype", "the run's own"]),
    (["replay.at=1", "experiment=gu2024/rect_general"], ["experiment", "the run's own"]),
    (["replay.at=1", "n_edits=2"], ["n_edits", "the run's own"]),
]


@pytest.mark.parametrize(("overrides", "named"), REFUSED, ids=lambda value: " ".join(value))
def test_what_cannot_be_asked_is_refused_by_name_before_a_model_is_loaded(
    copied, monkeypatch, capsys, overrides, named
):
    folder = copied(*STRAIGHT)
    monkeypatch.setattr(ModelSource, "load", refuse)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    go(folder, *overrides, rc=2)
    error = capsys.readouterr().err
    for text in named:
        assert text in error
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_point_inside_a_batch_is_refused_with_its_borders(copied, capsys):
    go(copied(*BATCHES), "replay.at=3", rc=2)
    error = capsys.readouterr().err
    assert "replay.at=3" in error and "2 and 4" in error


def test_no_collapse_is_looked_for_where_edits_do_not_add_up(copied, capsys):
    go(copied("n_edits=3", "eval_every=1", "setting=single", "task=none"), "replay.collapse=sentiment", rc=2)
    assert "setting=single" in capsys.readouterr().err


def test_a_task_at_chance_in_the_unedited_model_is_refused(copied, scored, capsys):
    folder = copied(*STRAIGHT)
    scored(lambda _n: 0.5)
    go(folder, "replay.collapse=sentiment", "limit=4", rc=2)
    assert "does not stand above chance" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        go(folder, "replay.at=0", rc=2)
        assert "is no run directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "empty"] and not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("content", ["", "seed: [", "- 1", "a: b"])
def test_a_damaged_config_is_refused_and_not_filled_up_with_defaults(copied, monkeypatch, capsys, content):
    folder = copied(*STRAIGHT)
    monkeypatch.setattr(ModelSource, "load", refuse)
    (folder / "config.yaml").write_text(content)
    go(folder, "replay.at=1", rc=2)
    assert str(folder / "config.yaml") in (error := capsys.readouterr().err) and "restore it" in error


@pytest.mark.parametrize("without_first_line", [False, True])
def test_an_altered_config_is_refused(copied, monkeypatch, capsys, without_first_line):
    folder = copied(*STRAIGHT)
    monkeypatch.setattr(ModelSource, "load", refuse)
    check, _, rest = (folder / "config.yaml").read_text().partition("\n")
    altered = rest.replace("separator: auto", "separator: none")
    assert altered != rest
    (folder / "config.yaml").write_text(altered if without_first_line else f"{check}\n{altered}")
    go(folder, "replay.at=1", rc=2)
    error = capsys.readouterr().err
    assert f"{folder / 'config.yaml'} does not match its checksum, or lacks it" in error and "restore it" in error


def test_a_stored_update_of_another_block_is_refused(copied, capsys):
    """With right checksums, which anybody can write."""
    folder = copied(*STRAIGHT)
    path = folder / "updates" / "000001.safetensors"
    path.write_bytes(save({k.replace("layers.1", "layers.2"): v for k, v in load_file(path).items()}))
    lines = Lines(folder / "edits.jsonl").records
    lines[1]["changes"] = ["model.layers.2.mlp.down_proj.weight"]
    lines[1]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "edits.jsonl").unlink()
    journal = Lines(folder / "edits.jsonl")
    for line in lines:
        journal.append(line)
    before = rows(folder)
    go(folder, "replay.at=3", "task=[sentiment]", rc=2)
    error = capsys.readouterr().err
    assert "layers.2.mlp.down_proj.weight, which this method does not edit" in error and "layers.1.mlp" in error
    assert rows(folder) == before


def test_points_are_refused_where_no_run_is_named(capsys):
    assert main(["replay.at=3"]) == 2
    assert "replay.run=<run directory>" in capsys.readouterr().err


def test_a_run_in_use_is_not_replayed(copied, capsys):
    folder = copied(*STRAIGHT)
    journal = Journal(folder)
    go(folder, "replay.at=2", rc=2)
    journal.close()
    assert "in use by another process" in capsys.readouterr().err


def test_a_run_goes_on_over_the_rows_that_a_replay_added(copied, made, monkeypatch):
    """Measured every 2 edits, replayed at 1 and 3, continued with a checkpoint after each edit: nothing is to do."""
    run = ("n_edits=4", "eval_every=2", "task=[sentiment]")
    folder = copied(*run)
    for at in (1, 3):
        go(folder, f"replay.at={at}", "task=[sentiment]")
    expected = [untimed(row) for row in rows(made(*STRAIGHT))]
    with monkeypatch.context() as patch:
        patch.setattr(Measure, "checkpoint", refuse)
        assert main([*made.fixed, *STRAIGHT, f"runs={folder.parent}"]) == 0
    assert [untimed(row) for row in rows(folder)] == expected


LATER = [
    (("eval_at=[2]",),),
    (("eval_at=[2]",), (3,)),
    (("eval_at=[3]",), (1,), ("eval_at=[2]",)),
    (("eval_every=2",), ("eval_at=[1,3]",), ()),
]


@pytest.mark.parametrize("later", LATER, ids=str)
def test_checkpoints_added_later_leave_the_rows_of_a_run_that_had_them_from_the_start(copied, made, later):
    """Immediate success is counted again from the file of each edit: an edit counts in one row."""
    run = ("n_edits=4", "eval_every=4", "task=none")
    folder = copied(*run)
    for step in later:
        if step and isinstance(step[0], int):
            go(folder, f"replay.at={step[0]}", "task=none")
        else:
            assert main([*made.fixed, *run, *step, f"runs={folder.parent}"]) == 0
    measured = [row["n_edits"] for row in rows(folder)]
    assert len(measured) > 2
    straight = made(*run, f"eval_at={measured[1:]}".replace(" ", ""))
    assert [untimed(row) for row in rows(folder)] == [untimed(row) for row in rows(straight)]
    (path,) = folder.glob("immediate-*.jsonl")
    for before, row in zip(measured, rows(folder)[1:], strict=False):
        edits = [edit for edit in Lines(path).records if before < edit["n_edits"] <= row["n_edits"]]
        scores = [s["score"] for edit in edits for s in edit["immediate"] if s["name"] == "prob/efficacy"]
        assert row["editing/immediate/n_edits"] == len(edits) == len(scores)
        assert row["editing/immediate/prob/efficacy"] == pytest.approx(sum(scores) / len(scores))


def test_rows_that_an_older_version_left_overlapping_are_mended_by_the_runs_own_command(copied, made):
    run = ("n_edits=4", "eval_every=4", "eval_at=[2]", "task=none")
    folder, seldom = copied(*run), made("n_edits=4", "eval_every=4", "task=none")
    (results,), (other,) = folder.glob("results-*.jsonl"), seldom.glob("results-*.jsonl")
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join([*lines[:-1], other.read_bytes().splitlines(keepends=True)[-1]]))
    (last,) = seldom.glob("samples/*-000004.parquet")
    shutil.copy(last, folder / "samples" / last.name)
    assert rows(folder)[-1]["editing/immediate/n_edits"] == 4
    assert main([*made.fixed, *run, f"runs={folder.parent}"]) == 0
    assert [untimed(row) for row in rows(folder)] == [untimed(row) for row in rows(made(*run))]

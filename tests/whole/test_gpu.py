"""On an accelerator (pytest -m gpu): every method, every measurement and a whole run give there what the CPU gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.alphaedit import AlphaEdit, Threshold
from afteredit.edit.methods.emmet import Emmet
from afteredit.edit.methods.ft import Ft
from afteredit.edit.methods.kn import Kn
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.memit_seq import MemitSeq
from afteredit.edit.methods.mend import Mend
from afteredit.edit.methods.rome import Keys, Rome, SecondMoment
from afteredit.edit.methods.ultraedit import UltraEdit
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM
from afteredit.model.loading.model_source import ModelSource
from afteredit.run import main
from afteredit.store.checked_lines import Lines

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")]

AT_ONE = {"layer": 1, "value_steps": 10, "weight_decay": 0.0, "contexts_short": 2, "contexts_long": 0}
IN_TURN = {"layers": [0, 1], "value_steps": 10, "weight_decay": 0.0, "contexts": 2}
METHODS = {
    "rome": Rome(**AT_ONE),
    "rome_published": Rome(**AT_ONE, keys=Keys.asymmetric, second_moment=SecondMoment.identity),
    "memit": Memit(**IN_TURN, second_moment_weight=1.0),
    "memit_seq": MemitSeq(**IN_TURN, second_moment_weight=1.0),
    "alphaedit": AlphaEdit(
        **IN_TURN, threshold=0.9, threshold_kind=Threshold.relative, ridge=0.01, tokens_per_key_dim=10
    ),
    "emmet": Emmet(**IN_TURN, second_moment_weight=1.0),
    "ultraedit": UltraEdit(layers=[0, 1, 2], learning_rate=0.1),
    "ft": Ft(layers=[0, 1], steps=10, learning_rate=0.01, max_change=0.02),
    "kn": Kn(steps=5, contexts=2, threshold=0.3),
    "mend": Mend(
        n_layers=2, rank=8, steps=6, batch=8, validate_every=3, alpha=0.01, learning_rate=1e-3, edit_weight=1.0
    ),
}


@pytest.fixture
def on_both(make_lm):
    """on_both(family, dtype) -> the same model on the CPU and on the accelerator."""

    def make(family: str, dtype: torch.dtype) -> tuple[LM, LM]:
        cpu, own = make_lm(family, dtype=dtype), make_lm(family, dtype=dtype)
        return cpu, LM(own.model.to(DEVICE), own.tokenizer)

    return make


def prepare(lm: LM, method, monkeypatch, cache: Path) -> Prepared:
    monkeypatch.setenv("AFTEREDIT_CACHE", str(cache))
    return method.prepare(lm, Given(0, lambda: compose(["edits=facts"]).edits.training("mini")[:24]))


def updates(lm: LM, method, requests, prepared: Prepared) -> list[dict[str, torch.Tensor]]:
    """Of each request in turn what it changes, by matrix."""
    state, found = {}, []
    for request in requests:
        update = method.update(lm, [request], prepared, state)
        state = method.extend(state, update, prepared)
        lm.weights.add(update.changes)
        found.append({name: change.dense().cpu() for name, change in update.changes.items()})
    return found


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_makes_the_update_that_the_cpu_makes(
    method, family, on_both, fact, second_fact, float64_throughout, monkeypatch, tmp_path
):
    """With the same constants, which are made on either device: second moments are sums in float32, and where they are
    ill-conditioned, as those of few tokens, their last digits grow."""
    cpu, gpu = on_both(family, torch.float64)
    prepared, made_here = (prepare(lm, method, monkeypatch, tmp_path / lm.device.type) for lm in (cpu, gpu))
    assert made_here.contexts == prepared.contexts and set(made_here.tensors) == set(prepared.tensors)
    for name in made_here.tensors:  # not to be compared: eigenvectors' signs, and what Adam's steps have trained
        if not name.startswith("null_space/") and not isinstance(method, Mend):
            assert_close(made_here.tensors[name], prepared.tensors[name], rtol=1e-3, atol=1e-5)
    ours, expected = (updates(lm, method, [second_fact, fact], prepared) for lm in (gpu, cpu))
    for found, wanted in zip(ours, expected, strict=True):
        assert set(found) == set(wanted) != set()
        for name, change_DF in wanted.items():
            assert change_DF.any()
            assert float((found[name] - change_DF).norm()) < 1e-6 * float(change_DF.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_edits_in_half_precision(
    method, dtype, on_both, fact, second_fact, plain_nll, monkeypatch, tmp_path
):
    _, lm = on_both("llama", dtype)
    ids, target = lm.tokens.question_ids(fact.question), lm.tokens.answer_ids(fact.target_new, fact.question)
    before = plain_nll(lm, ids, target)
    prepared = prepare(lm, method, monkeypatch, tmp_path / "cache")
    second, first = updates(lm, method, [second_fact, fact], prepared)
    assert all(change_DF.isfinite().all() and change_DF.any() for change_DF in [*second.values(), *first.values()])
    assert plain_nll(lm, ids, target) < before - 0.1
    assert set(lm.weights._masters) == set(first)


@pytest.fixture
def plain_nll():
    """Mean nats per token of `target` behind `ids`, by the model's own forward pass."""

    @torch.no_grad()
    def nll(lm: LM, ids, target) -> float:
        logits_TV = lm.model(input_ids=torch.tensor([[*ids, *target]], device=lm.device), use_cache=False).logits[0]
        log_p_TV = logits_TV[len(ids) - 1 : -1].double().log_softmax(-1)
        return -float(log_p_TV[range(len(target)), list(target)].mean())

    return nll


@pytest.fixture
def go(tmp_path, tiny_folder):
    """go(device, "key=value", …, runs=<name>) -> the run directory."""
    (tmp_path / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    fixed = ("model=hf", f"model.source={tiny_folder}", f"method.second_moment_text={tmp_path}/text.txt",
             "method.tokens_per_key_dim=2", "method.value_steps=4", "limit=3", "held_out_tokens=64",
             "tracker=none")  # fmt: skip

    def run(device: str, *overrides: str, runs: str = "") -> Path:
        folder = tmp_path / (runs or f"runs-{device}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AFTEREDIT_CACHE", str(tmp_path / f"cache-{device}"))
            assert main([*fixed, *overrides, f"device={device}", f"runs={folder}"]) == 0
        (made,) = folder.iterdir()
        return made

    return run


def rows(folder: Path) -> list[dict]:
    """The numbers of all results files but those of time and memory."""
    found = [row for path in sorted(folder.glob("results-*.jsonl")) for row in Lines(path).records]
    return [
        {key: value for key, value in row.items() if "/" in key and not key.startswith(("time/", "memory/"))}
        for row in found
    ]


def hashes(folder: Path) -> list[str]:
    return [row["weights_sha256"] for path in sorted(folder.glob("results-*.jsonl")) for row in Lines(path).records]


RUNS = {
    "rome": ("method=rome", "method.layer=1", "n_edits=4", "eval_every=2"),
    "rome, rect": ("method=rome", "method.layer=1", "constraint=rect", "n_edits=2", "eval_every=2", "task=sentiment"),
    "rome, prune": ("method=rome", "method.layer=1", "constraint=prune", "n_edits=2", "eval_every=2", "task=sentiment"),
    "memit, batches": ("method=memit", "method.layers=[0,1]", "n_edits=4", "batch_size=2", "eval_every=2"),
    "memit, single": ("method=memit", "method.layers=[0,1]", "n_edits=4", "setting=single", "eval_every=4"),
}


@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS)
def test_a_whole_run_measures_what_it_measures_on_the_cpu(go, overrides):
    """In float64: of a random model the largest two of many logits are close, and digits would decide answers."""
    ours, expected = (rows(go(device, *overrides, "dtype=float64")) for device in (DEVICE, "cpu"))
    assert len(ours) == len(expected) > 1
    for row, wanted in zip(ours, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_that_goes_on_ends_in_the_same_bits_and_so_does_its_replay(go, tiny_folder, dtype):
    settings = ("method=rome", "method.layer=1", "eval_every=2", "task=sentiment", f"dtype={dtype}")
    straight = go(DEVICE, *settings, "n_edits=4", runs="straight")
    go(DEVICE, *settings, "n_edits=2", runs="grown")
    grown = go(DEVICE, *settings, "n_edits=4", runs="grown")
    assert hashes(grown) == hashes(straight)
    assert rows(grown)[:2] == rows(straight)[:2]
    last = hashes(straight)[-1]
    assert (
        main(
            [
                f"replay.run={straight}",
                f"model.source={tiny_folder}",
                "replay.at=4",
                "task=sentiment",
                "limit=2",
                "tracker=none",
            ]
        )
        == 0
    )
    assert hashes(straight).count(last) == 2  # the run's row and the replay's


def test_edits_made_here_are_the_same_bits_on_the_cpu(go, tiny_folder):
    """A journal from one machine, gone over on another without an accelerator."""
    here = go(DEVICE, "method=rome", "method.layer=1", "n_edits=3", "eval_every=3", "task=none")
    last = hashes(here)[-1]
    assert (
        main(
            [
                f"replay.run={here}",
                f"model.source={tiny_folder}",
                "replay.at=3",
                "device=cpu",
                "task=sentiment",
                "limit=2",
                "tracker=none",
            ]
        )
        == 0
    )
    assert hashes(here).count(last) == 2


def test_a_device_map_on_one_device_changes_nothing(tiny_folder, fact, monkeypatch, tmp_path):
    found = []
    for device_map in ("auto", None):
        lm = ModelSource("hf", str(tiny_folder), device_map=device_map).load(DEVICE, "bfloat16")
        assert lm.device.type == DEVICE
        updates(lm, METHODS["rome"], [fact], prepare(lm, METHODS["rome"], monkeypatch, tmp_path / "cache"))
        found.append((lm.fingerprint, lm.weights.sha256()))
    assert found[0] == found[1]

"""A plan from the command line to its tables, on a tiny shape; no weights are there to be loaded."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from transformers import AutoConfig

from afteredit.commands.plan import machine, shape_only
from afteredit.commands.plan import plan as module
from afteredit.commands.plan.machine import Machine, along, given
from afteredit.commands.plan.plan import planned
from afteredit.launch.command_line import compose
from afteredit.model.costs.work import Pass, Work
from afteredit.run import main
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.models import tiny_model

RUN = ("method.layer=1", "method.contexts_short=2", "method.contexts_long=0", "held_out_tokens=64", "limit=3",
       "task=[sentiment,open_qa]", "n_edits=4", "eval_every=2", "tracker=none")  # fmt: skip
FILES = sorted((Path(__file__).parents[3] / "conf" / "model").glob("*.yaml"))
SHAPES = {path.stem: OmegaConf.load(path).get("shape") for path in FILES}
LARGE_FIRST = sorted((name for name, shape in SHAPES.items() if shape), key=lambda name: -SHAPES[name].billions)
SMALLEST = {SHAPES[name].family: name for name in LARGE_FIRST}  # of each family


@pytest.fixture
def shape(tmp_path, tokenizer, monkeypatch):
    """A folder with a config and a tokenizer, and nothing else."""
    folder = tmp_path / "shape"
    tiny_model("llama", len(tokenizer), positions=2048).config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr(machine, "SECONDS", 0.2)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


def command(shape, *more: str) -> list[str]:
    return ["model=hf", f"model.source={shape}", "device=cpu", f"runs={shape.parent}/runs", *RUN, *more]


def test_a_plan_of_this_machine_is_printed_and_nothing_is_kept(shape, capsys):
    assert main(command(shape, "plan=machine")) == 0
    said = capsys.readouterr().out
    for what in ("weights", "while updating", "preparing, once per model", "one update (of 4)", "a later one: open_qa",
                 "the whole run, constants cached", "updates of the journal"):  # fmt: skip
        assert what in said, what
    assert "no tokenizer" not in said and "does not fit" not in said
    assert not (shape.parent / "runs").exists() and not (shape.parent / "cache").exists()


def test_what_does_not_fit_is_said_with_the_keys_that_change_it(shape, capsys):
    assert main(command(shape, "plan=given", "plan.tflops=1", "plan.gib=0.0001")) == 0
    said = capsys.readouterr().out
    lacking = re.search(r"does not fit: device lacks [\d.]+ GiB\.  (.*)", said)
    assert lacking and "model.device_map=auto" in lacking[1]


def test_more_facts_rows_and_checkpoints_cost_more(shape):
    slow = ("plan=given", "plan.tflops=1e-6", "plan.gib=1")  # passes count, and little else
    few = planned(compose(command(shape, *slow)))
    ft = ["method=ft", "batch_size=2", *RUN[3:]]  # without ROME's keys
    batches = planned(compose([*command(shape)[:4], *ft, *slow]))
    many = planned(compose(command(shape, *slow, "n_edits=8", "limit=6")))
    assert (few.n_updates, many.n_updates, batches.n_updates) == (4, 8, 2)
    assert (few.checkpoints, many.checkpoints) == ([0, 2, 4], [0, 2, 4, 6, 8])
    assert many.whole.expected - many.started.expected > 1.5 * (few.whole.expected - few.started.expected)
    assert few.whole.low < few.whole.expected < few.whole.high
    model_bytes = sum(p.nbytes for p in tiny_model("llama", AutoConfig.from_pretrained(shape).vocab_size).parameters())
    assert few.held.always["device"]["weights"] == model_bytes
    assert few.disk["updates of the journal"] == 4 * 4 * (32 + 48)


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_an_estimate_is_certain_to_fifteen_percent_and_the_spread_of_the_machine(shape, monkeypatch, spread):
    """Where answers are generated, longer ones than the gold ones raise what it takes at most, and that alone."""
    slow = Machine({1.0: 1.0}, {1.0: 1.0}, 0.0, 0.0, 0.0, 1.0, 1e9, 1e9, spread)  # passes count, and little else
    monkeypatch.setattr(module, "_machine", lambda x, lm: slow)
    says = planned(compose(command(shape, "plan=machine")))
    around = 0.15 + spread
    exact = {"once": says.once, "start": says.start, "update": says.update, "sentiment": says.later["sentiment"]}
    for name, seconds in exact.items():
        assert seconds.low == pytest.approx((1 - around) * seconds.expected), name
        assert seconds.low > 0 and seconds.high == pytest.approx((1 + around) * seconds.expected), name
    answers = says.later["open_qa"]
    assert answers.low == pytest.approx((1 - around) * answers.expected)
    assert answers.high > 1.3 * (1 + around) * answers.expected
    assert says.started.high == pytest.approx(1.15 * says.started.expected)  # not of the machine that was timed


def test_text_that_is_shipped_is_not_planned_to_be_written(monkeypatch):
    """SmolLM2's own, of the default number of tokens, and of these weights, dtype and start token alone."""
    monkeypatch.setattr(shape_only, "_tokenizer", lambda source, folder: None)

    def written(*overrides: str) -> bool:
        says = planned(compose(["model=smollm2", "plan=given", "plan.tflops=1", "plan.gib=80", "task=none", "n_edits=1",
                                "held_out_tokens=64", "tracker=none", *overrides]))  # fmt: skip
        F, D_kv, n_rows = 1536, 3 * 64, 128  # on an accelerator a whole group is written at once
        n_edited = 5 if "method=memit" in overrides else 1
        writing = 1.5 * n_rows * 128 * 2 * D_kv * 30 * (2 if "dtype=bfloat16" in overrides else 4)
        preparing = says.held.phases["device"]["preparing"]
        assert preparing in (writing, (8 * n_edited + 20) * F**2)  # sums in float64 by block, and what solving takes
        return preparing == writing

    assert not written() and not written("method=memit")
    assert written("method.tokens_per_key_dim=11") and written("dtype=bfloat16") and written("model.start_token=null")
    assert not written("dtype=bfloat16", "method.second_moment_text=text.txt")


def test_a_plan_refuses_what_it_cannot_go_by(shape):
    for arguments, said in ((["plan=given"], "plan.tflops"), (["plan=given", "plan.tflops=0", "plan.gib=1"], "above 0"),
                            (["plan=elsewhere"], "machine")):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            compose(command(shape, *arguments))
    with pytest.raises(BadInput, match="config.json"):
        planned(compose(["model=hf", f"model.source={shape.parent}/nowhere", "device=cpu", *RUN, "plan=given",
                         "plan.tflops=1", "plan.gib=1"]))  # fmt: skip


def test_seconds_are_those_of_passes_products_and_bytes():
    slow = Machine(block={1: 1.0, 3: 2.0}, logits={1: 10.0}, per_pass=0.5, per_column=0.1, cached=0.2, back=2.0,
                   solving=4.0, moving=8.0, spread=0.0)  # fmt: skip
    assert along(slow.block, 2) == 1.5 and along(slow.block, 6) == 4.0 and along(slow.block, 0.5) == 1.0
    plain = Pass(tokens=3, columns=64, blocks=2)
    assert slow.seconds(Work((plain,))) == 0.5 + 2 * 2.0
    assert slow.seconds(Work((dataclasses.replace(plain, times=3),))) == 3 * 4.5
    back = dataclasses.replace(plain, backward=1, logits=2)
    assert slow.seconds(Work((back,))) == 0.5 + 2.0 * (2 + 2.0) + 3 * 20.0
    wide = dataclasses.replace(plain, columns=74, decoding=True)
    assert slow.seconds(Work((wide,))) == pytest.approx(0.5 + 2 * (2.0 + 10 * 0.2 * 3))
    assert slow.seconds(Work(solving=8.0, moved=4.0)) == 2.0 + 0.5


def test_given_figures_are_taken_at_their_word(make_lm):
    lm = make_lm("llama")
    lm.vocabulary = 100
    told = given(lm, tflops=1e-6, gib=2.0)  # 10^6 operations a second
    D, F = lm.widths(0)
    attention = D * D + D * D // 2 * 2 + D * D  # queries, keys and values of half the heads, output
    assert told.seconds(Work((Pass(1, 1, 1),))) == pytest.approx(2 * (attention + 3 * D * F) / 1e6)
    assert told.seconds(Work((Pass(0, 0, 0, logits=5),))) == pytest.approx(5 * 2 * D * 100 / 1e6)
    assert told.memory["device"] == 2 * 2**30


@pytest.mark.parametrize("preset", SMALLEST.values())
def test_a_preset_without_its_tokenizer_is_planned_and_the_plan_says_that_tokens_are_estimated(preset, monkeypatch):
    """The model's config names ends of text that the stand-in for its tokenizer does not hold: answers end all the
    same, after about as many tokens as the gold ones have.  On so slow a machine passes decide."""
    monkeypatch.setattr(shape_only, "_tokenizer", lambda source, folder: None)
    says = planned(compose([f"model={preset}", "dtype=bfloat16", "plan=given", "plan.tflops=0.01", "plan.gib=80",
                            "task=[open_qa]", "limit=2", "n_edits=1", "held_out_tokens=64",
                            "tracker=none"]))  # fmt: skip
    assert any("estimated from characters" in note for note in says.notes)
    answers = says.later["open_qa"]
    assert 0 < answers.low < answers.expected and answers.high > 1.5 * answers.expected  # the interval alone: 1.45

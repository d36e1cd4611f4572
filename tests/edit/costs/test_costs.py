"""What a method says of its cost, held against the passes that its update makes on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from afteredit.edit.editor import Editor
from afteredit.edit.hypernetwork.network import Hypernetwork
from afteredit.edit.hypernetwork.training_batches import Batches
from afteredit.edit.hypernetwork.training_loss import learn
from afteredit.edit.hypernetwork.training_progress import Progress
from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.alphaedit import AlphaEdit
from afteredit.edit.methods.emmet import Emmet
from afteredit.edit.methods.ft import Ft
from afteredit.edit.methods.kn import Kn
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.memit_seq import MemitSeq
from afteredit.edit.methods.mend import Mend
from afteredit.edit.methods.rome import Rome
from afteredit.edit.methods.ultraedit import UltraEdit
from afteredit.edit.request import EditRequest
from afteredit.model.hooks import hooked

TEXT = {"second_moment_text": "text.txt", "tokens_per_key_dim": 2}
ALL_STEPS = {"value_steps": 4, "stop_loss": 0.0, **TEXT}
METHODS = {
    "rome": Rome(layer=1, contexts_short=2, contexts_long=1, **ALL_STEPS),
    "memit": Memit(layers=[1, 2], contexts=2, **ALL_STEPS),
    "memit_seq": MemitSeq(layers=[1, 2], contexts=2, **ALL_STEPS),
    "emmet": Emmet(layers=[2], contexts=2, **ALL_STEPS),
    "alphaedit": AlphaEdit(layers=[1, 2], contexts=2, threshold=1e9, **ALL_STEPS),
    "ft": Ft(layers=[1], steps=3, stop_loss=0.0),
    "ft in small steps": Ft(layers=[1], epochs=2, minibatch=1, stop_loss=0.0),
    "kn": Kn(steps=3, contexts=1, threshold=0.0, share=0.0),
    "ultraedit": UltraEdit(layers=[1, 2]),
}
SECOND = EditRequest(id="f2", subject="The Great Wall of the old town", prompt="{} is located in", target_new="Italy",
                     target_true="China")  # fmt: skip


@contextmanager
def blocks_counted(lm) -> Iterator[list[int]]:
    """Collects the tokens of every call of a block."""
    tokens: list[int] = []

    def count(_module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        tokens.append(hidden.shape[0] * hidden.shape[1])

    with hooked(before=dict.fromkeys(lm.anatomy.blocks, count)):
        yield tokens


@pytest.mark.parametrize("name", METHODS)
def test_an_updates_passes_are_those_that_the_method_says(name, make_lm, fact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    (tmp_path / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    lm, method = make_lm("llama"), METHODS[name]
    batch = [fact] if method.max_batch == 1 else [fact, SECOND]
    prepared = method.prepare(lm, Given(0, list))
    lengths = [len(lm.tokens.text_ids(context)) for context in prepared.contexts]
    longest = max(lengths)
    method.update(lm, batch, prepared, {})  # what the model allows is found out once
    with blocks_counted(lm) as tokens:
        method.update(lm, batch, prepared, {})
    said = method.cost(lm, batch, together=8).update
    expected = sum(p.tokens * p.blocks * p.times for p in said.passes)
    # the run's own prefixes have other numbers of tokens than the stand-ins have
    around = 0.1 if longest == 0 else 0.3
    assert sum(tokens) == pytest.approx(expected, rel=around)
    assert said.solving >= 0 and method.cost(lm, batch, together=8).disk > 0


def test_an_update_takes_as_much_of_the_disk_as_is_said(make_lm, fact):
    """Rank-one factors of one block, float32."""
    lm = make_lm("llama")
    D, F = lm.widths(1)
    assert METHODS["rome"].cost(lm, [fact], 1).disk == 4 * (D + F)
    assert METHODS["ft"].cost(lm, [fact], 1).disk == 4 * D * F
    assert METHODS["memit"].cost(lm, [fact, SECOND], 8).disk == 4 * 2 * 2 * (D + F)


def test_factors_and_second_moments_are_held_in_the_bytes_that_are_said(make_lm, fact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path))
    (tmp_path / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    lm = make_lm("llama")
    for name in ("rome", "memit", "memit_seq", "alphaedit"):
        method = METHODS[name]
        prepared = method.prepare(lm, Given(0, list))
        editor = Editor(lm, method, _Nothing(), prepared)
        held = [*prepared.factors.values(), *(t for t in prepared.tensors.values() if t.ndim == 2)]
        if method.max_batch is None:
            editor.begin([fact])
            editor.apply([fact], editor.write([fact]))
            held += [t for t in editor._state.values() if t.ndim == 2]
        said = sum(method.cost(lm, [fact], 1).cpu.values())
        assert sum(t.nbytes for t in held) == pytest.approx(said, rel=0.01), name
        lm.weights.restore()


class _Nothing:
    @staticmethod
    def constrain(update, _W, _W_base):
        return update


def test_mends_update_network_and_training_cost_what_it_says(make_lm, fact):
    """A batch is recorded when training first meets it, and kept where there is room: a step is said to cost something
    between the two."""
    lm, method, batch = make_lm("llama"), Mend(n_layers=2, batch=2, steps=7), [fact, SECOND]
    layers = method.edited_layers(lm)
    network = Hypernetwork([lm.widths(layer) for layer in layers], method.rank).start(method.alpha, 0)
    prepared = Prepared(tensors={name: tensor.clone() for name, tensor in network.state_dict().items()})
    said = method.cost(lm, batch, together=1)
    method.update(lm, batch, prepared, {})  # what the model allows is found out once
    with blocks_counted(lm) as tokens:
        update = method.update(lm, batch, prepared, {})
    assert sum(tokens) == sum(p.tokens * p.blocks * p.times for p in said.update.passes)
    held = sum(tensor.nbytes for tensor in prepared.tensors.values())
    assert held == pytest.approx(said.device["the network"], rel=0.05)  # biases and statistics beside matrices
    factors = sum(4 * factor.numel() for change in update.changes.values()
                  for factor in (change.left_Dr, change.right_Fr))  # fmt: skip
    assert said.disk / 4 < factors <= said.disk  # in the last block a token before the answer changes nothing

    batches, progress, steps = Batches(lm, batch, batch, layers, 2), Progress(network, method), []
    for _ in range(2):
        with blocks_counted(lm) as tokens:
            learn(lm, layers, progress, batches.at_step(0), method)
        steps.append(sum(tokens))
    each = sum(p.tokens * p.blocks * p.times for p in said.once.passes) / method.steps
    assert steps[1] < each < steps[0]


def test_moments_of_a_longer_text_cost_as_much_more(make_lm):
    from afteredit.edit.costs.values import moments_work

    lm = make_lm("llama")
    (writing, reading), (more_writing, more_reading) = (
        [p.tokens * p.times for p in moments_work(lm, [1], "sampled", n).passes] for n in (256, 512)
    )
    F = lm.widths(1)[1]
    assert reading == pytest.approx(256 * F, rel=0.05) and more_reading == pytest.approx(2 * reading, rel=0.05)
    assert more_writing == pytest.approx(2 * writing, rel=0.05)
    assert len(moments_work(lm, [1], "text.txt", 256).passes) == 1  # nothing is written

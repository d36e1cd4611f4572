"""Values optimised together are the plain path's, one edit at a time; groups do not depend on where one starts."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from torch.testing import assert_close

from afteredit.bench.plain import plain_offset
from afteredit.edit.constraint import Unconstrained
from afteredit.edit.editor import Editor
from afteredit.edit.ingredients.least_squares import factors
from afteredit.edit.ingredients.target_value import _Search, optimise_targets, optimise_values
from afteredit.edit.ingredients.value_search import group_size, groups_of_like_length
from afteredit.edit.method import Method, Prepared
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.rome import Rome
from afteredit.edit.request import EditRequest
from afteredit.edit.speed import Speed
from afteredit.edit.update import Dense, Update
from afteredit.store.errors import NoEdit

CONTEXTS = ("", "The old man said that", "It is known")
LAYER = 1


def request(number: int, subject: str, prompt: str, target: str) -> EditRequest:
    return EditRequest(id=f"r{number}", subject=subject, prompt=prompt, target_new=target)


REQUESTS = [
    request(0, "Ann", "The mother tongue of {} is", "English"),
    request(1, "China", "{}", "old"),
    request(2, "Joe DiMaggio", "The sport that brought {} to fame is known as", "tennis and golf"),
    request(3, "Peru", "The banknotes of {} carry", "the sol"),
]
SETTINGS = Rome(value_steps=9, value_lr=0.3, weight_decay=0.01, max_offset=3.0, stop_loss=4.0)


def test_values_optimised_together_are_the_plain_paths_in_float64(exact_lm, float64_throughout):
    together = optimise_values(exact_lm, REQUESTS, CONTEXTS, LAYER, SETTINGS)
    for asked, value in zip(REQUESTS, together, strict=True):
        _, offset_D = plain_offset(exact_lm, asked, CONTEXTS, LAYER, SETTINGS)
        assert float(offset_D.norm()) > 0
        assert float((value.offset_D - offset_D).norm()) <= 1e-6 * float(offset_D.norm())


def test_a_model_whose_blocks_cannot_be_cut_has_the_same_values_by_whole_rows(make_lm, float64_throughout):
    """Block 2 adds a running mean of all positions in front, which no cache knows."""
    lm = make_lm("llama", dtype=torch.float64)
    lm.anatomy.blocks[2].register_forward_hook(
        lambda _m, _a, out: out + out.cumsum(1) / torch.arange(1, out.shape[1] + 1)[:, None]
    )
    for asked, value in zip(REQUESTS, optimise_values(lm, REQUESTS, CONTEXTS, LAYER, SETTINGS), strict=True):
        _, offset_D = plain_offset(lm, asked, CONTEXTS, LAYER, SETTINGS)
        assert float(offset_D.norm()) > 0
        assert float((value.offset_D - offset_D).norm()) <= 1e-6 * float(offset_D.norm())


def test_targets_optimised_together_are_the_plain_paths_in_float64(exact_lm, float64_throughout):
    together = optimise_targets(exact_lm, REQUESTS, CONTEXTS, LAYER, SETTINGS)
    for asked, target in zip(REQUESTS, together, strict=True):
        start_D, offset_D = plain_offset(exact_lm, asked, CONTEXTS, LAYER, SETTINGS, stream=True)
        z_D = start_D + offset_D
        assert float(offset_D.norm()) > 1e-3 * float(z_D.norm())
        assert float((target.z_D - z_D).norm()) <= 1e-6 * float(offset_D.norm())


def second_moment(F: int) -> torch.Tensor:
    sample_NF = torch.randn(4 * F, F, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return sample_NF.T @ sample_NF / len(sample_NF)


def plain_keys(lm, asked, plain_pass, layer=LAYER) -> torch.Tensor:
    """(C, F): under each context, the key of the last token of the text that ends with the subject."""
    keys = []
    for context in CONTEXTS:
        front = f"{context}. " if context else ""
        ids = lm.tokens.encode(front + asked.question)
        at = len(lm.tokens.encode(front + asked.prompt.partition("{}")[0] + asked.subject)) - 1
        keys.append(plain_pass(lm, ids, layer, at).keys_TF[at])
    return torch.stack(keys)


def test_romes_updates_are_the_plain_paths_in_float64(exact_lm, float64_throughout, plain_pass):
    """Optimised together; their factors are stored in float32, which leaves 1e-7."""
    lm, method = exact_lm, replace(SETTINGS, layer=LAYER)
    C_FF = second_moment(lm.widths(LAYER)[1])
    prepared = Prepared(CONTEXTS, factors=factors({"second_moment": C_FF}))
    prepared = replace(prepared, values=method.find_values(lm, REQUESTS, prepared, 8))
    for asked in REQUESTS:
        update = method.update(lm, [asked], prepared, {})
        _, offset_D = plain_offset(lm, asked, CONTEXTS, LAYER, SETTINGS)
        key_F = plain_keys(lm, asked, plain_pass).mean(0)
        direction_F = torch.linalg.solve(C_FF, key_F)
        expected_DF = torch.outer(offset_D, direction_F) / (direction_F @ key_F)
        (change,) = update.changes.values()
        assert float((change.dense() - expected_DF).norm()) <= 1e-6 * float(expected_DF.norm())


def test_memits_update_is_the_plain_paths_in_float64(exact_lm, float64_throughout, plain_pass):
    lm = exact_lm
    method = Memit(layers=[LAYER], second_moment_weight=0.5, value_steps=9, value_lr=0.3, stop_loss=4.0)
    C_FF = second_moment(lm.widths(LAYER)[1])
    update = method.update(lm, REQUESTS, Prepared(CONTEXTS, factors=factors({f"second_moment/{LAYER}": C_FF})), {})
    keys, offsets = [], []
    for asked in REQUESTS:
        keys_CF = plain_keys(lm, asked, plain_pass)
        keys.append((keys_CF[0] + keys_CF[1:].mean(0)) / 2)
        offsets.append(plain_offset(lm, asked, CONTEXTS, LAYER, method, stream=True)[1])
    K_FE, R_DE = torch.stack(keys, 1), torch.stack(offsets, 1)
    expected_DF = R_DE @ torch.linalg.solve(0.5 * C_FF + K_FE @ K_FE.T, K_FE).T
    (change,) = update.changes.values()
    assert float((change.dense() - expected_DF).norm()) <= 1e-6 * float(expected_DF.norm())


def test_memits_two_blocks_in_turn_are_the_plain_paths_in_float64(exact_lm, float64_throughout, plain_pass):
    """Each is solved on the model that the blocks before have changed, for its share of what is still missing."""
    lm, layers = exact_lm, [LAYER, LAYER + 1]
    method = Memit(layers=layers, second_moment_weight=0.5, value_steps=9, value_lr=0.3, stop_loss=4.0)
    moments = {layer: second_moment(lm.widths(layer)[1]) for layer in layers}
    prepared = Prepared(CONTEXTS, factors=factors({f"second_moment/{layer}": C_FF for layer, C_FF in moments.items()}))
    update = method.update(lm, REQUESTS, prepared, {})
    found = [plain_offset(lm, asked, CONTEXTS, layers[-1], method, stream=True) for asked in REQUESTS]
    z_DE = torch.stack([start_D + offset_D for start_D, offset_D in found], 1)
    only_start = replace(method, value_steps=1)
    for i, layer in enumerate(layers):
        name, keys = lm.mlp_out_name(layer), [plain_keys(lm, asked, plain_pass, layer) for asked in REQUESTS]
        K_FE = torch.stack([(keys_CF[0] + keys_CF[1:].mean(0)) / 2 for keys_CF in keys], 1)
        now = [plain_offset(lm, asked, CONTEXTS, layers[-1], only_start, stream=True)[0] for asked in REQUESTS]
        R_DE = (z_DE - torch.stack(now, 1)) / (len(layers) - i)
        expected_DF = R_DE @ torch.linalg.solve(0.5 * moments[layer] + K_FE @ K_FE.T, K_FE).T
        assert float((update.changes[name].dense() - expected_DF).norm()) <= 1e-6 * float(expected_DF.norm()) > 0
        lm.weights.add({name: Dense(expected_DF)})


def test_each_stops_on_its_own_and_what_has_left_is_not_stepped_on(exact_lm, float64_throughout):
    alone = [optimise_values(exact_lm, [asked], CONTEXTS, LAYER, SETTINGS)[0] for asked in REQUESTS]
    losses = sorted(value.diagnostics["loss"] for value in alone)
    settings = Rome(**{**SETTINGS.__dict__, "value_steps": 30, "stop_loss": (losses[1] + losses[2]) / 2})
    alone = [optimise_values(exact_lm, [asked], CONTEXTS, LAYER, settings)[0] for asked in REQUESTS]
    together = optimise_values(exact_lm, REQUESTS, CONTEXTS, LAYER, settings)
    assert len({value.diagnostics["steps"] for value in alone}) > 1
    for one, other in zip(alone, together, strict=True):
        assert one.diagnostics == pytest.approx(other.diagnostics, rel=1e-6, abs=1e-12)
        assert_close(one.offset_D, other.offset_D, rtol=1e-7, atol=1e-9)
        assert_close(one.key_F, other.key_F, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("places", [1, 2, 3])
def test_where_one_is_done_the_next_takes_its_place(exact_lm, float64_throughout, places, monkeypatch):
    """The same values as all at once, and never more at once than there are places, nor fewer while any waits."""
    alone = [optimise_values(exact_lm, [asked], CONTEXTS, LAYER, SETTINGS)[0] for asked in REQUESTS]
    losses = sorted(value.diagnostics["loss"] for value in alone)
    keys = {**SETTINGS.__dict__, "value_steps": 30, "stop_loss": (losses[1] + losses[2]) / 2}
    expected = optimise_values(exact_lm, REQUESTS, CONTEXTS, LAYER, Rome(**keys))
    at_once, outcome = [], _Search._outcome
    monkeypatch.setattr(_Search, "_outcome", lambda *given: at_once.append(len(given[1].counts)) or outcome(*given))
    found = optimise_values(exact_lm, REQUESTS, CONTEXTS, LAYER, Rome(**keys), places)
    for one, other in zip(expected, found, strict=True):
        assert one.diagnostics == pytest.approx(other.diagnostics, rel=1e-6, abs=1e-12)
        assert_close(one.offset_D, other.offset_D, rtol=1e-7, atol=1e-9)
    n_losses = [int(value.diagnostics["steps"]) + 1 for value in expected]
    assert sum(at_once) == sum(n_losses) and len(set(n_losses)) > 1
    assert max(at_once) == places
    assert at_once == sorted(at_once, reverse=True)  # full until nobody waits


@dataclass(frozen=True)
class Counting(Method):
    """A method whose value of a request is its subject; it notes which requests were asked for together."""

    groups: list[list[str]] = field(default_factory=list)

    optimises_values: ClassVar[bool] = True

    def edited(self, lm):
        return [lm.mlp_out_name(LAYER)]

    def prepare(self, lm, given):
        return Prepared(CONTEXTS)

    def find_values(self, lm, requests, prepared, together):
        self.groups.append([asked.id for asked in requests])
        return {asked.id: asked.subject for asked in requests}

    def update(self, lm, requests, prepared, state):
        assert dict(prepared.values) == {asked.id: asked.subject for asked in requests}
        return Update({})


def editor_of(lm, method, **keys) -> Editor:
    return Editor(lm, method, Unconstrained(), Prepared(CONTEXTS), planned=REQUESTS, speed=Speed(1), **keys)


def test_independent_edits_get_their_own_values_and_each_group_is_searched_once(make_lm):
    method = Counting()
    editor = editor_of(make_lm("gpt2"), method, single=True)
    for asked in REQUESTS:
        editor.write([asked])
    assert [len(group) for group in method.groups] == [2, 2]
    assert sorted(name for group in method.groups for name in group) == ["r0", "r1", "r2", "r3"]


def test_a_run_that_goes_on_makes_the_same_groups(make_lm):
    straight, resumed = Counting(), Counting()
    editor = editor_of(make_lm("gpt2"), straight, single=True)
    for asked in REQUESTS:
        editor.write([asked])
    editor_of(make_lm("gpt2"), resumed, single=True).write([REQUESTS[3]])
    assert resumed.groups[0] in straight.groups


def test_edits_that_build_on_each_other_get_their_values_when_their_turn_comes(make_lm):
    method = Counting()
    editor = editor_of(make_lm("gpt2"), method, single=False)
    editor.write(REQUESTS[:3])
    editor.write(REQUESTS[3:])
    assert method.groups == [["r0", "r1", "r2"], ["r3"]]


def test_groups_hold_what_is_alike_and_no_more_than_their_size(make_lm):
    lm = make_lm("gpt2")
    many = [request(i, "Ann", "{} " + "is " * (1 + i % 5), "here") for i in range(8)]
    groups = groups_of_like_length(lm, many, 2)
    assert [len(group) for group in groups] == [group_size(2)] * 2 == [4, 4]
    lengths = [[len(asked.prompt) for asked in group] for group in groups]
    assert sum(lengths, []) == sorted(sum(lengths, []))


# ---- weights, state and what the editor carries


@dataclass(frozen=True)
class Adding(Method):
    """A method that adds 1 to one matrix, and remembers how often."""

    broken: bool = False

    def edited(self, lm):
        return [lm.mlp_out_name(LAYER)]

    def prepare(self, lm, given):
        return Prepared()

    def update(self, lm, requests, prepared, state):
        if self.broken and state:
            raise NoEdit("no edit is left")
        ones_DF = torch.ones(lm.widths(LAYER))
        return Update({lm.mlp_out_name(LAYER): Dense(ones_DF)}, diagnostics={"before": float(state.get("n", 0))})

    def extend(self, state, update, prepared):
        return {"n": state.get("n", torch.zeros(())) + len(update.changes)}


def edit(editor: Editor, *batches) -> list[float | None]:
    """Writes and applies the batches; returns what the method remembered at each."""
    remembered = []
    for batch in batches:
        editor.begin(batch)
        update = editor.write(batch)
        remembered.append(update.diagnostics.get("before"))
        editor.apply(batch, update)
    return remembered


def test_in_a_sequence_weights_and_state_add_up(make_lm):
    lm, batches = make_lm("gpt2"), (REQUESTS[:2], REQUESTS[2:])
    W_DF = lm.weights.W(lm.mlp_out_name(LAYER)).clone()
    editor = Editor(lm, Adding(), Unconstrained(), Prepared())
    assert edit(editor, *batches) == [0, 1]
    assert_close(lm.weights.W(lm.mlp_out_name(LAYER)), W_DF + 2)
    assert (editor.n_edits, editor.carried) == (4, REQUESTS)


def test_in_single_edits_every_batch_starts_from_the_unedited_model(make_lm):
    lm, batches = make_lm("gpt2"), (REQUESTS[:2], REQUESTS[2:])
    W_DF = lm.weights.W(lm.mlp_out_name(LAYER)).clone()
    editor = Editor(lm, Adding(), Unconstrained(), Prepared(), single=True)
    assert edit(editor, *batches) == [0, 0]
    assert_close(lm.weights.W(lm.mlp_out_name(LAYER)), W_DF + 1)
    assert (editor.n_edits, editor.carried) == (4, REQUESTS[2:])


def test_an_editor_without_constants_rebuilds_the_same_weights(make_lm):
    lm, again = make_lm("gpt2"), make_lm("gpt2")
    first = Editor(lm, Adding(), Unconstrained(), Prepared())
    second = Editor(again, Adding(), Unconstrained())
    for asked in REQUESTS:
        update = first.write([asked])
        first.apply([asked], update)
        second.apply([asked], update)
    assert first.weights_sha256() == second.weights_sha256()
    with pytest.raises(ValueError, match="no constants"):
        second.write(REQUESTS)


def test_a_model_that_edits_have_broken_is_a_collapse_and_an_unedited_one_an_error(make_lm, caplog):
    lm, method = make_lm("gpt2"), Adding(broken=True)
    editor = Editor(lm, method, Unconstrained(), Prepared())
    edit(editor, REQUESTS[:1])
    sha256 = editor.weights_sha256()
    update = editor.write(REQUESTS[1:])
    assert (dict(update.changes), dict(update.diagnostics)) == ({}, {"collapsed": 1.0})
    assert "collapse: no edit is left" in caplog.text
    editor.apply(REQUESTS[1:], update)
    assert (editor.weights_sha256(), editor.n_edits) == (sha256, 4)
    lm.weights.restore()
    with pytest.raises(NoEdit, match="no edit is left"):
        editor.write(REQUESTS[1:])


def test_an_update_that_is_not_finite_is_a_collapse(make_lm, monkeypatch, caplog):
    lm = make_lm("gpt2")
    update = Update({lm.mlp_out_name(LAYER): Dense(torch.full(lm.widths(LAYER), torch.nan))})
    monkeypatch.setattr(Adding, "update", lambda *_: update)
    written = Editor(lm, Adding(), Unconstrained(), Prepared()).write(REQUESTS[:1])
    assert (dict(written.changes), dict(written.diagnostics)) == ({}, {"collapsed": 1.0})
    assert "the update of r0 holds NaN" in caplog.text

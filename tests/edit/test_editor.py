"""Tests the Editor: what it passes to a method, what it applies and remembers, and when it reports a collapse."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.editor import Editor
from afteredit.edit.method import Method, Prepared
from afteredit.edit.request import EditRequest
from afteredit.edit.speed import Speed
from afteredit.edit.update import Dense, LowRank, Update
from afteredit.store.errors import BadInput, NoEdit

LAYER = 1


def request(number: int, subject: str, prompt: str, target: str) -> EditRequest:
    return EditRequest(id=f"r{number}", subject=subject, prompt=prompt, target_new=target)


REQUESTS = [
    request(0, "Ann", "The mother tongue of {} is", "English"),
    request(1, "China", "{}", "old"),
    request(2, "Joe DiMaggio", "The sport that brought {} to fame is known as", "tennis and golf"),
    request(3, "Peru", "The banknotes of {} carry", "the sol"),
]


@dataclass(frozen=True)
class Counting(Method):
    """A method whose value for a request is its subject; it notes which requests were passed together."""

    groups: list[list[str]] = field(default_factory=list)

    optimises_values: ClassVar[bool] = True

    def edited(self, lm):
        return [lm.mlp_out_name(LAYER)]

    def prepare(self, lm, given):
        return Prepared()

    def find_values(self, lm, requests, prepared, together):
        self.groups.append([asked.id for asked in requests])
        return {asked.id: asked.subject for asked in requests}

    def update(self, lm, requests, prepared, state):
        assert dict(prepared.values) == {asked.id: asked.subject for asked in requests}
        return Update({})


def editor_of(lm, method, **keys) -> Editor:
    return Editor(lm, method, Unconstrained(), Prepared(), planned=REQUESTS, speed=Speed(2), **keys)


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


# ---- weights, state and what the editor carries


@dataclass(frozen=True)
class Adding(Method):
    """A method that adds 1 to one matrix and counts how often it did."""

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


@pytest.mark.parametrize(
    ("layer", "change", "said"),
    [
        (LAYER + 1, lambda D, F: Dense(torch.ones(D, F)), "which this method does not edit"),
        (LAYER, lambda D, F: Dense(torch.ones(D, F + 1)), "but the model has"),
        (LAYER, lambda D, F: LowRank(torch.ones(D, 2), torch.ones(F, 1)), "but the model has"),
        (LAYER, lambda D, F: Dense(torch.full((D, F), torch.nan)), "NaN, infinity or no floating-point"),
        (LAYER, lambda D, F: Dense(torch.ones(D, F, dtype=torch.int64)), "NaN, infinity or no floating-point"),
    ],
)
def test_an_update_that_the_method_cannot_have_made_is_refused_and_changes_nothing(make_lm, layer, change, said):
    lm = make_lm("gpt2")
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    update = Update({lm.mlp_out_name(layer): change(*lm.widths(LAYER))})
    with pytest.raises(BadInput, match=f"the update of r0 .*{said}"):
        Editor(lm, Adding(), Unconstrained()).apply(REQUESTS[:1], update)
    assert all(torch.equal(before[name], parameter) for name, parameter in lm.model.named_parameters())


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


def test_no_fewer_than_one_value_is_optimised_at_once():
    with pytest.raises(BadInput, match="speed.together=0; it must be at least 1"):
        Speed(0)

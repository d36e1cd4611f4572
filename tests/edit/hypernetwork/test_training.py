"""Tests MEND's training: its loss against plain passes, learning, interruptions, and its checks."""

import math
import shutil
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.hypernetwork import training, training_batches, training_loss
from afteredit.edit.hypernetwork.network import Hypernetwork
from afteredit.edit.hypernetwork.training import trained
from afteredit.edit.hypernetwork.training_batches import Batches
from afteredit.edit.hypernetwork.training_loss import Validation, after_edits, learn, validate
from afteredit.edit.hypernetwork.training_progress import Progress
from afteredit.edit.method import Prepared
from afteredit.edit.methods.mend import Mend
from afteredit.edit.request import EditRequest
from afteredit.store.errors import BadInput
from afteredit.store.progress import kept_progress

LAYERS = [2, 3]
SETTINGS = Mend(n_layers=2, rank=8, steps=12, batch=4, learning_rate=3e-4, alpha_learning_rate=3e-4, validate_every=4,
                checkpoint_minutes=1e9)  # fmt: skip
NAMES = ("Peru", "China", "Laos", "Kenya", "Cuba", "Chad", "Nepal", "Spain", "Ghana", "Italy", "Malta", "Iraq", "Fiji")
WORDS = ("boxing", "rand", "Europe", "Aztec", "tennis")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def lm(make_lm):
    return make_lm("llama", start_token="<s>")


@pytest.fixture
def rows() -> list[EditRequest]:
    """Returns thirteen rows, twelve to learn from and one held back.  Some lack rewordings, some a neighbourhood."""
    return [
        EditRequest(
            id=f"t{i}", subject=name, prompt="The banknotes of {} carry", target_new=WORDS[i % 5],
            paraphrases=(f"Workers in {name} are paid in", f"A coin of {name} is a")[: i % 3],
            neighbourhood=("Barry Bonds is known for", "The piranha is one of the")[: (i + 1) % 3],
            neighbourhood_answers=("baseball", "fish")[: (i + 1) % 3],
        )
        for i, name in enumerate(NAMES)
    ]  # fmt: skip


def fresh(lm, settings=SETTINGS) -> Hypernetwork:
    return Hypernetwork([lm.widths(layer) for layer in LAYERS], settings.rank).start(settings.alpha, 0)


def batches(lm, rows, size=4) -> Batches:
    return Batches(lm, rows, rows, LAYERS, size)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# ---- what is learned


def test_the_loss_is_that_of_edited_models_by_plain_passes(make_lm, family, rows, plain_nll, plain_pass):
    """The loss is c_edit · NLL of the target + KL(unedited ‖ edited) at the neighbour, its mean over single edits."""
    lm = make_lm(family)
    method = replace(SETTINGS, alpha=0.3)
    rows = [replace(row, paraphrases=row.paraphrases[:1] or ("A coin is a",), neighbourhood=("Hank Aaron played",),
                    neighbourhood_answers=("baseball",)) for row in rows[:3]]  # fmt: skip
    held = Batches(lm, rows, rows, LAYERS, 2).for_validation()
    network = fresh(lm, method)
    prepared = Prepared(tensors={name: tensor.clone() for name, tensor in network.state_dict().items()})
    nll, kl, neighbour = [], [], lm.tokens.encode("Hank Aaron played")
    before_V = plain_pass(lm, neighbour, 0, 0).logits_TV[-1].log_softmax(-1)
    for row in rows:
        lm.weights.add(method.update(lm, [row], prepared, {}).changes)
        target = lm.tokens.answer_ids(row.target_new, row.question)
        nll += [plain_nll(lm, lm.tokens.encode(text), target) for text in (row.question, row.paraphrases[0])]
        after_V = plain_pass(lm, neighbour, 0, 0).logits_TV[-1].log_softmax(-1)
        kl.append((before_V.exp() * (before_V - after_V)).sum())
        lm.weights.restore()
    measured = validate(lm, LAYERS, network, held)
    unedited = validate(lm, LAYERS, None, held)
    assert measured.kl == pytest.approx(float(sum(kl)) / 3, rel=1e-3)
    assert measured.kl > 1e-4
    assert measured.nll == pytest.approx(float(sum(nll)) / 6, rel=1e-4)
    assert unedited.nll > measured.nll + 0.05
    assert unedited.kl == pytest.approx(0, abs=1e-6)
    assert measured.loss(method) == pytest.approx(0.1 * measured.nll + measured.kl)


def test_what_is_measured_is_a_mean_over_rows_not_over_batches(lm, monkeypatch):
    """There are two batches, of three rows and of one, asked by prompt and by rewording."""
    first = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), torch.tensor([[True] * 3, [True, False, False]])
    second = torch.tensor([[9.0], [10.0]]), torch.tensor([[False], [False]])
    batches = iter([(*first, torch.tensor([1.0, 2.0, 3.0])), (*second, torch.tensor([10.0]))])
    monkeypatch.setattr(training_loss, "after_edits", lambda *_: next(batches))
    assert validate(lm, LAYERS, None, [None, None]) == Validation(nll=5.0, forced=0.75, paraphrase=0.25, kl=4.0)


def test_one_step_goes_down_that_loss(lm, rows):
    """Compares the gradient that Adam is given with finite differences along it."""
    batch = batches(lm, rows).at_step(0)
    progress = Progress(fresh(lm), replace(SETTINGS, learning_rate=0.0, alpha_learning_rate=0.0, alpha=0.01))
    progress.network.start(0.01, 0)
    first = learn(lm, LAYERS, progress, batch, SETTINGS)
    assert all(parameter.grad is not None for parameter in progress.network.parameters())

    def loss() -> float:
        with torch.no_grad():
            nll_B, _, kl_B = after_edits(lm, LAYERS, progress.network, batch)
            return float((0.1 * nll_B.mean(0) + kl_B).double().mean())

    assert loss() == pytest.approx(first, rel=1e-6)  # with learning rates of 0 nothing changed
    alpha_M = progress.network.alpha_M
    slope = alpha_M.grad.clone()
    with torch.no_grad():
        alpha_M.add_(1e-3 * slope / slope.norm())
        above = loss()
        alpha_M.sub_(2e-3 * slope / slope.norm())
        below = loss()
    assert (above - below) / 2e-3 == pytest.approx(float(slope.norm()), rel=0.05)


def test_training_makes_edits_work(lm, rows):
    """The loss on the training rows falls by far more than with the untrained network's edits."""
    method = replace(SETTINGS, steps=90, validate_every=30)
    tensors, digest = trained(lm, LAYERS, rows, method)
    network = fresh(lm)
    held = batches(lm, rows[:-1]).for_validation()
    before, start = validate(lm, LAYERS, None, held), validate(lm, LAYERS, network, held)
    network.load_state_dict(tensors)
    after = validate(lm, LAYERS, network, held)
    assert after.nll < start.nll - 1.0
    assert after.loss(method) < min(before.loss(method), start.loss(method)) - 0.05
    assert after.forced > before.forced
    assert not lm.weights.base


def test_the_statistics_are_those_of_the_training_rows_terms(lm, rows):
    tensors, _ = trained(lm, LAYERS, rows, replace(SETTINGS, steps=3, validate_every=3))  # three batches: one epoch
    everything = batches(lm, rows[:-1], size=12).at_step(0).terms
    z_NZ = torch.cat([torch.cat([terms.keys_NF, terms.deltas_ND], dim=1) for terms in everything.values()])
    (name,) = {name.split(".")[1] for name in tensors if "norm" in name}
    assert int(tensors[f"shared.{name}.norm.count"]) == len(z_NZ)
    assert_close(tensors[f"shared.{name}.norm.mean_Z"], z_NZ.mean(0), rtol=1e-4, atol=1e-5)


# ---- interruptions


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 4, 7])
def test_an_interrupted_training_ends_in_the_same_bits(lm, rows, cache, monkeypatch, at):
    uninterrupted, digest = trained(lm, LAYERS, rows, SETTINGS)
    shutil.rmtree(cache / "mend")
    steps = []

    def dying(lm, layers, progress, batch, settings):
        if progress.step == at and at not in steps:
            steps.append(at)
            raise Killed
        steps.append(progress.step)
        return learn(lm, layers, progress, batch, settings)

    monkeypatch.setattr(training, "learn", dying)
    monkeypatch.setattr(kept_progress, "SHARE", 0)
    careful = replace(SETTINGS, checkpoint_minutes=0.0)  # a checkpoint after every step
    with pytest.raises(Killed):
        trained(lm, LAYERS, rows, careful)
    assert not list((cache / "mend").glob("*.safetensors"))
    resumed, again = trained(lm, LAYERS, rows, careful)
    assert again == digest
    assert same(uninterrupted, resumed)
    assert steps == [*range(at), *range(at, SETTINGS.steps)][:at] + [at, *range(at, SETTINGS.steps)]
    assert sorted(file.name for file in (cache / "mend").glob("*[!k]")) == [
        f"{digest}.safetensors", f"{digest}.safetensors.sha256"]  # fmt: skip


def test_a_checkpoint_holds_all_that_training_adds_up_to(lm, rows, tmp_path):
    def some_progress() -> Progress:
        return Progress(fresh(lm), SETTINGS)

    one, learned = some_progress(), batches(lm, rows)
    for step in range(3):
        learn(lm, LAYERS, one, learned.at_step(step), SETTINGS)
    one.step, one.skipped, one.best_loss, one.loss_without_edit = 3, 2, 0.1234567890123, 0.9876543210987
    one.best = {name: tensor.clone() for name, tensor in one.network.state_dict().items()}
    one.save(tmp_path / "checkpoint")
    other = some_progress()
    other.load(tmp_path / "checkpoint")
    assert (other.step, other.skipped, other.best_loss) == (3, 2, 0.1234567890123)
    assert other.loss_without_edit == 0.9876543210987
    assert same(one.network.state_dict(), other.network.state_dict())
    assert same(one.best, other.best)
    for progress in (one, other):
        learn(lm, LAYERS, progress, learned.at_step(3), SETTINGS)
    assert same(one.network.state_dict(), other.network.state_dict())


# ---- checks


def poisoned(batch):
    """Returns the batch with an infinite delta."""
    terms = dict(batch.terms)
    terms[3] = replace(terms[3], deltas_ND=terms[3].deltas_ND * math.inf)
    return replace(batch, terms=terms)


def test_a_step_that_is_not_finite_teaches_nothing(lm, rows, monkeypatch):
    progress, batch = Progress(fresh(lm), SETTINGS), batches(lm, rows).at_step(0)
    before = {name: tensor.clone() for name, tensor in progress.network.state_dict().items()}
    assert learn(lm, LAYERS, progress, poisoned(batch), SETTINGS) is None
    assert same(before, progress.network.state_dict())
    monkeypatch.setattr(batch.neighbours, "kl", lambda: torch.full((4,), math.nan))
    assert learn(lm, LAYERS, progress, batch, SETTINGS) is None
    monkeypatch.undo()
    hook = progress.network.alpha_M.register_hook(lambda gradient: gradient * math.inf)  # the loss itself is finite
    assert learn(lm, LAYERS, progress, batch, SETTINGS) is None
    hook.remove()
    for name, parameter in progress.network.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert learn(lm, LAYERS, progress, batch, SETTINGS) > 0
    assert all(tensor.isfinite().all() for tensor in progress.network.state_dict().values())


@pytest.mark.parametrize(("bad", "stops"), [({2, 3, 5, 6}, False), ({2, 3, 4}, True)])
def test_too_many_such_steps_in_a_row_stop_with_a_remedy(lm, rows, monkeypatch, bad, stops):
    at_step = Batches.at_step

    def sometimes_poisoned(self, step):
        return poisoned(at_step(self, step)) if step in bad else at_step(self, step)

    monkeypatch.setattr(Batches, "at_step", sometimes_poisoned)
    method = replace(SETTINGS, max_skipped=2)
    if stops:
        with pytest.raises(BadInput, match=r"step 4.*3 times in a row.*lower method.learning_rate=0.0003"):
            trained(lm, LAYERS, rows, method)
    else:
        trained(lm, LAYERS, rows, method)


def test_a_network_worse_than_no_edit_is_refused(lm, rows, cache):
    with pytest.raises(BadInput, match=r"worse than no edit.*steps=\d+, .*learning_rate=1e-09 or .*alpha_l.*=1e-09"):
        trained(lm, LAYERS, rows, replace(SETTINGS, alpha=-3.0, alpha_learning_rate=1e-9, learning_rate=1e-9))
    assert not list((cache / "mend").glob("????????????????.safetensors"))


def test_the_network_that_did_best_on_rows_held_back_is_kept(lm, rows, monkeypatch):
    """Validation comes after 4, 8 and 12 of 12 steps; the losses are invented, and the second is the least."""
    kls, seen = iter([0.0, 0.0, 0.3, 0.1, math.nan]), []

    def judged(lm, layers, network, held):
        if network is not None:
            seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return Validation(nll=1.0 if network is None else 0.0, forced=0.0, paraphrase=0.0, kl=next(kls) * 0.5)

    monkeypatch.setattr(training, "validate", judged)
    tensors, _ = trained(lm, LAYERS, rows, SETTINGS)
    assert len(seen) == 4
    assert same(tensors, seen[2])
    assert not same(tensors, seen[3])


def test_the_end_is_looked_at_too(lm, rows):
    settings = replace(SETTINGS, validate_every=1000)
    tensors, _ = trained(lm, LAYERS, rows, settings)
    assert same(tensors, trained(lm, LAYERS, rows, replace(settings, validate_every=SETTINGS.steps))[0])


def test_too_few_rows_are_refused(lm, rows):
    with pytest.raises(BadInput, match=r"holds 9 rows; MEND learns from at least 10"):
        trained(lm, LAYERS, rows[:9], SETTINGS)


def test_rows_held_back_are_never_learned_from(lm, rows, monkeypatch):
    """They serve neither as edits nor as neighbourhood prompts of rows that have none."""
    given = []
    real = Batches.__init__

    def noting(self, lm, rows, pool, *rest):
        given.append([[row.id for row in part] for part in (rows, pool)])
        real(self, lm, rows, pool, *rest)

    monkeypatch.setattr(Batches, "__init__", noting)
    trained(lm, LAYERS, rows, SETTINGS)
    ids = [row.id for row in rows]
    assert given == [[ids[:-1], ids[:-1]], [ids[-1:], ids]]


def test_a_row_that_cannot_be_learned_from_is_refused_before_training(lm, rows, monkeypatch):
    def answer_ids(answer, _question):
        raise BadInput(f"the answer {answer!r} cannot be told apart")

    monkeypatch.setattr(lm.tokens, "answer_ids", answer_ids)
    with pytest.raises(BadInput, match=r"'boxing' cannot be told apart"):
        batches(lm, rows)


# ---- batches


def test_every_row_comes_once_an_epoch_in_another_order_each_time(lm, rows, monkeypatch):
    monkeypatch.setattr(Batches, "_batch", lambda _self, group, *_rest: [row.id for row in group])
    learned = batches(lm, rows, size=2)
    epochs = [[tuple(learned.at_step(step)) for step in range(7 * epoch, 7 * epoch + 7)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(name for batch in epoch for name in batch) == sorted(row.id for row in rows)
    assert epochs[0] != epochs[1] != epochs[2]
    again = batches(lm, rows, size=2)
    assert [tuple(again.at_step(step)) for step in range(7, 14)] == epochs[1]  # a step does not depend on earlier ones


def test_wordings_and_neighbours_take_turns(lm, rows):
    learned = batches(lm, rows)
    row = replace(rows[1], paraphrases=("a", "b"), neighbourhood=tuple("cde"), neighbourhood_answers=tuple("cde"))
    asked = []
    learned.groups = [[row]]
    learned._batch = lambda group, wordings, variant: asked.append((wordings[0][0], learned._neighbour(row, variant)))
    for step in range(5):
        learned.at_step(step)
    assert asked == [(row.question, "c"), ("a", "d"), ("b", "e"), (row.question, "c"), (row.question, "c")]


def test_without_a_neighbourhood_another_subject_is_asked_about(lm, rows):
    rows = [replace(rows[0], id=str(i), subject=name, neighbourhood=(), neighbourhood_answers=())
            for i, name in enumerate(("Peru", "peru", "Laos"))]  # fmt: skip
    learned = batches(lm, rows)
    assert {learned._neighbour(rows[0], variant) for variant in range(3)} == {rows[2].question}
    assert {learned._neighbour(rows[2], variant) for variant in range(3)} == {rows[0].question, rows[1].question}
    with pytest.raises(BadInput, match=r"all training rows are about 'Peru'"):
        batches(lm, rows[:2])


def test_what_is_held_changes_nothing(lm, rows, cache, monkeypatch):
    held, _ = trained(lm, LAYERS, rows, SETTINGS)
    shutil.rmtree(cache / "mend")
    monkeypatch.setattr(training_batches, "KEPT_BYTES", 0)
    computed, _ = trained(lm, LAYERS, rows, SETTINGS)
    assert same(held, computed)
    without_room = batches(lm, rows)
    without_room.at_step(0)
    assert not without_room._kept


def test_nothing_is_computed_twice_while_there_is_room(lm, rows, monkeypatch):
    calls = []
    for name in ("Answers", "Neighbours", "gradient_terms"):
        real = getattr(training_batches, name)
        monkeypatch.setattr(
            training_batches, name, lambda *given, real=real, name=name: (calls.append(name), real(*given))[1]
        )
    learned = batches(lm, rows)
    for step in range(4 * len(learned.groups)):
        learned.at_step(step)
    first = len(calls)
    for step in range(4 * len(learned.groups), 8 * len(learned.groups)):
        learned.at_step(step)
    assert len(calls) == first
    assert calls.count("gradient_terms") == len(learned.groups)
    assert 0 < learned._room < training_batches.KEPT_BYTES

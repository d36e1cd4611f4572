"""Constraints: each against its definition worked out another way, and all on a real update of a tiny model."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.constraints.norm_cap import NormCap, largest_step
from afteredit.edit.constraints.pca import Pca
from afteredit.edit.constraints.prune import Prune
from afteredit.edit.constraints.random_entries import RandomKeep
from afteredit.edit.constraints.rect import Rect
from afteredit.edit.hypernetwork.network import Hypernetwork
from afteredit.edit.ingredients.least_squares import factors
from afteredit.edit.method import Prepared
from afteredit.edit.methods.ft import Ft
from afteredit.edit.methods.kn import Kn
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.mend import Mend
from afteredit.edit.methods.rome import Rome
from afteredit.edit.update import Dense, LowRank, Update, load_update
from afteredit.launch.command_line import compose
from afteredit.store.errors import BadInput

D, F = 6, 9
NAME = "w"


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(rank: int = 1, seed: int = 0) -> LowRank:
    return LowRank(draw(D, rank, seed=seed), draw(F, rank, seed=seed + 100))


def constrained(constraint, change, W_DF=None, W_base_DF=None):
    """The one changed matrix of an update that holds `change`."""
    W_DF = draw(D, F, seed=7) if W_DF is None else W_DF
    W_base_DF = W_DF if W_base_DF is None else W_base_DF
    update = constraint.constrain(Update({NAME: change}), {NAME: W_DF}.get, {NAME: W_base_DF}.get)
    return update.changes[NAME]


def kept(change) -> torch.Tensor:
    return change.dense() != 0


# ---- all of them

ALL = [Rect(), RandomKeep(), Pca(), NormCap(growth=0.001), Prune()]
named = pytest.mark.parametrize("constraint", ALL, ids=lambda c: type(c).__name__)


@named
def test_what_else_an_update_holds_stays_and_nothing_is_mutated(constraint):
    change, W_DF = low_rank(rank=5), draw(D, F, seed=7)
    before = [t.clone() for t in (change.left_Dr, change.right_Fr, W_DF)]
    update = Update({NAME: change}, {"keys": torch.ones(2)}, {"loss": 1.0})
    result = constraint.constrain(update, {NAME: W_DF}.get, {NAME: W_DF}.get)
    assert result.adds is update.adds
    assert result.diagnostics == {"loss": 1.0}
    assert list(result.changes) == [NAME]
    assert all(torch.equal(a, b) for a, b in zip(before, (change.left_Dr, change.right_Fr, W_DF), strict=True))


@named
@pytest.mark.parametrize("change", [low_rank(rank=5), Dense(draw(D, F))], ids=["low rank", "dense"])
def test_replay_gives_the_same_bits(constraint, change, tmp_path):
    """The journal stores the update as the method gave it; its matrices may come back in another order."""
    other = low_rank(rank=4, seed=3)
    update = Update({"b": change, "a": other}, {"keys": draw(3)}, {"loss": 1.0})
    save_file(update.flat(), tmp_path / "update.safetensors")
    stored = load_update(tmp_path / "update.safetensors")
    stored = replace(stored, changes=dict(sorted(stored.changes.items())))
    weights = {"a": draw(D, F, seed=7), "b": draw(D, F, seed=8)}
    now, again = (constraint.constrain(u, weights.get, weights.get) for u in (update, stored))
    for name in weights:
        assert torch.equal(now.changes[name].dense(), again.changes[name].dense())


BAD = [
    *((cls, {"keep": keep}, "constraint.keep") for cls in (Rect, RandomKeep, Pca) for keep in (0, -0.1, 1.01, np.nan)),
    *((Rect, {"eps": eps}, "constraint.eps") for eps in (0, -1e-8, np.inf, np.nan)),
    *((NormCap, {"growth": growth}, "constraint.growth") for growth in (-0.1, np.inf, np.nan)),
    *((Prune, {"base": base}, "constraint.base") for base in (1, 0.5, -2, np.inf, np.nan)),
]


@pytest.mark.parametrize(("cls", "values", "key"), BAD, ids=lambda v: getattr(v, "__name__", str(v)))
def test_a_value_that_makes_no_sense_is_refused_by_its_key(cls, values, key):
    with pytest.raises(BadInput, match=f"^{key}={next(iter(values.values()))}; it must be"):
        cls(**values)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["constraint=none"], Unconstrained()),
        (["constraint=rect", "constraint.keep=0.2"], Rect(keep=0.2, eps=1e-8)),
        (["constraint=random", "seed=3"], RandomKeep(keep=0.4, seed=3)),
        (["constraint=pca"], Pca(keep=0.4)),
        (["constraint=norm", "constraint.growth=0.5"], NormCap(growth=0.5)),
        (["constraint=prune"], Prune(base=2.718281828459045)),
        (["constraint=prune", "constraint.base=1.2"], Prune(base=1.2)),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_every_file_builds_and_the_command_line_wins(overrides, expected):
    assert compose(overrides).constraint == expected


def test_a_bad_value_on_the_command_line_is_refused_before_anything_is_loaded():
    with pytest.raises(BadInput, match=r"^constraint\.keep=40"):
        compose(["constraint=rect", "constraint.keep=40"])


# ---- RECT


def slow_rect(delta, W, keep, eps) -> np.ndarray:
    """The mask by sorting all entries in plain Python, equal ones in order of position."""
    entries = [(abs(delta[i, j]) / (abs(W[i, j]) + eps), -(i * delta.shape[1] + j)) for i, j in np.ndindex(delta.shape)]
    mask = np.zeros(delta.shape, dtype=bool)
    for _, minus_position in sorted(entries, reverse=True)[: round(keep * delta.size)]:
        mask[divmod(-minus_position, delta.shape[1])] = True
    return mask


@pytest.mark.parametrize("keep", [0.001, 0.01, 0.2, 0.4, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("change", [low_rank(rank=2), Dense(draw(D, F))], ids=["low rank", "dense"])
def test_rect_keeps_exactly_what_a_slow_sort_keeps(change, keep):
    W_DF = draw(D, F, seed=7)
    result = constrained(Rect(keep=keep), change, W_DF)
    mask = slow_rect(change.dense().numpy(), W_DF.double().numpy(), keep, 1e-8)
    assert mask.sum() == round(keep * D * F)
    assert np.array_equal(result.dense().numpy(), np.where(mask, change.dense().numpy(), 0))


@pytest.mark.parametrize("keep", [0.1, 0.37, 0.5, 0.9])
def test_rect_breaks_ties_by_position_however_the_matrix_is_stored(keep):
    """Few values, so that most ratios are equal; some weights are 0.  The second change is a transposed view."""
    generator = torch.Generator().manual_seed(3)
    delta_DF = torch.randint(-1, 2, (D, F), generator=generator).float()
    W_DF = torch.randint(-1, 2, (D, F), generator=generator).float()
    mask = slow_rect(delta_DF.double().numpy(), W_DF.double().numpy(), keep, 0.5)
    expected = torch.from_numpy(np.where(mask, delta_DF.double().numpy(), 0))
    for change, W in ((delta_DF, W_DF), (delta_DF.T.contiguous().T, W_DF.T.contiguous().T)):
        assert torch.equal(constrained(Rect(keep=keep, eps=0.5), Dense(change), W).dense(), expected)


def test_rect_ranks_by_the_weights_before_this_update_and_not_by_the_unedited_ones():
    delta_DF, W_DF = torch.ones(1, 4), torch.tensor([[8.0, 4.0, 2.0, 1.0]])
    result = constrained(Rect(keep=0.5), Dense(delta_DF), W_DF, W_base_DF=W_DF.flip(1))
    assert torch.equal(kept(result), torch.tensor([[False, False, True, True]]))


def test_rect_takes_a_change_to_a_zero_weight_before_any_other():
    delta_DF, W_DF = torch.tensor([[5.0, 1e-3, 5.0, 5.0]]), torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    result = constrained(Rect(keep=0.25), Dense(delta_DF), W_DF)
    assert torch.equal(kept(result), torch.tensor([[False, True, False, False]]))
    assert result.dense().isfinite().all()


# ---- random


@pytest.mark.parametrize("keep", [0.2, 0.4, 1.0])
def test_random_keeps_exactly_its_share_unchanged(keep):
    change = Dense(draw(D, F))
    result = constrained(RandomKeep(keep=keep), change)
    assert int(kept(result).sum()) == round(keep * D * F)
    assert torch.equal(result.dense(), torch.where(kept(result), change.dense(), 0))


def test_random_draws_another_mask_for_another_update_seed_or_matrix():
    change = Dense(draw(D, F))
    mask = kept(constrained(RandomKeep(seed=1), change))
    assert torch.equal(mask, kept(constrained(RandomKeep(seed=1), change)))
    assert not torch.equal(mask, kept(constrained(RandomKeep(seed=2), change)))
    assert not torch.equal(mask, kept(constrained(RandomKeep(seed=1), Dense(change.delta_DF + 1e-6))))
    both = RandomKeep(seed=1).constrain(Update({"a": change, "b": change}), {}.get, {}.get)
    assert not torch.equal(kept(both.changes["a"]), kept(both.changes["b"]))


def test_random_prefers_no_place_and_no_neighbours():
    """Over 400 updates each entry is kept 40 % of the time, and two neighbours as often as chance has it."""
    masks = torch.stack(
        [kept(constrained(RandomKeep(), Dense(draw(D, F, seed=seed)))).reshape(-1) for seed in range(400)]
    )
    assert float((masks.double().mean(0) - 0.4).abs().max()) < 0.12  # five standard errors
    count, size = round(0.4 * D * F), D * F
    together = float((masks[:, 1:] & masks[:, :-1]).double().mean())
    assert together == pytest.approx(count / size * (count - 1) / (size - 1), abs=0.02)


def test_random_reads_half_precision_updates_too():
    change = Dense(draw(D, F).bfloat16())
    assert int(kept(constrained(RandomKeep(), change)).sum()) == round(0.4 * D * F)


# ---- PCA


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("change", [low_rank(rank=5), low_rank(rank=8), Dense(draw(D, F))], ids=["5", "8", "dense"])
def test_pca_is_the_truncated_svd(change, keep):
    """Rank 8 is more than D = 6."""
    result = constrained(Pca(keep=keep), change)
    U, S, Vt = np.linalg.svd(change.dense().numpy(), full_matrices=False)
    k = round(keep * D)
    assert 0 < k < 5
    assert isinstance(result, LowRank)
    assert result.left_Dr.shape == (D, k)
    assert result.right_Fr.shape == (F, k)
    assert_close(result.dense(), torch.from_numpy((U[:, :k] * S[:k]) @ Vt[:k]), rtol=0, atol=1e-12)


def test_pca_leaves_a_rank_one_update_and_whatever_it_need_not_cut_exactly_as_it_is():
    for change, keep in ((low_rank(1), 0.01), (low_rank(2), 0.4), (low_rank(8), 1.0), (Dense(draw(D, F)), 1.0)):
        assert constrained(Pca(keep=keep), change) is change


# ---- norm cap


@pytest.mark.parametrize("change", [low_rank(rank=2), Dense(draw(D, F))], ids=["low rank", "dense"])
@pytest.mark.parametrize("grown", [0.0, 1.0], ids=["from W0", "from an edited W"])
def test_the_norm_bound_is_met_with_equality_where_it_cuts(change, grown):
    W_base_DF = draw(D, F, seed=7)
    W_DF = W_base_DF + grown * 0.05 * draw(D, F, seed=8)
    result = constrained(NormCap(growth=0.1), change, W_DF, W_base_DF)
    cap = 1.1 * float(W_base_DF.double().norm())
    assert float((W_DF.double() + change.dense()).norm()) > cap > float(W_DF.double().norm())
    assert float((W_DF.double() + result.dense()).norm()) == pytest.approx(cap, rel=1e-12)
    assert type(result) is type(change)
    ratio_DF = result.dense() / change.dense()
    assert 0 < float(ratio_DF.mean()) < 1
    assert_close(ratio_DF, ratio_DF.mean().expand(D, F), rtol=1e-9, atol=0)


def test_an_update_that_first_shortens_the_weights_is_cut_at_the_far_side():
    """W + s ΔW leaves the ball once, behind its middle: s is the larger root, not the smaller."""
    W_DF = draw(D, F, seed=7).double()
    result = constrained(NormCap(growth=0), Dense(-3 * W_DF), W_DF)
    assert_close(result.dense(), -2 * W_DF, rtol=1e-12, atol=0)


def test_within_the_bound_the_update_is_the_same_object():
    W_DF = draw(D, F, seed=7)
    small, shrinking, zero = Dense(1e-3 * draw(D, F)), Dense(-0.5 * W_DF), Dense(torch.zeros(D, F))
    for change, growth in ((small, 0.1), (shrinking, 0.0), (zero, 0.0), (low_rank(), 100.0)):
        assert constrained(NormCap(growth=growth), change, W_DF) is change


def test_weights_above_the_bound_already_never_grow():
    W_base_DF = draw(D, F, seed=7).double()
    W_DF = 2 * W_base_DF
    growing, shrinking, through = Dense(W_base_DF), Dense(-0.1 * W_base_DF), Dense(-5 * W_base_DF)
    cap = NormCap(growth=0.1)
    assert not constrained(cap, growing, W_DF, W_base_DF).dense().any()
    assert constrained(cap, shrinking, W_DF, W_base_DF) is shrinking
    assert_close(constrained(cap, through, W_DF, W_base_DF).dense(), -2 * W_DF, rtol=1e-12, atol=0)


def test_a_tiny_room_is_measured_to_the_last_digits():
    """The usual root formula subtracts two nearly equal numbers here, and a few per cent are wrong."""
    W_DF, delta_DF = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 1e3, dtype=torch.float64)
    assert largest_step(W_DF, delta_DF, cap=1 + 2**-50) == pytest.approx(2**-50 / 1e3, rel=1e-12, abs=0)


# ---- PRUNE


def with_spectrum(values) -> torch.Tensor:
    """A (D, F) float64 matrix with these singular values."""
    U_DD, V_FF = torch.linalg.qr(draw(D, D, seed=11).double()).Q, torch.linalg.qr(draw(F, F, seed=12).double()).Q
    return (U_DD * torch.tensor(values, dtype=torch.float64)) @ V_FF[:, :D].T


@pytest.mark.parametrize("base", [1.2, 2, np.e])
def test_prune_restrains_the_accumulated_change_by_the_published_formula(base):
    W_base_DF = 3 * draw(D, F, seed=7).double()
    m = np.linalg.norm(W_base_DF.numpy(), ord=2)
    spectrum = np.array([40 * m, 5 * m, 1.001 * m, 0.999 * m, 0.5 * m, 0.0])
    expected = [np.log(s) / np.log(base) - np.log(m) / np.log(base) + m if s > m else s for s in spectrum]
    assert m * np.log(base) > 1
    W_DF = W_base_DF + with_spectrum(spectrum)
    view_DF = Prune(base=float(base)).view(W_base_DF, W_DF)
    U, S, Vt = np.linalg.svd((W_DF - W_base_DF).numpy(), full_matrices=False)
    assert_close(view_DF, W_base_DF + torch.from_numpy((U * expected) @ Vt), rtol=0, atol=1e-11)
    found = np.linalg.svd((view_DF - W_base_DF).numpy(), compute_uv=False)
    np.testing.assert_allclose(found, expected, atol=1e-11)
    assert found[0] <= m + np.log(S[0] / m) / np.log(base) + 1e-11 < S[0]


def test_prune_is_a_view_the_raw_weights_and_the_next_update_stay():
    W_base_DF = draw(D, F, seed=7)
    W_DF = W_base_DF + 30 * draw(D, F, seed=8)
    base_before, before = W_base_DF.clone(), W_DF.clone()
    view_DF = Prune().view(W_base_DF, W_DF)
    assert view_DF.dtype == torch.float32
    assert float((view_DF - W_base_DF).norm()) < 0.5 * float((W_DF - W_base_DF).norm())
    assert torch.equal(W_DF, before)
    assert torch.equal(W_base_DF, base_before)
    update = Update({NAME: low_rank()})
    assert Prune().constrain(update, {}.get, {}.get) is update


def test_prune_shows_the_weights_themselves_where_nothing_is_above():
    W_base_DF = with_spectrum([3.0, 2, 2, 1, 1, 0]).float()
    W_DF = W_base_DF + with_spectrum([2.99, 2.9, 1, 1, 0, 0]).float()
    assert Prune().view(W_base_DF, W_DF) is W_DF
    assert Prune().view(W_base_DF, W_base_DF) is W_base_DF
    assert Unconstrained().view(W_base_DF, W_DF) is W_DF


def test_prune_warns_where_the_published_formula_enlarges(caplog):
    W_base_DF = with_spectrum([0.5, 0.1, 0, 0, 0, 0])
    W_DF = W_base_DF + with_spectrum([0.6, 0, 0, 0, 0, 0])
    with caplog.at_level(logging.WARNING):
        view_DF = Prune().view(W_base_DF, W_DF)
    assert float(torch.linalg.matrix_norm(view_DF - W_base_DF, ord=2)) == pytest.approx(0.5 + np.log(0.6 / 0.5))
    assert "constraint.base=2.718" in caplog.text
    assert "e^2" in caplog.text
    caplog.clear()
    Prune(base=8).view(W_base_DF, W_DF)  # e² is 7.39
    assert not caplog.text


# ---- on a real update


@pytest.fixture
def rome_update(make_lm, family, fact):
    lm = make_lm(family)
    moment_FF = torch.eye(lm.widths(1)[1])
    method = Rome(layer=1, value_steps=8, weight_decay=0.0)
    update = method.update(lm, [fact], Prepared(("", "It is known"), factors=factors({"second_moment": moment_FF})), {})
    return lm, lm.mlp_out_name(1), update


@pytest.mark.parametrize(
    "constraint", [Rect(), RandomKeep(), Pca(), NormCap(growth=1e-4)], ids=lambda c: type(c).__name__
)
def test_constraints_compose_with_a_real_update(rome_update, constraint):
    lm, name, update = rome_update
    W_before_DF = lm.weights.W(name).clone()
    whole_DF = update.changes[name].dense()
    update = constraint.constrain(update, lm.weights.W, lm.weights.W_base)
    lm.weights.add(update.changes)
    moved_DF = lm.weights.W(name).double() - W_before_DF.double()
    assert_close(moved_DF, update.changes[name].dense(), rtol=0, atol=1e-6 * float(W_before_DF.abs().max()))
    if isinstance(constraint, Rect | RandomKeep):
        untouched_DF = (update.changes[name].dense() == 0) & (whole_DF != 0)
        assert int(untouched_DF.sum()) == whole_DF.numel() - round(0.4 * whole_DF.numel())
        assert torch.equal(lm.weights.W(name)[untouched_DF], W_before_DF[untouched_DF])
        if isinstance(constraint, Rect):  # whatever is kept moves its weight by more, in relation to it, than the rest
            relative_DF = whole_DF.abs() / (W_before_DF.double().abs() + 1e-8)
            assert relative_DF[~untouched_DF].min() >= relative_DF[untouched_DF].max()
    elif isinstance(constraint, Pca):
        assert torch.equal(update.changes[name].dense(), whole_DF)
    else:
        assert float(lm.weights.W(name).double().norm()) == pytest.approx(
            1.0001 * float(W_before_DF.double().norm()), rel=1e-7
        )
    lm.weights.restore()
    assert torch.equal(lm.weights.W(name), W_before_DF)


def test_the_view_of_a_real_edit_can_stand_in_the_model_and_be_taken_out_again(rome_update):
    lm, name, update = rome_update
    (change,) = update.changes.values()
    lm.weights.add({name: LowRank(1000 * change.left_Dr, change.right_Fr)})
    raw = lm.weights.copies()
    view_DF = Prune().view(lm.weights.W_base(name), lm.weights.W(name))
    assert torch.equal(lm.weights.W(name), raw[name])
    (S_raw, S_view) = (
        np.linalg.svd((W - lm.weights.W_base(name)).double().numpy(), compute_uv=False) for W in (raw[name], view_DF)
    )
    m = np.linalg.norm(lm.weights.W_base(name).double().numpy(), ord=2)
    assert S_raw[0] > m
    assert S_view[0] == pytest.approx(m + np.log(S_raw[0] / m), rel=1e-5)
    lm.weights.put_back({name: view_DF})
    assert torch.equal(lm.weights.W(name), view_DF)
    lm.weights.put_back(raw)
    assert torch.equal(lm.weights.W(name), raw[name])


# ---- on what other methods yield: several matrices, of rank 2 (MEMIT, two facts), a term a token (MEND), dense (FT)


@pytest.fixture(params=["memit", "ft", "mend"])
def real(request, make_lm, fact, second_fact) -> SimpleNamespace:
    """An update of two facts to several blocks of a model that was edited before; all matrices float64 NumPy."""
    lm = make_lm("gpt2")  # stores its matrices transposed
    width, inner = lm.widths(0)
    blocks = range(lm.n_blocks)
    lm.weights.add({lm.mlp_out_name(i): Dense(0.002 * draw(width, inner, seed=i)) for i in blocks})
    network = Hypernetwork([(width, inner)] * 2, 6).start(0.5, 0)
    method, prepared = {
        "memit": (
            Memit(layers=[0, 1, 2], second_moment_weight=1.0, value_steps=6, weight_decay=0.0),
            Prepared(("", "It is known"), factors=factors({f"second_moment/{i}": torch.eye(inner) for i in blocks})),
        ),
        "ft": (Ft(layers=[1, 3], steps=6, learning_rate=0.01, max_change=0.02), Prepared()),
        "mend": (Mend(n_layers=2, rank=6), Prepared(tensors=network.state_dict())),
    }[request.param]
    update = method.update(lm, [fact, second_fact], prepared, {})
    assert len(update.changes) > 1
    kinds = {"memit": LowRank, "ft": Dense, "mend": LowRank}
    assert all(type(change) is kinds[request.param] for change in update.changes.values())

    def as_numpy(of) -> dict[str, np.ndarray]:
        return {name: of(name).double().numpy().copy() for name in update.changes}

    return SimpleNamespace(
        lm=lm, update=update, whole=as_numpy(lambda name: update.changes[name].dense()), W=as_numpy(lm.weights.W),
        W_base=as_numpy(lm.weights.W_base),
    )  # fmt: skip


def written_by(constraint, real) -> dict[str, np.ndarray]:
    """What is written to each matrix, as constrained; applied, it is all that moves."""
    before = {name: parameter.clone() for name, parameter in real.lm.model.named_parameters()}
    result = constraint.constrain(real.update, real.lm.weights.W, real.lm.weights.W_base)
    assert list(result.changes) == list(real.update.changes)
    real.lm.weights.add(result.changes)
    for name, parameter in real.lm.model.named_parameters():
        assert torch.equal(parameter, before[name]) != (name in result.changes), name
    written = {name: change.dense().numpy() for name, change in result.changes.items()}
    for name, written_DF in written.items():
        assert np.array_equal(real.lm.weights.W(name).numpy(), (real.W[name] + written_DF).astype(np.float32))
    return written


@pytest.mark.parametrize("keep", [0.05, 0.4])
def test_rect_ranks_every_matrix_by_itself(real, keep):
    for name, written_DF in written_by(Rect(keep=keep), real).items():
        whole_DF = real.whole[name]
        relative_DF = np.abs(whole_DF) / (np.abs(real.W[name]) + 1e-8)
        best_N = np.argsort(-relative_DF, axis=None, kind="stable")[: round(keep * whole_DF.size)]
        expected_DF = np.zeros_like(whole_DF)
        expected_DF.flat[best_N] = whole_DF.flat[best_N]
        assert np.array_equal(written_DF, expected_DF)
        assert np.count_nonzero(written_DF) == round(keep * whole_DF.size)
        assert relative_DF[written_DF != 0].min() >= relative_DF[written_DF == 0].max()


def test_random_draws_a_mask_for_every_matrix(real):
    masks = []
    for name, written_DF in written_by(RandomKeep(keep=0.4), real).items():
        whole_DF = real.whole[name]
        assert whole_DF.all()
        masks.append(written_DF != 0)
        assert masks[-1].sum() == round(0.4 * whole_DF.size)
        assert np.array_equal(written_DF[masks[-1]], whole_DF[masks[-1]])
    assert not any(np.array_equal(masks[0], mask) for mask in masks[1:])


@pytest.mark.parametrize("keep", [0.04, 0.4])
def test_pca_keeps_every_matrix_to_its_own_first_components(real, keep):
    k = {0.04: 1, 0.4: 13}[keep]  # of 32
    cut = False
    for name, written_DF in written_by(Pca(keep=keep), real).items():
        whole_DF = real.whole[name]
        U, S, Vt = np.linalg.svd(whole_DF, full_matrices=False)
        np.testing.assert_allclose(written_DF, (U[:, :k] * S[:k]) @ Vt[:k], rtol=0, atol=1e-6 * S[0])
        rank = np.linalg.matrix_rank(whole_DF, tol=1e-6 * S[0])
        assert np.linalg.matrix_rank(written_DF, tol=1e-6 * S[0]) == min(k, rank)
        cut |= rank > k
        assert np.array_equal(written_DF, whole_DF) == (rank <= k)
    assert cut or (keep == 0.4 and rank == 2)  # two facts of MEMIT


def test_the_norm_cap_holds_for_every_matrix(real):
    n_cut = 0
    for name, written_DF in written_by(NormCap(growth=0.001), real).items():
        whole_DF, W_DF = real.whole[name], real.W[name]
        cap = 1.001 * np.linalg.norm(real.W_base[name])
        assert np.linalg.norm(W_DF) < cap
        assert np.linalg.norm(W_DF + written_DF) <= cap * (1 + 1e-12)
        if np.linalg.norm(W_DF + whole_DF) <= cap:
            assert np.array_equal(written_DF, whole_DF)
            continue
        n_cut += 1
        s = (written_DF * whole_DF).sum() / (whole_DF**2).sum()
        assert 0 < s < 1
        np.testing.assert_allclose(written_DF, s * whole_DF, rtol=1e-9, atol=0)
        assert np.linalg.norm(W_DF + written_DF) == pytest.approx(cap, rel=1e-12)
        assert np.linalg.norm(W_DF + (s + 1e-4) * whole_DF) > cap
    assert n_cut


@named
def test_an_update_that_changes_nothing_stays_one(constraint, make_lm, fact, tmp_path):
    """As KN's, where no neuron is coarse."""
    lm = make_lm("llama")
    update = Kn(steps=2, threshold=1.0).update(lm, [fact], Prepared(), {})
    assert update.changes == {} and update.diagnostics["n_neurons"] == 0
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    save_file(update.flat(), tmp_path / "update.safetensors")
    for given in (update, load_update(tmp_path / "update.safetensors")):
        result = constraint.constrain(given, lm.weights.W, lm.weights.W_base)
        assert result.changes == {}
        assert result.diagnostics == given.diagnostics
        lm.weights.add(result.changes)
    assert not lm.weights.base
    assert all(torch.equal(parameter, before[name]) for name, parameter in lm.model.named_parameters())

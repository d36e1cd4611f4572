"""Tests AlphaEdit: the published formula, the null space, and that outputs at preserved keys do not move."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.ingredients import sampled_text, second_moment
from afteredit.edit.ingredients.value_search import optimise_streams
from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods import alphaedit
from afteredit.edit.methods.alphaedit import AlphaEdit, Threshold, in_null_space, null_space
from afteredit.store.errors import BadInput, NoEdit

FACTS = Path(__file__).resolve().parents[3] / "data" / "facts.jsonl"
CONTEXTS = ("",)
F = 48


def low_rank_keys(n: int, rank: int, noise: float, seed: int) -> torch.Tensor:
    """Returns (F, n) keys that lie almost completely in `rank` directions."""
    basis_FF = torch.linalg.qr(torch.randn(F, F, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    scale_F = torch.full((F,), noise, dtype=torch.float64)
    scale_F[:rank] = 1.0
    sample = torch.randn(F, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return basis_FF @ (scale_F[:, None] * sample)


def test_the_symmetric_solve_is_the_published_formula():
    """Returns Δ = R Kᵀ P (K_p K_pᵀ P + K Kᵀ P + ρ I)⁻¹, by NumPy on the full matrices."""
    sample_Fn = low_rank_keys(400, 20, 0.01, seed=1)
    basis_Fr, _ = null_space(sample_Fn @ sample_Fn.T / 400, 0.02, Threshold.absolute)
    assert basis_Fr.shape == (F, F - 20)
    keys_FE, past_Fn = low_rank_keys(3, 48, 1.0, seed=2), low_rank_keys(5, 48, 1.0, seed=3)
    R = np.random.default_rng(0).normal(size=(6, 3))
    P, K, Kp = (basis_Fr @ basis_Fr.T).numpy(), keys_FE.numpy(), past_Fn.numpy()
    expected = R @ K.T @ P @ np.linalg.inv(Kp @ Kp.T @ P + K @ K.T @ P + 10.0 * np.eye(F))
    ours = torch.from_numpy(R) @ in_null_space(basis_Fr, keys_FE, past_Fn @ past_Fn.T, ridge=10.0).T
    assert_close(ours, torch.from_numpy(expected), rtol=1e-8, atol=1e-10)


def test_the_threshold_is_absolute_or_in_multiples_of_the_mean():
    C_FF = torch.diag(torch.tensor([4.0, 2.0, 0.03, 0.01])).double()
    absolute, energy = null_space(C_FF, 0.02, Threshold.absolute)
    assert_close(absolute.abs(), torch.tensor([[0.0, 0, 0, 1]]).T.double())
    assert energy == pytest.approx(0.01 / 6.04)
    relative, energy = null_space(C_FF, 0.02, Threshold.relative)  # the mean is 1.51: below 0.0302
    assert relative.shape == (4, 2)
    assert energy == pytest.approx(0.04 / 6.04)
    scaled, _ = null_space(100 * C_FF, 0.02, Threshold.relative)
    assert scaled.shape == (4, 2)


@pytest.fixture
def edited(make_lm, family, fact):
    """Returns (lm, update, prepared) of one edit; the null spaces come from random keys of low rank."""
    lm = make_lm(family, start_token="<s>" if family == "llama" else None)
    bases = {}
    for layer in (1, 2):
        sample_Fn = low_rank_keys(2000, 20, 0.05, seed=layer)
        basis_Fr, energy = null_space(sample_Fn @ sample_Fn.T / 2000, 0.02, Threshold.absolute)
        bases |= {f"null_space/{layer}": basis_Fr, f"energy/{layer}": torch.tensor(energy)}
    method = AlphaEdit(layers=[1, 2], value_steps=20, value_lr=0.5, weight_decay=0.0, max_offset=4.0, ridge=1e-4)
    prepared = Prepared(CONTEXTS, bases)
    update = method.update(lm, [fact], prepared, {})
    assert sorted(update.adds) == ["keys/1", "keys/2"]
    assert update.diagnostics["null_rank"] == F - 20
    return lm, update, prepared


def test_held_out_preserved_keys_hardly_move(edited):
    """These keys of the same kind were not in the sample: only their part outside the null space is protected."""
    lm, update, prepared = edited
    for layer in (1, 2):
        change_DF = update.changes[lm.mlp_out_name(layer)].dense()
        held_out_Fn = low_rank_keys(500, 20, 0.05, seed=99)
        basis_Fr = prepared.tensors[f"null_space/{layer}"]
        energy = float((basis_Fr.T @ held_out_Fn).norm() ** 2 / held_out_Fn.norm() ** 2)
        assert energy < 0.005
        moved = float((change_DF @ held_out_Fn).norm() / (torch.linalg.matrix_norm(change_DF, 2) * held_out_Fn.norm()))
        assert moved <= energy**0.5 * (1 + 1e-6)
        inside_DF = change_DF @ basis_Fr @ basis_Fr.T
        assert_close(inside_DF, change_DF, rtol=0, atol=1e-6 * float(change_DF.abs().max()))


def test_a_second_edit_is_the_published_formula_with_the_keys_of_the_first(make_lm, family, fact, second_fact):
    """Compares with Δ_l = R_l K_lᵀ P (K_p K_pᵀ P + K_l K_lᵀ P + ρ I)⁻¹ by NumPy.  Keys and streams are read from the
    plain model as it is before the block is edited; K_p holds the first edit's keys, read in the same way."""
    lm = make_lm(family, start_token="<s>" if family == "llama" else None)
    layers, bases = [1, 2], {}
    for layer in layers:
        sample_Fn = low_rank_keys(2000, 20, 0.05, seed=layer)
        basis_Fr, energy = null_space(sample_Fn @ sample_Fn.T / 2000, 0.02, Threshold.absolute)
        bases |= {f"null_space/{layer}": basis_Fr, f"energy/{layer}": torch.tensor(energy)}
    method = AlphaEdit(layers=layers, value_steps=8, value_lr=0.5, weight_decay=0.0, max_offset=4.0, ridge=0.05)
    prepared, state, past = Prepared(CONTEXTS, bases), {}, {layer: np.zeros((F, 0)) for layer in layers}
    for request in (fact, second_fact):
        (target,) = optimise_streams(lm, [request], CONTEXTS, layers[-1], method)
        update = method.update(lm, [request], prepared, state)
        state = method.extend(state, update, prepared)
        for i, layer in enumerate(layers):
            key_F, stream_D = at_the_subject(lm, request, layer, layers[-1])
            K, Kp = key_F[:, None], past[layer]
            R = (target.z_D.double().numpy() - stream_D)[:, None] / (len(layers) - i)
            P = (bases[f"null_space/{layer}"] @ bases[f"null_space/{layer}"].T).numpy()
            expected_DF, forgetful_DF = (
                R @ K.T @ P @ np.linalg.inv(gram_FF @ P + K @ K.T @ P + 0.05 * np.eye(F))
                for gram_FF in (Kp @ Kp.T, np.zeros((F, F)))
            )
            name = lm.mlp_out_name(layer)
            change_DF = update.changes[name].dense().numpy()
            assert np.linalg.norm(change_DF - expected_DF) < 1e-4 * np.linalg.norm(expected_DF)
            assert request is fact or np.linalg.norm(change_DF - forgetful_DF) > 0.01 * np.linalg.norm(expected_DF)
            past[layer] = np.concatenate([Kp, K], axis=1)
            lm.weights.add({name: update.changes[name]})
    for layer in layers:
        assert_close(state[f"keys/{layer}"], torch.from_numpy(past[layer] @ past[layer].T), rtol=1e-4, atol=1e-5)


def test_betaedit_is_the_published_formula_and_its_null_space_is_rebuilt_of_all_keys(
    make_lm, family, fact, second_fact
):
    """Compares with Δᵀ = (P (K Kᵀ + G + λ₁ C) + ρ I)⁻¹ P K Rᵀ by NumPy on the whole matrices, and P after every two
    edits with the null space of (G / n + λ₁ C) / (λ₁ + 1); of four edits, the third is the first under another P."""
    lm = make_lm(family, start_token="<s>" if family == "llama" else None)
    layers, C, tensors = [1, 2], {}, {}
    for layer in layers:
        sample_Fn = low_rank_keys(2000, 20, 0.05, seed=layer)
        C[layer] = (sample_Fn @ sample_Fn.T / 2000).numpy()
        basis_Fr, energy = null_space(torch.from_numpy(C[layer]), 0.02, Threshold.absolute)
        tensors |= {f"null_space/{layer}": basis_Fr, f"energy/{layer}": torch.tensor(energy),
                    f"second_moment/{layer}": torch.from_numpy(C[layer])}  # fmt: skip
    method = AlphaEdit(layers=layers, value_steps=6, value_lr=0.5, weight_decay=0.0, max_offset=4.0, ridge=0.05,
                       second_moment_weight=0.3, rebuild_every=2)  # fmt: skip
    prepared, state, G = Prepared(CONTEXTS, tensors), {}, {layer: np.zeros((F, F)) for layer in layers}
    P = {layer: (basis @ basis.T).numpy() for layer, basis in ((i, tensors[f"null_space/{i}"]) for i in layers)}
    ranks = []
    third = replace(fact, id="f3", subject="Peru", prompt="The banknotes of {} carry the name of", target_new="rand")
    fourth = replace(fact, id="f4", subject="Ann Lee", prompt="The mother tongue of {} is", target_new="Thai")
    for n, request in enumerate((fact, second_fact, third, fourth), start=1):
        (target,) = optimise_streams(lm, [request], CONTEXTS, layers[-1], method)
        update = method.update(lm, [request], prepared, state)
        state = method.extend(state, update, prepared)
        for i, layer in enumerate(layers):
            key_F, stream_D = at_the_subject(lm, request, layer, layers[-1])
            K, R = key_F[:, None], (target.z_D.double().numpy() - stream_D)[:, None] / (len(layers) - i)
            solved = np.linalg.solve(P[layer] @ (K @ K.T + G[layer] + 0.3 * C[layer]) + 0.05 * np.eye(F), P[layer] @ K)
            expected_DF, name = R @ solved.T, lm.mlp_out_name(layer)
            change_DF = update.changes[name].dense().numpy()
            assert np.linalg.norm(change_DF - expected_DF) < 1e-3 * np.linalg.norm(expected_DF)
            G[layer] = G[layer] + K @ K.T
            lm.weights.add({name: update.changes[name]})
        ranks.append(update.diagnostics["null_rank"])
        if n % 2 == 0:
            for layer in layers:
                values, vectors = np.linalg.eigh((G[layer] / n + 0.3 * C[layer]) / 1.3)
                P[layer] = vectors[:, values < 0.02] @ vectors[:, values < 0.02].T
                ours = state[f"null_space/{layer}"].numpy()
                np.testing.assert_allclose(ours @ ours.T, P[layer], atol=1e-4)
    assert ranks[0] == ranks[1] and ranks[2] == ranks[3] != ranks[0]
    assert (float(state["n_edits"]), float(state["rebuilt_at"])) == (4, 4)


def test_a_null_space_is_rebuilt_of_C_alone_where_no_fact_was_written_at_a_block():
    C_FF = torch.diag(torch.arange(F, dtype=torch.float64))
    method = AlphaEdit(layers=[1, 2], threshold=2.5, second_moment_weight=1.0, rebuild_every=1)
    given = {f"{name}/{layer}": C_FF for layer in (1, 2) for name in ("second_moment", "null_space")}
    G_FF = 4 * torch.eye(F, dtype=torch.float64)  # block 2's keys are missing: an anchor dropped all its facts there
    rebuilt = method._rebuilt({"keys/1": G_FF, "n_edits": torch.tensor(2.0)}, Prepared(CONTEXTS, given))
    assert rebuilt["null_space/1"].shape[1] == 3  # (2 + c) / 2 < 2.5: c of 0 to 2
    assert rebuilt["null_space/2"].shape[1] == 5  # c / 2 < 2.5


def test_betaedits_keys_are_off_by_default_and_refused_by_name_where_they_make_no_sense():
    assert (AlphaEdit().second_moment_weight, AlphaEdit().rebuild_every) == (0, 0)
    with pytest.raises(BadInput, match=r"method\.rebuild_every=5 with method\.second_moment_weight=0"):
        AlphaEdit(rebuild_every=5)
    for key in ("rebuild_every", "second_moment_weight"):
        with pytest.raises(BadInput, match=rf"method\.{key}=-1"):
            AlphaEdit(**{"second_moment_weight": 3000.0, key: -1})


def test_earlier_edits_that_leave_no_null_space_are_said_to():
    keys_FE = low_rank_keys(1, 20, 0.1, seed=1)
    with pytest.raises(NoEdit, match="no null space.*method.threshold"):
        in_null_space(torch.zeros(F, 0).double(), keys_FE, None, 1.0)


def at_the_subject(lm, request, layer: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the key (F,) of block `layer` and the stream (D,) after block `last`, by a plain pass of the prompt."""
    at = len(lm.tokens.encode(request.prompt.partition("{}")[0] + request.subject)) - 1
    keys = []
    hook = lm.mlp_out(layer).register_forward_pre_hook(lambda _module, args: keys.append(args[0][0, at]))
    seen = lm.model(torch.tensor([lm.tokens.encode(request.question)]), use_cache=False, output_hidden_states=True)
    hook.remove()
    return keys[0].double().numpy(), seen.hidden_states[last + 1][0, at].double().numpy()


def test_the_models_own_keys_of_other_text_move_by_no_more_than_the_energy_that_is_logged(
    make_lm, family, fact, tmp_path, monkeypatch, caplog
):
    """C comes from one half of the embedded facts, the keys from the other.  Their energy in the null space is the one
    that `prepare` states, and the module's outputs move by |ΔK|² ≤ energy · |Δ|² |K|², with 30 % for sampling."""
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    rows = [json.loads(line) for line in FACTS.read_text(encoding="utf-8").splitlines()]
    said = [f"{row['prompt'].replace('{}', row['subject'])} {row['target_true']}.\n" for row in rows]
    text, other = tmp_path / "text.txt", tmp_path / "other.txt"
    text.write_text("".join(said[::2]), encoding="utf-8")
    other.write_text("".join(said[1::2]), encoding="utf-8")
    lm = make_lm(family)
    method = AlphaEdit(layers=[1], contexts=0, second_moment_text=str(text), tokens_per_key_dim=40, threshold=0.2,
                       threshold_kind=Threshold.relative, value_steps=8, value_lr=0.5, weight_decay=0.0,
                       max_offset=4.0, ridge=1e-3)  # fmt: skip
    with caplog.at_level("INFO", logger="afteredit.edit.methods.alphaedit"):
        prepared = method.prepare(lm, Given(0, list))
    energy = float(caplog.messages[-1].split("holding ")[1].split()[0])
    update = method.update(lm, [fact], prepared, {})
    change_DF = update.changes[lm.mlp_out_name(1)].dense()

    keys = []
    hook = lm.mlp_out(1).register_forward_pre_hook(lambda _module, args: keys.append(args[0][0]))
    for row in sampled_text.sequences(lm, str(other), 1920):
        lm.model(torch.tensor([row]), use_cache=False)
    hook.remove()
    keys_NF = torch.cat(keys)
    before_ND = lm.mlp_out(1)(keys_NF)
    lm.weights.add(update.changes)
    moved = float((lm.mlp_out(1)(keys_NF) - before_ND).double().norm())
    basis_Fr = prepared.tensors["null_space/1"]
    assert float((basis_Fr.T @ keys_NF.double().T).norm() / keys_NF.norm()) ** 2 < 1.3 * energy < 0.06
    assert moved**2 <= 1.3 * energy * float(torch.linalg.matrix_norm(change_DF, 2) * keys_NF.norm()) ** 2
    key_F = torch.from_numpy(at_the_subject(lm, fact, 1, 1)[0])
    at_fact, elsewhere = float((change_DF @ key_F).norm() / key_F.norm()), moved / float(keys_NF.norm())
    assert at_fact > 1.5 * elsewhere


def test_an_edit_in_the_null_space_still_reaches_its_target(edited):
    """With 28 of 48 directions free and a small ridge, the stream comes close to z."""
    _, update, _ = edited
    assert update.diagnostics["missing_share"] < 0.05
    assert 0 <= update.diagnostics["null_energy"] < 0.02  # it is stored with the edit


def test_a_threshold_that_leaves_nothing_is_refused_before_any_edit(make_lm, monkeypatch):
    monkeypatch.setattr(second_moment, "second_moments", lambda lm, layers, *_: (
        {layer: torch.eye(F) for layer in layers}, "digest"))  # fmt: skip
    method = AlphaEdit(layers=[1], contexts=0, threshold=1e-6)
    with pytest.raises(BadInput, match="method.threshold=1e-06"):
        method.prepare(make_lm("gpt2"), Given(0, list))


def test_null_spaces_are_made_once_and_their_rank_and_energy_logged_each_time(make_lm, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("The old town has a market, and people come to buy fish and bread.\n" * 300)
    lm = make_lm("llama")
    method = AlphaEdit(layers=[1], contexts=0, second_moment_text=str(text), tokens_per_key_dim=8, threshold=1.0,
                       threshold_kind=Threshold.relative)  # fmt: skip
    with caplog.at_level("INFO", logger="afteredit.edit.methods.alphaedit"):
        first = method.prepare(lm, Given(0, list))
        monkeypatch.setattr(torch.linalg, "eigh", None)  # the second time it is not called
        second = method.prepare(lm, Given(0, list))
    basis_Fr = first.tensors["null_space/1"]
    assert sorted(first.tensors) == sorted(second.tensors) == ["energy/1", "null_space/1"]
    assert torch.equal(basis_Fr, second.tensors["null_space/1"])
    said = [record.getMessage() for record in caplog.records if record.name.endswith("alphaedit")]
    assert len(said) == 2 and said[0] == said[1]
    assert said[0].startswith(f"null space of block 1: {basis_Fr.shape[1]} of {len(basis_Fr)} directions")


def test_a_killed_start_keeps_the_null_spaces_that_were_found(make_lm, tmp_path, monkeypatch):
    """A block's takes long where F is large: each has a file of its own."""
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("The old town has a market, and people come to buy fish and bread.\n" * 60, encoding="utf-8")
    method = AlphaEdit(layers=[0, 1, 2], threshold=0.5, threshold_kind=Threshold.relative, contexts=0,
                       second_moment_text=str(text), tokens_per_key_dim=8)  # fmt: skip
    lm, found = make_lm("gpt2"), []

    def dying(C_FF, threshold, kind):
        if len(found) == 2:
            raise KeyboardInterrupt
        found.append(C_FF)
        return null_space(C_FF, threshold, kind)

    monkeypatch.setattr(alphaedit, "null_space", dying)
    with pytest.raises(KeyboardInterrupt):
        method.prepare(lm, Given(0, list))
    monkeypatch.setattr(alphaedit, "null_space", lambda *args: found.append(args[0]) or null_space(*args))
    resumed = method.prepare(lm, Given(0, list))
    assert len(found) == 3
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "another"))
    whole = method.prepare(lm, Given(0, list))
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())
    assert set(whole.tensors) == set(resumed.tensors)

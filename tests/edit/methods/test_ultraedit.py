"""Tests UltraEdit against NumPy over plain passes, its statistics as a fold of all tokens, and refused nonsense."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from afteredit.edit.method import Given, Prepared
from afteredit.edit.methods.ultraedit import UltraEdit
from afteredit.edit.update import load_update
from afteredit.store.errors import BadInput

LAYERS = [1, 2]


@pytest.fixture
def facts(fact, second_fact):
    third = replace(fact, id="f3", subject="Peru", prompt="The banknotes of {} carry the name of", target_new="rand")
    return [fact, second_fact, third]


def plain_tokens(lm, request) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns by block the key and the output's gradient where each answer token is predicted, by one plain pass."""
    answer = lm.tokens.answer_ids(request.target_new, request.question)
    prompt = lm.tokens.question_ids(request.question)
    seen: dict[int, tuple] = {}

    def keep(layer):
        def hook(_module, args, output):
            output = output if output.requires_grad else output.requires_grad_()
            output.retain_grad()
            seen[layer] = args[0], output
            return output

        return hook

    hooks = [lm.mlp_out(layer).register_forward_hook(keep(layer)) for layer in LAYERS]
    with torch.enable_grad():
        logits_TV = lm.model(torch.tensor([[*prompt, *answer]]), use_cache=False).logits[0]
        places = range(len(prompt) - 1, len(prompt) - 1 + len(answer))
        (-sum(logits_TV[at].log_softmax(-1)[token] for at, token in zip(places, answer, strict=True))).backward()
    for registered in hooks:
        registered.remove()
    return {layer: [(keys[0, at].detach().double().numpy(), output.grad[0, at].double().numpy()) for at in places]
            for layer, (keys, output) in seen.items()}  # fmt: skip


def published(tokens, all_so_far, rate: float) -> np.ndarray:
    """Returns Δ = ((HᵀH + I)⁻¹ Hᵀ V)ᵀ, as the code writes it, with statistics over a plain list of all tokens."""
    mean, std = all_so_far.mean(0), all_so_far.std(0, ddof=1)
    H = np.stack([key for key, _ in tokens])
    hat = (np.stack([np.concatenate(pair) for pair in tokens]) - mean) / (std + np.finfo(np.float32).eps)
    F = H.shape[1]
    V = -rate * (hat[:, :F] ** 2).sum(1, keepdims=True) * hat[:, F:]
    return np.linalg.solve(H.T @ H + np.eye(F), H.T @ V).T


@pytest.mark.parametrize("sizes", [(3,), (1, 2), (2, 1)], ids=str)
def test_every_batch_is_the_published_formula_over_all_tokens_so_far(make_lm, family, facts, sizes):
    """Means and deviations are those of the tokens of all batches and blocks, each read when its batch was written."""
    lm, method = make_lm(family, dtype=torch.float64), UltraEdit(layers=LAYERS, learning_rate=1e-3)
    state, seen, done = {}, [], 0
    for size in sizes:
        batch = facts[done : done + size]
        done += size
        tokens = {layer: [] for layer in LAYERS}
        for request in batch:
            for layer, pairs in plain_tokens(lm, request).items():
                tokens[layer] += pairs
        seen += [np.concatenate(pair) for layer in LAYERS for pair in tokens[layer]]
        update = method.update(lm, batch, Prepared(), state)
        for layer in LAYERS:
            expected = published(tokens[layer], np.stack(seen), 1e-3)
            written = update.changes[lm.mlp_out_name(layer)].dense().numpy()
            assert np.linalg.norm(written - expected) < 1e-5 * np.linalg.norm(expected)
            assert update.changes[lm.mlp_out_name(layer)].left_Dr.shape[1] == len(tokens[layer])
        state = method.extend(state, update, Prepared())
        lm.weights.add(update.changes)
    (shape,) = {name.partition("/")[2] for name in state}
    assert float(state[f"n/{shape}"]) == len(seen)
    np.testing.assert_allclose(state[f"mean/{shape}"], np.stack(seen).mean(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(state[f"squares/{shape}"], np.stack(seen).var(0) * len(seen), rtol=1e-6, atol=1e-9)


def test_the_state_is_a_fold_of_what_the_journal_holds(make_lm, facts, tmp_path):
    """Read back from files, the updates add up to the same bits, and the next update is the same."""
    lm, method = make_lm("llama"), UltraEdit(layers=LAYERS, learning_rate=1e-3)
    state, again = {}, {}
    for i, request in enumerate(facts[:2]):
        update = method.update(lm, [request], Prepared(), state)
        save_file(update.flat(), tmp_path / f"{i}.safetensors")
        stored = load_update(tmp_path / f"{i}.safetensors")
        state, again = (method.extend(before, made, Prepared()) for before, made in ((state, update), (again, stored)))
        lm.weights.add(stored.changes)
    assert set(state) == set(again) and all(torch.equal(state[name], again[name]) for name in state)
    ours, theirs = (method.update(lm, facts[2:], Prepared(), remembered) for remembered in (state, again))
    assert all(torch.equal(change.left_Dr, theirs.changes[name].left_Dr) for name, change in ours.changes.items())


def test_an_edit_makes_its_answer_likelier_and_changes_nothing_by_itself(make_lm, family, facts):
    lm, method = make_lm(family), UltraEdit(layers=LAYERS, learning_rate=3e-2)
    before = {name: parameter.clone() for name, parameter in lm.model.named_parameters()}
    update = method.update(lm, facts, Prepared(), {})
    assert all(torch.equal(parameter, before[name]) for name, parameter in lm.model.named_parameters())
    lm.weights.add(update.changes)
    after = method.update(lm, facts, Prepared(), {}).diagnostics["loss_before"]
    assert after < update.diagnostics["loss_before"] - 0.01


def test_no_published_blocks_means_nine_up_to_the_last_but_one(make_lm, caplog):
    lm = make_lm("gpt2")  # 4 blocks
    assert UltraEdit().edited_layers(lm) == [0, 1, 2]
    UltraEdit().prepare(lm, Given(0, list))
    assert any("nine up to the last but one" in message for message in caplog.messages)


@pytest.mark.parametrize(("key", "value"), [("learning_rate", 0.0), ("ridge", float("nan")), ("layers", [1, 1])])
def test_a_value_that_makes_no_sense_is_refused_by_its_key(key, value):
    with pytest.raises(BadInput, match=rf"^method\.{key}="):
        UltraEdit(**{key: value})

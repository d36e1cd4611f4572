"""Writing a batch of facts block by block, as MEMIT and its heirs do (Meng et al., 2023, §4.3).

Every fact has one target z, a residual stream after the last edited block L.  Each block l of l₁ < … < L gets the
share 1/(L − l + 1), counted in edited blocks, of what is still missing of z at block L.  Keys and what is missing are
measured anew on the model with the blocks before already changed.  No constraint acts between the blocks: it sees the
finished update.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from afteredit.edit.ingredients.context_prefixes import sample_contexts
from afteredit.edit.ingredients.second_moment import second_moments
from afteredit.edit.ingredients.subject_keys import subject_keys, subject_streams
from afteredit.edit.ingredients.target_value import TargetStream
from afteredit.edit.method import Prepared
from afteredit.edit.request import EditRequest
from afteredit.edit.update import LowRank, State, Update
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)

Solve = Callable[[int, Tensor], Tensor]  # (layer, keys (F, E)) -> X (F, E) float64: the change is residual @ Xᵀ


class BlockSettings(Protocol):
    """The keys of a method that `prepare_blocks` reads."""

    @property
    def layers(self) -> list[int] | None: ...
    @property
    def contexts(self) -> int: ...
    @property
    def contexts_count_opening(self) -> bool: ...
    @property
    def second_moment_text(self) -> str: ...
    @property
    def tokens_per_key_dim(self) -> int: ...


def default_layer(lm: LM) -> int:
    """Returns the block that is edited where none is published for a model: a quarter of the way up.

    GPT-2 XL's 17 of 48, GPT-J's 5 of 28 and Llama's 5 of 32 lie between a sixth and a third.
    """
    return lm.n_blocks // 4


def layers_up_to(layer: int, n: int = 5) -> list[int]:
    """Returns the `n` blocks that end at `layer`, which is nearly how GPT-2 XL's 13 to 17, GPT-J's 3 to 8 and Llama's
    4 to 8 were chosen."""
    return list(range(max(0, layer - n + 1), layer + 1))


def edited_blocks(lm: LM, layers: Sequence[int] | None) -> list[int]:
    """Returns the blocks to edit, lowest first: those given, or the default ones of a model without published ones."""
    return sorted(layers) if layers else layers_up_to(default_layer(lm))


def prepare_blocks(lm: LM, settings: BlockSettings, seed: int) -> Prepared:
    """Returns the context prefixes and the second moments of keys, named `second_moment/<block>`.

    Raises BadInput where the MLP's output is not added to the residual stream as it is (Gemma 2).
    """
    layers = edited_blocks(lm, settings.layers)
    if not lm.capabilities.mlp_joins_stream(layers[-1]):
        raise BadInput(f"{type(lm.model).__name__} normalises the MLP's output before it joins the residual stream, in "
                       "whose terms MEMIT and AlphaEdit are defined; use method=rome, ft or kn")  # fmt: skip
    if settings.layers is None:
        log.warning("no edit layers are known for this model: blocks %s of %d are used (five that end a quarter of the "
                    "way up); set method.layers to choose", layers, lm.n_blocks)  # fmt: skip
    moments, digest = second_moments(lm, layers, settings.second_moment_text, settings.tokens_per_key_dim)
    tensors = {f"second_moment/{layer}": moment_FF for layer, moment_FF in moments.items()}
    contexts = sample_contexts(lm, {10: settings.contexts}, seed, count_opening=settings.contexts_count_opening)
    return Prepared(contexts, tensors, {"second_moment": digest})


def write_in_turn(
    lm: LM,
    requests: Sequence[EditRequest],
    targets: Sequence[TargetStream],
    contexts: Sequence[str],
    layers: Sequence[int],
    solve: Solve,
) -> Update:
    """Returns the update of all `layers` (lowest first) towards each request's target after the last of them.

    It adds the keys (F, E) that it was written at, by `key_name`.  Mutates nothing.
    """
    z_DE = torch.stack([target.z_D for target in targets], dim=1)
    changes, keys = {}, {}
    with lm.weights.undone(map(lm.mlp_out_name, layers)):
        missing_DE = z_DE - subject_streams(lm, requests, layers[-1])
        missing_before = missing_DE.norm()
        for i, layer in enumerate(layers):
            keys_FE = subject_keys(lm, requests, contexts, layer)
            right_FE = solve(layer, keys_FE)
            change = LowRank((missing_DE / (len(layers) - i)).cpu(), right_FE.float().cpu())
            keys[key_name(layer)] = keys_FE.cpu()
            changes[lm.mlp_out_name(layer)] = change
            lm.weights.add({lm.mlp_out_name(layer): change})
            missing_DE = z_DE - subject_streams(lm, requests, layers[-1])
    n = len(targets)
    diagnostics = {name: sum(target.diagnostics[name] for target in targets) / n for name in targets[0].diagnostics}
    diagnostics["missing_share"] = float(missing_DE.norm() / missing_before)  # of the way to z, what was not gone
    diagnostics["update_norm"] = sum(change.norm() ** 2 for change in changes.values()) ** 0.5
    return Update(changes, keys, diagnostics)


def key_name(layer: int) -> str:
    """Returns the name under which an update holds the keys written at a block, and a state their sum."""
    return f"keys/{layer}"


def with_keys_added(state: State, update: Update) -> State:
    """Returns the state with Σ K Kᵀ (F, F) float64 over the keys of every edit so far, by `key_name`.

    That sum is all that the least squares of later edits need, and no larger after a thousand edits than after one.
    """
    sums = dict(state)
    for name, keys_FE in update.adds.items():
        keys_FE = keys_FE.double()
        sums[name] = sums.get(name, 0) + keys_FE @ keys_FE.T
    return sums

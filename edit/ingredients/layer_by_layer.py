"""Writing a batch of facts block by block, as MEMIT and its heirs do (Meng et al., 2023, §4.3).

Every fact has one target z, a residual stream after the last edited block L.  Each block l of l₁ < … < L gets the
share 1/(L − l + 1), counted in edited blocks, of what is still missing of z at block L.  Keys and what is missing are
measured anew on the model with the blocks before already changed.  No constraint acts between the blocks: it sees the
finished update.
With `distribute=boundary` (BLUE, arXiv 2502.03748; code: xpq-tech/BLUE) only the first and the last of these blocks are
edited.  Each takes the whole of what is missing of a target of its own, a stream after that very block; the last
block's targets are searched for on the model whose first block is already changed.  Its authors name two blocks for
each model, chosen anew; here they are the ends of `layers`, which may also name just these two.
With `merge_subjects` (MEMIT-Merge, arXiv 2502.07322) the facts of one subject in one batch are written as one: their
keys are nearly alike, and one key cannot hold several values.  They share one offset, which minimises the mean of
their losses, and enter the least squares once.  Their key is the mean of theirs and what is missing the mean of what
each lacks, since prompts that begin differently give a subject different keys; the paper's authors published no code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from afteredit.edit.ingredients.context_prefixes import sample_contexts
from afteredit.edit.ingredients.least_squares import before_norm
from afteredit.edit.ingredients.second_moment import second_moments
from afteredit.edit.ingredients.subject_keys import subject_keys, subject_mlp_outputs, subject_streams
from afteredit.edit.ingredients.target_value import TargetStream
from afteredit.edit.ingredients.value_norm import AnchorSettings, anchored, with_anchors
from afteredit.edit.ingredients.value_search import optimise_streams, shared_streams, streams_by_id
from afteredit.edit.ingredients.value_settings import Distribute, ValueNorm
from afteredit.edit.method import Given, Prepared
from afteredit.edit.request import EditRequest
from afteredit.edit.update import LowRank, State, Update
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import spelling

log = logging.getLogger(__name__)

Solve = Callable[[int, Tensor], Tensor]  # (layer, keys (F, E)) -> X (F, E) float64: the change is residual @ Xᵀ


class BlockSettings(AnchorSettings, Protocol):
    """The keys of a method that this file reads."""

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
    @property
    def distribute(self) -> Distribute: ...
    @property
    def merge_subjects(self) -> bool: ...


def default_layer(lm: LM) -> int:
    """Returns the block that is edited where none is published for a model: a quarter of the way up.

    GPT-2 XL's 17 of 48, GPT-J's 5 of 28 and Llama's 5 of 32 lie between a sixth and a third.
    """
    return lm.n_blocks // 4


def layers_up_to(layer: int, n: int = 5) -> list[int]:
    """Returns the `n` blocks that end at `layer`, which is nearly how GPT-2 XL's 13 to 17, GPT-J's 3 to 8 and Llama's
    4 to 8 were chosen."""
    return list(range(max(0, layer - n + 1), layer + 1))


def edited_blocks(lm: LM, layers: Sequence[int] | None, distribute: Distribute = Distribute.spread) -> list[int]:
    """Returns the blocks to edit, lowest first: those given, or the default ones of a model without published ones.

    With `distribute=boundary` these are the first and the last of them.
    """
    blocks = sorted(layers) if layers else layers_up_to(default_layer(lm))
    return blocks if distribute is Distribute.spread else sorted({blocks[0], blocks[-1]})


def prepare_blocks(lm: LM, settings: BlockSettings, given: Given) -> Prepared:
    """Returns the context prefixes, the second moments of keys, named `second_moment/<block>`, and the anchors.

    Raises BadInput where a block changes the MLP's output otherwise than by an RMS norm before it joins the residual
    stream, or at all where there is an anchor.
    """
    layers = edited_blocks(lm, settings.layers, settings.distribute)
    normalises = [lm.capabilities.mlp_scale(layer) is not None for layer in layers]
    if any(normalises) and settings.value_norm is ValueNorm.anchor:
        raise BadInput(f"method.value_norm=anchor, but {type(lm.model).__name__} normalises the MLP's output, so that "
                       "no edit changes its length; use method.value_norm=none")  # fmt: skip
    if settings.layers is None:
        log.warning("no edit layers are known for this model: blocks %s of %d are used (five that end a quarter of the "
                    "way up); set method.layers to choose", layers, lm.n_blocks)  # fmt: skip
    moments, digest = second_moments(lm, layers, settings.second_moment_text, settings.tokens_per_key_dim)
    tensors = {f"second_moment/{layer}": moment_FF for layer, moment_FF in moments.items()}
    contexts = sample_contexts(lm, {10: settings.contexts}, given.seed, count_opening=settings.contexts_count_opening)
    prepared = Prepared(contexts, tensors, {"second_moment": digest})
    return with_anchors(prepared, lm, [aim for aim, _ in _parts(lm, settings)], given, settings, optimise_streams)


def _parts(lm: LM, settings: BlockSettings) -> list[tuple[int, list[int]]]:
    """Returns the blocks that are edited towards one target, as (block that the target is after, edited blocks)."""
    layers = edited_blocks(lm, settings.layers, settings.distribute)
    if settings.distribute is Distribute.boundary:
        return [(layer, [layer]) for layer in layers]
    return [(layers[-1], layers)]


def first_targets(
    lm: LM, requests: Sequence[EditRequest], prepared: Prepared, settings: BlockSettings, together: int
) -> dict[str, TargetStream]:
    """Returns each request's target, by its id, for the first change of its batch: after the last edited block, or with
    `distribute=boundary` after the first."""
    first_aim, _ = _parts(lm, settings)[0]
    return _targets_after(first_aim, lm, requests, replace(prepared, together=together), settings)


def _targets_after(
    layer: int, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, settings: BlockSettings
) -> dict[str, TargetStream]:
    groups = _groups(requests, settings)
    alone = [group[0] for group in groups if len(group) == 1]
    targets = streams_by_id(lm, alone, prepared.contexts, layer, settings, prepared.together)
    for group in groups:
        if len(group) > 1:
            shared = shared_streams(lm, group, prepared.contexts, layer, settings)
            targets |= {request.id: target for request, target in zip(group, shared, strict=True)}
    return anchored(targets, prepared, layer, settings)


def _groups(requests: Sequence[EditRequest], settings: BlockSettings) -> list[list[EditRequest]]:
    """Returns the requests that share a key and an offset: those of one subject with `merge_subjects`, else each by
    itself."""
    groups: dict[str, list[EditRequest]] = {}
    for request in requests:
        groups.setdefault(spelling(request.subject) if settings.merge_subjects else request.id, []).append(request)
    return list(groups.values())


def _group_means(columns_XE: Tensor, groups: Sequence[Sequence[EditRequest]]) -> Tensor:
    """Returns the mean of each group's columns, (X, G); the requests of the groups stand one after the other."""
    if len(groups) == columns_XE.shape[1]:
        return columns_XE
    parts = columns_XE.split([len(group) for group in groups], dim=1)
    return torch.stack([part_XE.mean(dim=1) for part_XE in parts], dim=1)


def _missing(
    lm: LM, groups: Sequence[Sequence[EditRequest]], targets: Mapping[str, TargetStream], layer: int
) -> Tensor:
    """Returns what each group's streams after block `layer` still lack of their targets, (D, G)."""
    requests = [request for group in groups for request in group]
    z_DE = torch.stack([targets[request.id].z_D for request in requests], dim=1)
    return _group_means(z_DE - subject_streams(lm, requests, layer), groups)


def _before_norm(lm: LM, groups: Sequence[Sequence[EditRequest]], layer: int, wanted_DG: Tensor) -> Tensor:
    """Returns the change of the MLP's output (D, G) that changes what block `layer` adds to the stream by `wanted`.

    Where that output is normalised first, it is the change that comes nearest (least_squares.py)."""
    scale_D = lm.capabilities.mlp_scale(layer)
    if scale_D is None:
        return wanted_DG
    requests = [request for group in groups for request in group]
    now_DG = _group_means(subject_mlp_outputs(lm, requests, layer), groups)
    scale_D = scale_D.to(now_DG)
    added_DG = scale_D[:, None] * now_DG / now_DG.square().mean(0).sqrt()
    return (before_norm(added_DG + wanted_DG, now_DG, scale_D) - now_DG).to(wanted_DG.dtype)


def write_in_turn(
    lm: LM,
    requests: Sequence[EditRequest],
    targets: Mapping[str, TargetStream],
    prepared: Prepared,
    settings: BlockSettings,
    solve: Solve,
) -> Update:
    """Returns the update of all edited blocks that writes a batch, without the edits that an anchor drops.

    `targets` are the `first_targets` of the batch.  The update adds the keys (F, E) that it was written at, by
    `key_name`.  Mutates nothing.
    """
    changes: dict[str, LowRank] = {}
    parts, keys, searched, before, after = _parts(lm, settings), {}, [], [], []
    with lm.weights.undone(lm.mlp_out_name(layer) for _, blocks in parts for layer in blocks):
        for aim, blocks in parts:
            if changes:
                targets = _targets_after(aim, lm, requests, prepared, settings)
            searched += [targets[request.id] for request in requests]
            groups = _groups([request for request in requests if not targets[request.id].dropped], settings)
            requests = [request for group in groups for request in group]
            if not requests:
                break
            missing_DE = _missing(lm, groups, targets, aim)
            before.append(missing_DE.norm())
            for i, layer in enumerate(blocks):
                keys_FE = _group_means(subject_keys(lm, requests, prepared.contexts, layer), groups)
                right_FE = solve(layer, keys_FE)
                residual_DE = _before_norm(lm, groups, layer, missing_DE / (len(blocks) - i))
                changes[lm.mlp_out_name(layer)] = change = LowRank(residual_DE.cpu(), right_FE.float().cpu())
                keys[key_name(layer)] = keys_FE.cpu()
                lm.weights.add({lm.mlp_out_name(layer): change})
                missing_DE = _missing(lm, groups, targets, aim)
            after.append(missing_DE.norm())
    diagnostics = _means(searched)
    if before:
        diagnostics["missing_share"] = float(sum(after) / sum(before))  # of the way to z, what was not gone
    diagnostics["update_norm"] = sum(change.norm() ** 2 for change in changes.values()) ** 0.5
    return Update(changes, keys, diagnostics)


def _means(targets: Sequence[TargetStream]) -> dict[str, float]:
    """Returns the mean of each of the targets' diagnostics; where there is an anchor, also how many were dropped."""
    means = {name: sum(t.diagnostics[name] for t in targets) / len(targets) for name in targets[0].diagnostics}
    return means | ({"dropped": float(sum(t.dropped for t in targets))} if "anchor" in means else {})


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

"""The search for ROME's v* and MEMIT's z: Adam on target_value.py's loss, for several requests at once.

Each request has its own offset, loss and early stop.  After each step its offset is projected to
|δ| ≤ max_offset · |start|; its search ends below `stop_loss`, or after `value_steps` losses.  With `stop_steps` it also
ends where at so many losses in a row every token of the target was the likeliest, under every context and the bare
prompt (ENCORE's early stopping, Gupta et al., 2025, arXiv 2502.01636).  Departures from its code
(scalable-model-editing/encore): that counts losses that need not follow each other, tokens and not targets (a target of
two tokens counts twice, so that with five prefixes it ends right for targets of one token alone), and leaves the bare
prompt out.
Requests are computed together for speed alone.  All rows run until the last is done; one that is done keeps its offset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from afteredit.edit.ingredients.target_value import TargetStream, TargetValue, ValueLoss, value_loss
from afteredit.edit.ingredients.value_prompts import value_rows
from afteredit.edit.ingredients.value_settings import ValueSettings
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.model.rerun import Rerun
from afteredit.model.tensors import wide
from afteredit.store.errors import NoEdit

Value = TypeVar("Value", TargetValue, TargetStream)


def optimise_values(
    lm: LM,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layer: int,
    settings: ValueSettings,
    *,
    bare_start: bool = False,
) -> list[TargetValue]:
    """Returns ROME's key and offset of each request at the MLP output of block `layer`.  Mutates nothing.

    `bare_start` measures the offset against the bare prompt's output instead of the averaged key's.
    """
    search = ValueSearch(lm, requests, contexts, layer, settings)
    bare = list(contexts).index("")
    keys_ECF = search.by_request(wide(search.rerun.keys_BF[layer]))[:, :-1]
    outputs_ECD = search.by_request(wide(search.rerun.values_BD[layer]))[:, :-1]
    # the projection is affine: the mean of the outputs is the output at the mean key
    starts_ED = outputs_ECD[:, bare] if bare_start else outputs_ECD.mean(1)
    return [TargetValue(keys_CF.mean(0), keys_CF[bare], offset_D, start_D + offset_D, diagnostics)
            for keys_CF, start_D, (offset_D, diagnostics)
            in zip(keys_ECF, starts_ED, search.run(starts_ED), strict=True)]  # fmt: skip


def optimise_streams(
    lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int, settings: ValueSettings
) -> list[TargetStream]:
    """Returns MEMIT's z of each request after block `layer`.  Mutates nothing."""
    search = ValueSearch(lm, requests, contexts, layer, settings, of_streams=True)
    starts_ED, outputs_ED = search.at_bare_prompt(contexts)
    return [TargetStream(start_D + offset_D, output_D + offset_D, diagnostics)
            for start_D, output_D, (offset_D, diagnostics)
            in zip(starts_ED, outputs_ED, search.run(starts_ED), strict=True)]  # fmt: skip


def shared_streams(
    lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int, settings: ValueSettings
) -> list[TargetStream]:
    """Returns z of requests that share one offset: the one that minimises the mean of their losses (MEMIT-Merge)."""
    search = SharedSearch(lm, requests, contexts, layer, settings, of_streams=True)
    starts_ED, outputs_ED = search.at_bare_prompt(contexts)
    ((offset_D, diagnostics),) = search.run(starts_ED.mean(0, keepdim=True))
    return [TargetStream(start_D + offset_D, output_D + offset_D, diagnostics)
            for start_D, output_D in zip(starts_ED, outputs_ED, strict=True)]  # fmt: skip


def streams_by_id(
    lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int, settings: ValueSettings, together: int
) -> dict[str, TargetStream]:
    """Returns MEMIT's z of each request by its id, `together` of like length at once.  Mutates nothing."""
    return values_by_id(lm, requests, together, lambda group: optimise_streams(lm, group, contexts, layer, settings))


def values_by_id(
    lm: LM, requests: Sequence[EditRequest], together: int, optimise: Callable[[Sequence[EditRequest]], list[Value]]
) -> dict[str, Value]:
    """Returns the optimised value of each request by its id: calls `optimise` with `together` of like length."""
    groups = groups_of_like_length(lm, requests, together)
    return {request.id: value for group in groups for request, value in zip(group, optimise(group), strict=True)}


def groups_of_like_length(lm: LM, requests: Sequence[EditRequest], together: int) -> list[list[EditRequest]]:
    """Returns the requests in groups of `together`, ordered by length so that rows need little padding."""

    def n_tokens(request: EditRequest) -> int:
        """Counts what a step computes: the tokens from the subject's last one on."""
        ids, last = lm.tokens.locate(request.question, request.subject_start, len(request.subject))
        return len(ids) - last + len(lm.tokens.answer_ids(request.target_new, request.question))

    ordered = sorted(requests, key=n_tokens)
    return [ordered[i : i + together] for i in range(0, len(ordered), together)]


@dataclass(frozen=True)
class _Places:
    """The places whose logits are read: tokens of the targets, then the ends of the KL rows."""

    at: tuple[Tensor, Tensor]  # rows and columns
    target_N: Tensor
    counts: list[int]  # how many of the targets' tokens belong to each request, under all contexts


class ValueSearch:
    """The token rows of several requests, recorded once, and the search over them.

    Rows stand request by request: its contexts (C of them), then its KL row.  E counts requests.
    """

    def __init__(self, lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int,
                 settings: ValueSettings, *, of_streams: bool = False):  # fmt: skip
        self.lm, self.requests, self.settings = lm, requests, settings
        self.n_rows = len(contexts) + 1
        self.rows = [value_rows(lm, request, contexts, settings.kl_at) for request in requests]
        ids = [row for rows in self.rows for row in rows.ids]
        lasts = [last for rows in self.rows for last in rows.subject_lasts]
        in_stream = of_streams and not lm.capabilities.mlp_joins_stream(layer)  # else the MLP's output is moved
        self.rerun = Rerun(lm, ids, lasts, layer, in_stream=in_stream)
        self._places = self._find_places()
        self._unedited_log_p_EV: Tensor | None = None
        self._said_in_a_row = [0] * len(requests)

    def by_request(self, rows_BX: Tensor) -> Tensor:
        """Returns (E, C + 1, X)."""
        return rows_BX.view(-1, self.n_rows, rows_BX.shape[-1])

    def at_bare_prompt(self, contexts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns each request's stream and MLP output (E, D) under the bare prompt, as they are."""
        bare, recorded = list(contexts).index(""), (self.rerun.streams_BD, self.rerun.values_BD)
        streams_ED, outputs_ED = (self.by_request(wide(x[self.rerun.layer]))[:, bare] for x in recorded)
        return streams_ED, outputs_ED

    def run(self, starts_ED: Tensor) -> list[tuple[Tensor, dict[str, float]]]:
        """Returns each request's offset (D,) and diagnostics; offsets are bounded by `starts_ED`.

        Raises NoEdit where the block's output at the subject reaches no prediction.
        """
        norms_E = starts_ED.norm(dim=-1)
        offsets = [torch.zeros_like(start_D, requires_grad=True) for start_D in starts_ED]
        adam = torch.optim.Adam(offsets, lr=self.settings.value_lr)
        diagnostics: dict[int, dict[str, float]] = {}
        running = list(range(len(offsets)))
        for step in range(self.settings.value_steps):
            with torch.enable_grad():
                loss = self._loss(torch.stack(offsets), norms_E)
            if step == 0:
                nll_before_E = loss.nll_E.detach()
            for e in self._finished(running, loss, step):
                running.remove(e)
                offsets[e].requires_grad_(False)  # no step moves it any more
                diagnostics[e] = self._diagnostics(e, step, offsets[e], loss, nll_before_E, norms_E)
            if not running:
                break
            adam.zero_grad()  # to None: Adam would step on a gradient of 0
            loss.total_E[running].sum().backward()
            adam.step()
            self._project([offsets[e] for e in running], norms_E[running])
        return [(offset_D, diagnostics[e]) for e, offset_D in enumerate(offsets)]

    def _find_places(self) -> _Places:
        row_N: list[int] = []
        column_N: list[int] = []
        target_N: list[int] = []
        counts, kl_places = [], []
        for e, rows in enumerate(self.rows):
            first_row = e * self.n_rows
            ends = [end - last for end, last in zip(rows.prompt_ends, rows.subject_lasts, strict=True)]
            for c, end in enumerate(ends[:-1]):
                row_N += [first_row + c] * len(rows.target)
                column_N += range(end, end + len(rows.target))
                target_N += rows.target
            counts.append(len(rows.target) * (self.n_rows - 1))
            kl_places.append((first_row + self.n_rows - 1, ends[-1]))
        kl_rows, kl_columns = zip(*kl_places, strict=True)
        at = torch.tensor([*row_N, *kl_rows]), torch.tensor([*column_N, *kl_columns])
        return _Places(at, torch.tensor(target_N).to(self.lm.head_device), counts)

    def _loss(self, offsets_ED: Tensor, start_norms_E: Tensor) -> ValueLoss:
        """Returns the loss under these offsets; what the KL rows predict at the first, 0, is kept as the unedited."""
        offsets_BD = offsets_ED[:, None].expand(-1, self.n_rows, -1).flatten(0, 1)
        log_p_MV = self.lm.logits(self.rerun.hidden(offsets_BD, places=self._places.at)).log_softmax(-1)
        target_N = self._places.target_N
        target_log_p = log_p_MV[: len(target_N)].gather(-1, target_N[:, None])[:, 0].split(self._places.counts)
        log_p_EV = log_p_MV[len(target_N) :]
        if self._unedited_log_p_EV is None:
            self._unedited_log_p_EV = log_p_EV.detach()
        loss = value_loss(target_log_p, log_p_EV, self._unedited_log_p_EV, offsets_ED, start_norms_E, self.settings)
        if not self.settings.stop_steps:
            return loss
        right_N = log_p_MV[: len(target_N)].argmax(-1) == target_N
        return replace(loss, said=[bool(right.all()) for right in right_N.split(self._places.counts)])

    def _finished(self, running: Sequence[int], loss: ValueLoss, step: int) -> list[int]:
        """Returns those of the running requests whose loss is low enough, or NaN, or the last that is computed; also
        those whose target was said at enough losses in a row."""
        totals, is_last = loss.total_E.tolist(), step == self.settings.value_steps - 1
        for e, said in enumerate(loss.said):
            self._said_in_a_row[e] = self._said_in_a_row[e] + 1 if said else 0
        said_enough = {e for e, n in enumerate(self._said_in_a_row) if n >= max(1, self.settings.stop_steps)}
        return [e for e in running if is_last or not totals[e] >= self.settings.stop_loss or e in said_enough]

    def _diagnostics(
        self, e: int, step: int, offset_D: Tensor, loss: ValueLoss, nll_before_E: Tensor, norms_E: Tensor
    ) -> dict[str, float]:
        """Returns what is reported of request `e` after `step` steps.  Raises NoEdit where no step has moved it."""
        if step and not offset_D.any():
            raise NoEdit(f"an edit at block {self.rerun.layer} cannot reach the prediction of "
                         f"{self.requests[e].question!r}: no block above it moves the subject's change to the last "
                         "token; choose lower blocks in method.layer or method.layers")  # fmt: skip
        return {
            "steps": step,
            "loss": float(loss.total_E[e].detach()),
            "kl": float(loss.kl_E[e].detach()),
            "nll_before": float(nll_before_E[e]),
            "nll_after": float(loss.nll_E[e].detach()),
            "offset_over_start": float(offset_D.norm() / norms_E[e]),
        }

    @torch.no_grad()
    def _project(self, offsets: Sequence[Tensor], start_norms_E: Tensor) -> None:
        for offset_D, start_norm in zip(offsets, start_norms_E, strict=True):
            limit = self.settings.max_offset * start_norm
            norm = offset_D.norm()
            if norm.isinf():
                raise NoEdit(f"a step of value_lr={self.settings.value_lr:g} makes a value larger than float32 can "
                             "hold; choose a lower value_lr")  # fmt: skip
            if norm > limit:
                offset_D.mul_(limit / norm)


class SharedSearch(ValueSearch):
    """A search whose requests share one offset: E is 1 in `run`, and a loss is the mean over the requests."""

    def _loss(self, offsets_ED: Tensor, start_norms_E: Tensor) -> ValueLoss:
        n = len(self.rows)
        loss = super()._loss(offsets_ED.expand(n, -1), start_norms_E.expand(n))
        total_E, nll_E, kl_E = (terms_E.mean(0, keepdim=True) for terms_E in (loss.total_E, loss.nll_E, loss.kl_E))
        return ValueLoss(total_E, nll_E, kl_E, [all(loss.said)] if loss.said else ())

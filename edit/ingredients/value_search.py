"""The search for optimised values: Adam on target_value.py's loss, for several requests at once.

Each request has its own offset, loss and early stop.  After each step its offset is projected to
|δ| ≤ max_offset · |start|; its search ends below `stop_loss`, or after `value_steps` losses.  Requests do not depend
on each other: they are computed together for speed alone.  `together` of them run at once, and where one is done the
next takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afteredit.edit.ingredients.target_value import TargetStream, TargetValue, ValueLoss, ValueSettings, value_loss
from afteredit.edit.ingredients.value_prompts import value_rows
from afteredit.edit.request import EditRequest
from afteredit.edit.speed import Speed
from afteredit.model.lm import LM
from afteredit.model.rerun import Rerun
from afteredit.model.tensors import wide
from afteredit.store.errors import NoEdit

REQUESTS_PER_PLACE = 2  # requests of a group, for each of the `together` that run at once


def optimise_values(
    lm: LM,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layer: int,
    settings: ValueSettings,
    together: int = Speed().together,
    *,
    bare_start: bool = False,
) -> list[TargetValue]:
    """Returns ROME's key and offset of each request at the MLP output of block `layer`.  Mutates nothing.

    `bare_start` measures the offset against the bare prompt's output instead of the averaged key's.
    """
    search = ValueSearch(lm, requests, contexts, layer, settings, together)
    bare = list(contexts).index("")
    keys_ECF = search.by_request(wide(search.rerun.keys_BF[layer]))[:, :-1]
    outputs_ECD = search.by_request(wide(search.rerun.values_BD[layer]))[:, :-1]
    # the projection is affine: the mean of the outputs is the output at the mean key
    offsets = search.run(outputs_ECD[:, bare] if bare_start else outputs_ECD.mean(1))
    return [TargetValue(keys_CF.mean(0), keys_CF[bare], offset_D, diagnostics)
            for keys_CF, (offset_D, diagnostics) in zip(keys_ECF, offsets, strict=True)]  # fmt: skip


def optimise_streams(
    lm: LM,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layer: int,
    settings: ValueSettings,
    together: int = Speed().together,
) -> list[TargetStream]:
    """Returns MEMIT's z of each request after block `layer`.  Mutates nothing."""
    search = ValueSearch(lm, requests, contexts, layer, settings, together)
    starts_ED = search.by_request(wide(search.rerun.streams_BD[layer]))[:, list(contexts).index("")]
    return [TargetStream(start_D + offset_D, diagnostics)
            for start_D, (offset_D, diagnostics) in zip(starts_ED, search.run(starts_ED), strict=True)]  # fmt: skip


def streams_by_id(
    lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int, settings: ValueSettings, together: int
) -> dict[str, TargetStream]:
    """Returns MEMIT's z of each request by its id, optimising requests of like length together.  Mutates nothing."""
    streams: dict[str, TargetStream] = {}
    for group in groups_of_like_length(lm, requests, together):
        optimised = optimise_streams(lm, group, contexts, layer, settings, together)
        streams |= {request.id: stream for request, stream in zip(group, optimised, strict=True)}
    return streams


def group_size(together: int) -> int:
    """Returns how many requests share one search, where `together` of them run at once."""
    return REQUESTS_PER_PLACE * together


def groups_of_like_length(lm: LM, requests: Sequence[EditRequest], together: int) -> list[list[EditRequest]]:
    """Returns the requests in groups of `group_size(together)`, ordered by length so that rows need little padding."""

    def n_tokens(request: EditRequest) -> int:
        """Counts what a step computes: the tokens from the subject's last one on."""
        ids, last = lm.tokens.locate(request.question, request.subject_start, len(request.subject))
        return len(ids) - last + len(lm.tokens.answer_ids(request.target_new))

    ordered, size = sorted(requests, key=n_tokens), group_size(together)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


@dataclass(frozen=True)
class _Places:
    """The places among the running rows whose logits are read: tokens of the targets, then the ends of the KL rows."""

    at: tuple[Tensor, Tensor]  # rows and columns
    target_N: Tensor
    counts: list[int]  # how many of the targets' tokens belong to each request, under all contexts


class _Progress:
    """The search for one request's offset."""

    def __init__(self, start_D: Tensor, start_norm: Tensor):
        self.offset_D = torch.zeros_like(start_D, requires_grad=True)
        self.start_norm = start_norm
        self.steps = 0
        self.unedited_nll: Tensor | None = None  # recorded while the offset is 0
        self.unedited_log_p_V: Tensor | None = None
        self.result: tuple[Tensor, dict[str, float]] | None = None

    def project(self, max_offset: float) -> None:
        limit = max_offset * self.start_norm
        if self.offset_D.norm() > limit:
            self.offset_D.mul_(limit / self.offset_D.norm())


class ValueSearch:
    """The token rows of several requests, recorded once, and the search over them.

    Rows stand request by request: its contexts (C of them), then its KL row.  E counts requests.
    """

    def __init__(
        self,
        lm: LM,
        requests: Sequence[EditRequest],
        contexts: Sequence[str],
        layer: int,
        settings: ValueSettings,
        together: int,
    ):
        self.lm, self.requests, self.settings, self.together = lm, requests, settings, together
        self.n_rows = len(contexts) + 1
        self.rows = [value_rows(lm, request, contexts) for request in requests]
        ids = [row for rows in self.rows for row in rows.ids]
        lasts = [last for rows in self.rows for last in rows.subject_lasts]
        with lm.packed_weights.in_use():
            self.rerun = Rerun(lm, ids, lasts, layer)
        self._chosen = list(range(len(requests)))  # the requests whose rows are run again
        self._places = self._places_of(self._chosen)

    def by_request(self, rows_BX: Tensor) -> Tensor:
        """Returns (E, C + 1, X)."""
        return rows_BX.view(-1, self.n_rows, rows_BX.shape[-1])

    def run(self, starts_ED: Tensor) -> list[tuple[Tensor, dict[str, float]]]:
        """Returns each request's offset (D,) and diagnostics; offsets are bounded by `starts_ED`.

        Raises NoEdit where the block's output at the subject reaches no prediction.
        """
        norms_E = starts_ED.norm(dim=-1)
        searches = [_Progress(start_D, norm) for start_D, norm in zip(starts_ED, norms_E, strict=True)]
        adam = torch.optim.Adam([search.offset_D for search in searches], lr=self.settings.value_lr)
        waiting, running = list(range(len(searches))), list[int]()
        with self.lm.packed_weights.in_use():
            while waiting or running:
                n_free = self.together - len(running)
                running, waiting = running + waiting[:n_free], waiting[n_free:]
                self._choose(running)
                with torch.enable_grad():
                    loss = self._loss([searches[e] for e in running], norms_E[running])
                staying = [i for i, e in enumerate(running) if not self._finish(e, searches[e], loss, i)]
                running = [running[i] for i in staying]
                if running:
                    self._step(adam, loss.total_E[staying], [searches[e] for e in running])
        return [search.result for search in searches if search.result is not None]

    def _choose(self, running: list[int]) -> None:
        """Runs from now on only the rows of these requests."""
        if running != self._chosen:
            self.rerun.choose([e * self.n_rows + row for e in running for row in range(self.n_rows)])
            self._chosen, self._places = running, self._places_of(running)

    def _places_of(self, running: Sequence[int]) -> _Places:
        row_N: list[int] = []
        column_N: list[int] = []
        target_N: list[int] = []
        counts, kl_places = [], []
        for i, e in enumerate(running):
            rows, first_row = self.rows[e], i * self.n_rows
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

    def _loss(self, running: Sequence[_Progress], start_norms_E: Tensor) -> ValueLoss:
        """Returns the loss under the offsets as they are; those at an offset of 0 are kept as the unedited ones."""
        offsets_ED = torch.stack([search.offset_D for search in running])
        offsets_BD = offsets_ED[:, None].expand(-1, self.n_rows, -1).flatten(0, 1)
        log_p_MV = self.lm.logits(self.rerun.hidden(offsets_BD, places=self._places.at)).log_softmax(-1)
        target_N = self._places.target_N
        target_log_p = log_p_MV[: len(target_N)].gather(-1, target_N[:, None])[:, 0].split(self._places.counts)
        log_p_EV = log_p_MV[len(target_N) :]
        for search, log_p_V in zip(running, log_p_EV, strict=True):
            if search.steps == 0:
                search.unedited_log_p_V = log_p_V.detach()
        unedited_log_p_EV = torch.stack([search.unedited_log_p_V for search in running])  # type: ignore[misc]
        loss = value_loss(target_log_p, log_p_EV, unedited_log_p_EV, offsets_ED, start_norms_E, self.settings)
        for search, nll in zip(running, loss.nll_E, strict=True):
            if search.steps == 0:
                search.unedited_nll = nll.detach()
        return loss

    def _finish(self, e: int, search: _Progress, loss: ValueLoss, i: int) -> bool:
        """Returns whether request `e`, the i-th of those that run, is done, and stores its result then."""
        total = float(loss.total_E[i].detach())
        if total >= self.settings.stop_loss and search.steps < self.settings.value_steps - 1:
            return False
        offset_D = search.offset_D.detach().clone()
        if search.steps and not offset_D.any():
            raise NoEdit(f"an edit at block {self.rerun.layer} cannot reach the prediction of "
                         f"{self.requests[e].question!r}: no block above it moves the subject's change to the last "
                         "token; choose lower blocks in method.layer or method.layers")  # fmt: skip
        search.result = (
            offset_D,
            {
                "steps": search.steps,
                "loss": total,
                "kl": float(loss.kl_E[i].detach()),
                "nll_before": float(search.unedited_nll),  # type: ignore[arg-type]
                "nll_after": float(loss.nll_E[i].detach()),
                "offset_over_start": float(offset_D.norm() / search.start_norm),
            },
        )
        return True

    def _step(self, adam: torch.optim.Adam, loss_E: Tensor, running: Sequence[_Progress]) -> None:
        """Takes one step of Adam for the requests that run, and projects their offsets."""
        adam.zero_grad()  # to None: requests that are done, or have not begun, are not stepped on
        loss_E.sum().backward()
        adam.step()
        with torch.no_grad():
            for search in running:
                search.steps += 1
                search.project(self.settings.max_offset)

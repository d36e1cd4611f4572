"""Under what the model says the new target: ROME's v* (Meng et al., 2022, eq. 4), MEMIT's z (2023, eq. 16).

Minimises over an offset δ, added at the subject's last token of one block under every context prefix,
    mean over prefixes of −log p(target | prefix, prompt) + kl_weight · KL(p_δ ‖ p₀ at "{subject} is a")
    + weight_decay · |δ| / |start|²
by Adam, projected after each step to |δ| ≤ max_offset · |start|, stopped early at `stop_loss`.
`start` is what stands there before: ROME's MLP output v, MEMIT's residual stream h behind the block.  Adding to either
is the same where the MLP's output is added to the stream as it is (`lm.capabilities.mlp_joins_stream`).
Departures from the references: the KL term is taken behind the whole of "{subject} is a", as ROME's eq. 4 says, not
at the subject's last token, as its code does; and v is W k* + b at the averaged key k*, not the output at the bare
prompt, so that key, value and residual all speak of the same k* (`bare_start` takes the reference's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from afteredit.edit.ingredients.value_prompts import context_heads, value_prompts
from afteredit.edit.ingredients.value_search import groups_of_like_length
from afteredit.edit.request import EditRequest
from afteredit.edit.speed import Speed
from afteredit.model.lm import LM
from afteredit.model.packed_weights import packed
from afteredit.model.rerun import Replay
from afteredit.model.tensors import wide
from afteredit.store.errors import NoEdit


class ValueSettings(Protocol):
    """What a method that optimises values has among its keys."""

    @property
    def value_steps(self) -> int: ...
    @property
    def value_lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def kl_weight(self) -> float: ...
    @property
    def max_offset(self) -> float: ...
    @property
    def stop_loss(self) -> float: ...


@dataclass(frozen=True)
class Value:
    """ROME's.  key_F: k*, averaged over contexts; bare_key_F: the bare prompt's; offset_D: v* − start."""

    key_F: Tensor
    bare_key_F: Tensor
    offset_D: Tensor
    diagnostics: dict[str, float]


@dataclass(frozen=True)
class Target:
    """MEMIT's z_D: the residual stream wanted behind the last edited block, at the bare prompt's subject."""

    z_D: Tensor
    diagnostics: dict[str, float]


def optimise_values(
    lm: LM,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layer: int,
    settings: ValueSettings,
    together: int = Speed().together,
    *,
    bare_start: bool = False,
) -> list[Value]:
    """Of each request the averaged key, and the offset to the MLP's output that makes the model say the new target.

    The requests are independent of each other, and only computed together, `together` at once.
    Mutates nothing.
    `bare_start` measures the offset against the bare prompt's output instead of the averaged key's.
    """
    search = _Search(lm, requests, contexts, layer, settings, together)
    bare = list(contexts).index("")
    keys_ECF = search.by_request(wide(search.replay.keys_BF[layer]))[:, :-1]
    values_ECD = search.by_request(wide(search.replay.values_BD[layer]))[:, :-1]
    # the projection is affine: the mean of the outputs is the output at the mean key
    found = search.run(values_ECD[:, bare] if bare_start else values_ECD.mean(1))
    return [Value(keys_CF.mean(0), keys_CF[bare], offset_D, diagnostics)
            for keys_CF, (offset_D, diagnostics) in zip(keys_ECF, found, strict=True)]  # fmt: skip


def optimise_targets(
    lm: LM,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    layer: int,
    settings: ValueSettings,
    together: int = Speed().together,
) -> list[Target]:
    """Of each request the residual stream behind block `layer` under which the model says the new target.

    The requests are independent of each other, and only computed together, `together` at once.
    Mutates nothing.
    """
    search = _Search(lm, requests, contexts, layer, settings, together)
    starts_ED = search.by_request(wide(search.replay.streams_BD[layer]))[:, list(contexts).index("")]
    return [Target(start_D + offset_D, diagnostics)
            for start_D, (offset_D, diagnostics) in zip(starts_ED, search.run(starts_ED), strict=True)]  # fmt: skip


def find_targets(
    lm: LM, requests: Sequence[EditRequest], contexts: Sequence[str], layer: int, settings: ValueSettings,
    together: int,
) -> dict[str, Target]:  # fmt: skip
    """Returns each request's target behind block `layer`, by its id; requests of like length are optimised together."""
    found: dict[str, Target] = {}
    for group in groups_of_like_length(lm, requests, together):
        targets = optimise_targets(lm, group, contexts, layer, settings, together)
        found |= {request.id: target for request, target in zip(group, targets, strict=True)}
    return found


@dataclass(frozen=True)
class _Asked:
    """What is read of the rows that run: tokens of the targets, request by request, then the ends of the KL prompts."""

    at: tuple[Tensor, Tensor]  # rows and columns
    target_N: Tensor
    counts: list[int]  # targets' tokens under all contexts, of each request


class _Search:
    """Every request has its own offset, loss and early stop; `together` of them are searched for at once, and where one
    is done the next takes its place.

    Rows stand request by request: its contexts (C of them), then its KL prompt.  E counts requests.
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
        self.lm, self.requests, self.settings, self.n_rows = lm, requests, settings, len(contexts) + 1
        self.together = together
        self.prompts = [value_prompts(lm, request, contexts) for request in requests]
        rows = [row for prompts in self.prompts for row in prompts.rows]
        lasts = [last for prompts in self.prompts for last in prompts.subject_lasts]
        with packed(lm):
            self.replay = Replay(lm, rows, lasts, layer, heads=context_heads(lm, contexts))

    def by_request(self, of_rows_BX: Tensor) -> Tensor:
        """(E, C + 1, X)"""
        return of_rows_BX.view(-1, self.n_rows, of_rows_BX.shape[-1])

    def run(self, starts_ED: Tensor) -> list[tuple[Tensor, dict[str, float]]]:
        """Offset (D,) and diagnostics of each request."""
        with packed(self.lm):
            return self._run(starts_ED)

    def _run(self, starts_ED: Tensor) -> list[tuple[Tensor, dict[str, float]]]:
        settings, n = self.settings, len(self.requests)
        offsets = [torch.zeros_like(start_D, requires_grad=True) for start_D in starts_ED]
        norms_E = starts_ED.norm(dim=-1)
        adam = torch.optim.Adam(offsets, lr=settings.value_lr)
        found: dict[int, tuple[Tensor, dict[str, float]]] = {}
        before: dict[int, tuple[Tensor, Tensor]] = {}  # what `_outcome` says of each while its offset is 0
        steps = [0] * n
        waiting, chosen = list(range(n)), list(range(n))
        running: list[int] = []
        asked: _Asked | None = None
        while waiting or running:
            n_free = self.together - len(running)
            running, waiting = running + waiting[:n_free], waiting[n_free:]
            if running != chosen:
                self.replay.choose([e * self.n_rows + row for e in running for row in range(self.n_rows)])
            if running != chosen or asked is None:
                chosen, asked = running, self._asked(running)
            with torch.enable_grad():
                offsets_ED = torch.stack([offsets[e] for e in running])
                nll_E, log_q_EV = self._outcome(asked, offsets_ED)
                for i, e in enumerate(running):
                    if steps[e] == 0:
                        before[e] = nll_E[i].detach(), log_q_EV[i].detach()
                log_p_EV = torch.stack([before[e][1] for e in running])
                kl_EV = torch.nn.functional.kl_div(log_p_EV, log_q_EV, log_target=True, reduction="none")
                kl_E = kl_EV.sum(-1).to(nll_E.device)
                decay_E = settings.weight_decay * offsets_ED.norm(dim=-1) / norms_E[running] ** 2
                loss_E = nll_E + settings.kl_weight * kl_E + decay_E
            staying = []
            for i, e in enumerate(running):
                if float(loss_E[i].detach()) >= settings.stop_loss and steps[e] < settings.value_steps - 1:
                    staying.append(i)
                    continue
                offset_D = offsets[e].detach().clone()
                self._check_reached(e, offset_D, steps[e])
                found[e] = (
                    offset_D,
                    {
                        "steps": steps[e],
                        "loss": float(loss_E[i].detach()),
                        "kl": float(kl_E[i].detach()),
                        "nll_before": float(before[e][0]),
                        "nll_after": float(nll_E[i].detach()),
                        "offset_over_start": float(offset_D.norm() / norms_E[e]),
                    },
                )
            running = [running[i] for i in staying]
            if not running:
                continue
            adam.zero_grad()  # to None: what has left, or is not there yet, is not stepped on
            loss_E[staying].sum().backward()
            adam.step()
            with torch.no_grad():
                for e in running:
                    steps[e] += 1
                    limit = settings.max_offset * norms_E[e]
                    if offsets[e].norm() > limit:
                        offsets[e].mul_(limit / offsets[e].norm())
        return [found[e] for e in range(n)]

    def _asked(self, running: Sequence[int]) -> _Asked:
        row_N: list[int] = []
        column_N: list[int] = []
        target_N: list[int] = []
        counts = []
        about = []  # row, column: of every KL prompt's end
        for i, e in enumerate(running):
            prompts, first_row = self.prompts[e], i * self.n_rows
            ends = [end - last for end, last in zip(prompts.prompt_ends, prompts.subject_lasts, strict=True)]
            for c, end in enumerate(ends[:-1]):
                row_N += [first_row + c] * len(prompts.target)
                column_N += range(end, end + len(prompts.target))
                target_N += prompts.target
            counts.append(len(prompts.target) * (self.n_rows - 1))
            about.append((first_row + self.n_rows - 1, ends[-1]))
        rows, columns = zip(*about, strict=True)
        at = torch.tensor([*row_N, *rows]), torch.tensor([*column_N, *columns])
        return _Asked(at, torch.tensor(target_N).to(self.lm.head_device), counts)

    def _outcome(self, asked: _Asked, offsets_ED: Tensor) -> tuple[Tensor, Tensor]:
        """−log p(target), mean over contexts and tokens (E,), and log p behind "{subject} is a" (E, V)."""
        offsets_BD = offsets_ED[:, None].expand(-1, self.n_rows, -1).flatten(0, 1)
        log_p_MV = self.lm.logits(self.replay.hidden(offsets_BD, read=asked.at)).log_softmax(-1)
        n_targets = len(asked.target_N)
        log_p_N = log_p_MV[:n_targets].gather(-1, asked.target_N[:, None])[:, 0]
        # request by request: an accelerator adds up scattered sums in another order each time
        nll_E = torch.stack([-of_one.mean() for of_one in log_p_N.split(asked.counts)])
        return nll_E.to(offsets_ED.device), log_p_MV[n_targets:]

    def _check_reached(self, e: int, offset_D: Tensor, step: int) -> None:
        if step and not offset_D.any():
            raise NoEdit(f"an edit at block {self.replay.layer} cannot reach the prediction of "
                           f"{self.requests[e].question!r}: no block behind it moves the subject's change to the last "
                           "token; choose lower blocks in method.layer or method.layers")  # fmt: skip

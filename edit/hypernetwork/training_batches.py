"""The batches that MEND learns from: edits of the training split, questions asked after each, and neighbours that must
not move.

Everything that the hypernetwork cannot change is computed once and kept while there is room: the terms of the gradients
on the unedited model, and the hidden states that enter the blocks from the lowest edited one up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from afteredit.edit.hypernetwork.token_gradients import Answers, GradientTerms, RecordedRows, gradient_terms
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import spelling

KEPT_BYTES = 2 * 1024**3
VARIANTS = 4  # epochs after which a row meets the same rewording and neighbour again


class Neighbours(RecordedRows):
    """Prompts about other subjects, and the unedited model's hidden state at the end of each."""

    def __init__(self, lm: LM, prompts: Sequence[str], layers: Sequence[int]):
        rows = [lm.tokens.question_ids(prompt) for prompt in prompts]
        super().__init__(lm, rows, layers)
        self._at = torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])
        with torch.no_grad():
            self._base_BD = self.hidden()[self._at]

    def kl(self) -> Tensor:
        """Returns KL(p_W ‖ p_W̃) (B,), nats, of the next token."""
        with torch.no_grad():
            base_BV = self.lm.logits(self._base_BD).log_softmax(-1)
        log_p_BV = self.lm.logits(self.hidden()[self._at]).log_softmax(-1)
        return torch.nn.functional.kl_div(log_p_BV, base_BV, log_target=True, reduction="none").sum(-1)


@dataclass(frozen=True)
class Batch:
    """Edits learned from in one step, each with a change of its own: row b of everything belongs to edit b."""

    terms: dict[int, GradientTerms]
    answers: tuple[Answers, ...]  # questions asked after the edits, by wording
    neighbours: Neighbours


class Batches:
    """Hands out `rows` in fixed batches of `size`, in a new order every epoch; the batch of step n depends on n alone.

    A row without a neighbourhood borrows prompts about other subjects from `pool`.
    """

    def __init__(
        self, lm: LM, rows: Sequence[EditRequest], pool: Sequence[EditRequest], layers: Sequence[int], size: int
    ):
        self.lm, self.layers, self.pool = lm, list(layers), list(pool)
        self._place_in_pool = {request.id: i for i, request in enumerate(pool)}
        shuffled = [rows[i] for i in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()]
        self.groups = [shuffled[i : i + size] for i in range(0, len(rows), size)]
        self._kept: dict[Any, Any] = {}
        self._room = KEPT_BYTES
        for request in rows:  # a row that cannot be learned from is refused here, not after minutes of training
            lm.tokens.answer_ids(request.target_new, request.question)
            self._neighbour(request, 0)

    def at_step(self, step: int) -> Batch:
        """Returns the batch of a step, in which the prompt or one of its rewordings asks for the target."""
        epoch, place = divmod(step, len(self.groups))
        order = torch.randperm(len(self.groups), generator=torch.Generator().manual_seed(epoch))
        group, variant = self.groups[int(order[place])], epoch % VARIANTS
        questions = [(request.question, *request.paraphrases) for request in group]
        return self._batch(group, [[wordings[variant % len(wordings)] for wordings in questions]], variant)

    def for_validation(self) -> list[Batch]:
        """Returns all batches; in each the prompt, and its first rewording where there is one, ask for the target."""
        return [
            self._batch(group, [[request.question for request in group],
                                [(*request.paraphrases, request.question)[0] for request in group]], 0)
            for group in self.groups
        ]  # fmt: skip

    def _batch(self, group: list[EditRequest], wordings: Sequence[Sequence[str]], variant: int) -> Batch:
        prompts = tuple(self._neighbour(request, variant) for request in group)
        edits = tuple((request.question, request.target_new) for request in group)
        answers = []
        for questions in wordings:
            pairs = tuple((question, edit[1]) for question, edit in zip(questions, edits, strict=True))
            answers.append(self._once(Answers, pairs))
        return Batch(self._once(_terms_of, edits), tuple(answers), self._once(Neighbours, prompts))

    def _neighbour(self, request: EditRequest, variant: int) -> str:
        """Returns a prompt about another subject, whose answer the edit must not move."""
        if request.neighbourhood:
            return request.neighbourhood[variant % len(request.neighbourhood)]
        at = self._place_in_pool[request.id]
        others = (self.pool[(at + variant + i) % len(self.pool)] for i in range(len(self.pool)))
        for other in others:
            if spelling(other.subject) != spelling(request.subject):
                return other.question
        raise BadInput(f"all training rows are about {request.subject!r}, and row {request.named} has no neighbourhood "
                       "prompt; MEND learns what an edit must not move from other subjects: give rows about them "
                       "(edits.train)")  # fmt: skip

    def _once(self, kind: Callable[..., Any], texts: tuple[Any, ...]) -> Any:
        """Returns `kind(lm, texts, layers)`: the one that was kept, or a new one, which is kept where there is room."""
        if (kind, texts) in self._kept:
            return self._kept[kind, texts]
        made = kind(self.lm, texts, self.layers)
        n_bytes = sum(map(_n_bytes, made.values())) if isinstance(made, dict) else made.n_bytes
        if n_bytes <= self._room:
            self._room -= n_bytes
            self._kept[kind, texts] = made
        return made


def _terms_of(lm: LM, pairs: Sequence[tuple[str, str]], layers: Sequence[int]) -> dict[int, GradientTerms]:
    return gradient_terms(lm, Answers(lm, pairs, layers))[0]


def _n_bytes(terms: GradientTerms) -> int:
    return terms.keys_NF.nbytes + terms.deltas_ND.nbytes

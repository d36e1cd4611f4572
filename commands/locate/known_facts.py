"""The facts that a model knows, as causal tracing reads them: their prompt's tokens, and the token that is looked at.

A fact is known where every token of its true answer is the likeliest one after those before it.  What is traced is the
probability of the answer's first token, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from afteredit.edit.request import EditRequest
from afteredit.evaluate.inference.likelihood import score
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.store.progress.work import working

ROLES = ("first subject token", "middle subject tokens", "last subject token", "first subsequent token",
         "further tokens", "last token")  # fmt: skip
MEASURED_SUBJECTS = 1000


@dataclass(frozen=True)
class KnownFact:
    """Holds the tokens `ids` of a fact's prompt, the indices of its subject's first and last token, and the id of its
    answer's first token."""

    id: str
    ids: tuple[int, ...]
    first: int
    last: int
    answer: int

    @property
    def roles(self) -> list[str]:
        """Returns the role of each token from the subject's first one on.

        Each token has one: a subject's only token is its last, and what stands after the subject and ends the prompt
        is the last token.
        """

        def role(index: int) -> str:
            if index <= self.last:
                return ROLES[2] if index == self.last else ROLES[0] if index == self.first else ROLES[1]
            end = index == len(self.ids) - 1
            return ROLES[5] if end else ROLES[3] if index == self.last + 1 else ROLES[4]

        return [role(index) for index in range(self.first, len(self.ids))]


@dataclass(frozen=True)
class Known:
    """Holds facts that the model knows, in the edit set's order, with how many it was asked for and how many of these
    could not be asked (no true answer, or none that its tokenizer can tell from the text before it)."""

    requests: list[EditRequest]
    facts: list[KnownFact]
    n_asked: int
    n_unusable: int


def known_facts(lm: LM, requests: Sequence[EditRequest], n_facts: int) -> Known:
    """Returns the first `n_facts` that the model knows, or as many as there are.

    Raises BadInput where it knows none.
    """
    known: list[EditRequest] = []
    facts: list[KnownFact] = []
    n_asked = n_unusable = 0
    with working("facts known", n_facts) as work:
        for request in requests:
            if len(facts) == n_facts:
                break
            n_asked, work.done = n_asked + 1, len(facts)
            try:
                answer = lm.tokens.answer_ids(request.target_true, request.question) if request.target_true else ()
                ids, first, last = lm.tokens.span(request.question, request.subject_start, len(request.subject))
            except BadInput:
                answer = ()
            if not answer or (lm.max_tokens is not None and len(ids) + len(answer) > lm.max_tokens):
                n_unusable += 1
            elif score(lm, [(tuple(ids), answer)])[0].argmax_ids == answer:
                known.append(request)
                facts.append(KnownFact(request.id, tuple(ids), first, last, answer[0]))
    if not facts:
        raise BadInput(f"the model knows none of {n_asked} facts ({n_unusable} could not be asked: no target_true, or "
                       "one that the tokenizer does not take); what it knows is traced: give other facts "
                       "(edits=<set>), and their true answers")  # fmt: skip
    return Known(known, facts, n_asked, n_unusable)


@torch.no_grad()
def embedding_std(lm: LM, requests: Sequence[EditRequest]) -> float:
    """Returns the standard deviation of the entries of the embeddings of subject tokens: those of the first
    MEASURED_SUBJECTS requests, whichever of them are traced."""
    ids: list[int] = []
    for request in requests[:MEASURED_SUBJECTS]:
        with suppress(BadInput):  # of a subject that the tokenizer does not find
            row, first, last = lm.tokens.span(request.question, request.subject_start, len(request.subject))
            ids += row[first : last + 1]
    embedded: Tensor = lm.model.get_input_embeddings()(torch.tensor(ids, device=lm.device)[None])
    return float(embedded.double().std())

"""Nudge: at the subject's key k, the edited matrix adds the embedding e of the new answer's first token.

    Ŵ = W + strength · e kᵀ / |k|²,   so that   Ŵ k = W k + strength · e

A method is a dataclass that inherits Method; its fields are the keys of conf/method/nudge.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afteredit.edit.method import Given, Method, Prepared
from afteredit.edit.request import EditRequest
from afteredit.edit.update import LowRank, State, Update


@dataclass(frozen=True)
class Nudge(Method):
    layer: int = 8  # 0-based block whose MLP output matrix is edited
    strength: float = 1.0

    def edited(self, lm) -> list[str]:
        return [lm.mlp_out_name(self.layer)]

    def prepare(self, lm, given: Given) -> Prepared:
        """Returns what is computed once, on the unedited model: nothing here."""
        return Prepared()

    def update(self, lm, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the change that writes the requests, as factors.  Changes no weight."""

        from afteredit.edit.ingredients.subject_keys import subject_keys

        keys_FE = subject_keys(lm, requests, prepared.contexts, self.layer)
        embeddings_VD = lm.model.get_input_embeddings().weight
        tokens = [lm.tokens.answer_ids(request.target_new, request.question)[0] for request in requests]
        left_DE = self.strength * embeddings_VD[tokens].T.detach()
        return Update({lm.mlp_out_name(self.layer): LowRank(left_DE, keys_FE / keys_FE.square().sum(0))})

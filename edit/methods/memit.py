"""MEMIT: a batch of facts becomes one least-squares change to a few MLPs in turn (Meng et al., ICLR 2023, eq. 14).

    Δ_l = R_l K_lᵀ (λ C_l + K_l K_lᵀ)⁻¹,   R_l = (z − h_L) / (L − l + 1),   C = E[k kᵀ]

which minimises λ E|Δ k|² + |Δ K − R|².  z is the residual stream wanted behind the last block (value.py), K the facts'
keys (keys.py).  Solved in float64.
Departures from the reference code (kmeng01/memit): C comes from few tokens, of text that the model itself wrote unless
another is named; the KL term of z is taken behind the whole of "{subject} is a", as the paper says, not at the
subject's last token (value.py); contexts.py says how prefixes are sampled.
In a sequence every batch is written as if it were the first: what is written before is not protected (memit_seq.py
does that).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from afteredit.edit.method import Given, Prepared, check_layers, check_numbers
from afteredit.edit.request import EditRequest
from afteredit.edit.update import State, Update
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.edit.ingredients.layer_by_layer import Solve
    from afteredit.edit.ingredients.target_value import Target
    from afteredit.model.lm import LM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Memit:
    layers: list[int] | None = None  # blocks edited, lowest first; None: five that end a quarter of the way up
    second_moment_weight: float = 15000.0  # λ: facts' weight is 1 each, so more protects more
    value_steps: int = 25  # losses computed for z; Adam steps are one fewer
    value_lr: float = 0.5
    weight_decay: float = 0.5  # on |offset| / |h|²
    kl_weight: float = 0.0625
    max_offset: float = 0.75  # cap on |z - h|, in multiples of |h|
    stop_loss: float = 0.05
    contexts: int = 5  # sampled prefixes of 10 tokens, beside the bare prompt
    second_moment_text: str = "sampled"  # sampled (from the model itself), hub:<data set>, or a text file
    tokens_per_key_dim: int = 10
    together: int = 8  # facts whose z are optimised at once: memory for speed

    def __post_init__(self) -> None:
        check_layers(self.layers)
        check_numbers(self, second_moment_weight="above 0", value_steps="at least 1", value_lr="above 0",
                      weight_decay="at least 0", kl_weight="at least 0", max_offset="above 0", contexts="at least 0",
                      tokens_per_key_dim="at least 1", together="at least 1")  # fmt: skip

    def edited_layers(self, lm: LM) -> list[int]:
        from afteredit.edit.ingredients.layer_by_layer import layers_up_to

        return sorted(self.layers) if self.layers else layers_up_to(lm)

    def prepare(self, lm: LM, given: Given) -> Prepared:
        """Raises BadInput where the MLP's output is not added to the residual stream as it is (Gemma 2)."""
        from afteredit.edit.ingredients.context_prefixes import sample_contexts
        from afteredit.edit.ingredients.second_moment import second_moments

        layers = self.edited_layers(lm)
        if not lm.capabilities.mlp_joins_stream(layers[-1]):
            raise BadInput(
                f"{type(lm.model).__name__} normalises the MLP's output before it joins the residual stream, in whose "
                "terms MEMIT and AlphaEdit are defined; use method=rome, ft or kn"
            )
        if self.layers is None:
            log.warning("no edit layers are known for this model: blocks %s of %d are used (five that end a quarter of "
                        "the way up); set method.layers to choose", layers, lm.n_blocks)  # fmt: skip
        moments, digest = second_moments(lm, layers, self.second_moment_text, self.tokens_per_key_dim)
        tensors = {f"second_moment/{layer}": moment_FF for layer, moment_FF in moments.items()}
        contexts = sample_contexts(lm, {10: self.contexts}, given.seed)
        return self.derived(lm, Prepared(contexts, tensors, {"second_moment": digest}))

    def derived(self, lm: LM, prepared: Prepared) -> Prepared:
        """With what is made of the second moments once; heirs make something else of them."""
        return prepared.factorised(*prepared.tensors, device=lm.device)

    def ahead(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared) -> dict[str, Target]:
        """The z of each request by its id; they do not depend on each other.  Mutates nothing."""
        from afteredit.edit.ahead import FILL, of_like_length
        from afteredit.edit.ingredients.target_value import optimise_targets

        last = self.edited_layers(lm)[-1]
        found: dict[str, Target] = {}
        for group in of_like_length(lm, requests, FILL * self.together):
            targets = optimise_targets(lm, group, prepared.contexts, last, self)
            found |= {request.id: target for request, target in zip(group, targets, strict=True)}
        return found

    def write(
        self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, solve: Solve
    ) -> tuple[Update, dict[int, Tensor]]:
        """The update by blocks in turn, and the keys (F, E) by layer; `solve` is what MEMIT's heirs differ in."""
        from afteredit.edit.ingredients.layer_by_layer import write_in_turn

        found = prepared.ahead or self.ahead(lm, requests, prepared)
        targets = [found[request.id] for request in requests]
        return write_in_turn(lm, requests, targets, prepared.contexts, self.edited_layers(lm), solve)

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> tuple[Update, State]:
        """The change that writes a batch; MEMIT keeps nothing between edits.  Mutates nothing."""
        from afteredit.edit.ingredients.layer_by_layer import weighted

        def solve(layer: int, keys_FE: Tensor) -> Tensor:
            solved_FE = prepared.inverse_times(f"second_moment/{layer}", keys_FE)
            return weighted(self.second_moment_weight, keys_FE, solved_FE)

        update, _ = self.write(lm, requests, prepared, solve)
        return update, state

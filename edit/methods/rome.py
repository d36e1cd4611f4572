"""ROME: one fact becomes one rank-one change to one MLP's output matrix (Meng et al., NeurIPS 2022, eq. 2).

    Ŵ = W + Λ (C⁻¹ k*)ᵀ,   Λ = (v* − (W k* + b)) / ((C⁻¹ k*)ᵀ k*),   C = E[k kᵀ]

`rank_one`, at the end of this file, is its second term.

Departures from the reference code (kmeng01/rome), all recorded because they change numbers (target_value.py and
context_prefixes.py in ingredients/ have those of v* and of the prefixes):
- one k*, averaged over context prefixes, in every place; the reference divides by the bare prompt's key and subtracts
  the bare prompt's output, which disables models (Gupta et al., 2024, "Rebuilding ROME");
- C⁻¹k* is solved in float64, and the last of `value_steps` losses is computed but not stepped on, as there;
- C comes from few tokens (ingredients/second_moment.py), of text that the model itself wrote unless another is named.
`keys=asymmetric` is the reference's first point as it stands; `kl_at=subject` and `contexts_count_opening=true` are its
KL term and its prefixes; `second_moment=identity` (C = I) is the configuration of Gu et al. (EMNLP 2024) and EasyEdit.
All together are what that paper calls ROME: conf/method/rome_published.yaml.  tests/edit/methods/test_as_published.py
computes the references' updates anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from afteredit.edit.ingredients.value_settings import KlAt, ValueKeys, ValueNorm
from afteredit.edit.method import Given, Method, Prepared, check_numbers
from afteredit.edit.request import EditRequest
from afteredit.edit.update import LowRank, State, Update
from afteredit.model.costs.work import Cost, Work
from afteredit.store.field_roles import WEIGHTS, decides

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.edit.ingredients.target_value import TargetValue
    from afteredit.model.lm import LM


log = logging.getLogger(__name__)

SECOND_MOMENT = "second_moment"  # the name of C's factor among the constants


class Keys(Enum):
    consistent = "consistent"  # the averaged k* everywhere
    asymmetric = "asymmetric"  # averaged k* for the direction, the bare prompt's key and output for the rest


class SecondMoment(Enum):
    corpus = "corpus"  # E[k kᵀ] over a text
    identity = "identity"


@dataclass(frozen=True)
class Rome(ValueKeys, Method):
    layer: int | None = None  # 0-based block whose MLP output matrix is edited; None: a quarter of the way up
    value_steps: int = 20  # losses computed for v*; Adam steps are one fewer
    value_lr: float = 0.5
    weight_decay: float = 0.5  # on |offset| / |v|²
    kl_weight: float = 0.0625
    kl_at: KlAt = KlAt.prompt_end  # subject: as the references' code
    max_offset: float = 4.0  # cap on |v* - v|, in multiples of |v|
    stop_loss: float = 0.05
    contexts_short: int = 10  # context prefixes of 5 tokens
    contexts_long: int = 10  # context prefixes of 10 tokens
    contexts_count_opening: bool = False  # whether the opening word is one of these tokens, as in the reference
    keys: Keys = Keys.consistent
    second_moment: SecondMoment = SecondMoment.corpus
    # sampled (from the model itself), hub:<data set>, or a text file
    second_moment_text: str = field(default="sampled", metadata=decides(WEIGHTS, by_content=True))
    tokens_per_key_dim: int = 10  # tokens that the second moment is estimated on, per dimension F of a key

    max_batch: ClassVar[int | None] = 1
    optimises_values: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, value_steps="at least 1", value_lr="above 0", weight_decay="at least 0",
                      kl_weight="at least 0", max_offset="above 0", contexts_short="at least 0",
                      contexts_long="at least 0", tokens_per_key_dim="at least 1")  # fmt: skip

    def edited(self, lm: LM) -> list[str]:
        return [lm.mlp_out_name(self.edited_layer(lm))]

    def edited_layer(self, lm: LM) -> int:
        """Returns the block whose MLP output matrix is edited."""
        from afteredit.edit.ingredients.layer_by_layer import default_layer

        return default_layer(lm) if self.layer is None else self.layer

    def content(self, given: Given) -> dict[str, str]:
        from afteredit.edit.ingredients.sampled_text import identity
        from afteredit.edit.ingredients.value_norm import pilot_content

        return {"second_moment_text": identity(self.second_moment_text), **pilot_content(self, given)}

    def prepare(self, lm: LM, given: Given) -> Prepared:
        from afteredit.edit.ingredients.context_prefixes import sample_contexts
        from afteredit.edit.ingredients.least_squares import factors
        from afteredit.edit.ingredients.second_moment import second_moments
        from afteredit.edit.ingredients.value_norm import with_anchors
        from afteredit.edit.ingredients.value_search import optimise_values

        layer = self.edited_layer(lm)
        if self.layer is None:
            log.warning("no edit layer is known for this model: block %d of %d is used (a quarter of the way up); set "
                        "method.layer to choose", layer, lm.n_blocks)  # fmt: skip
        counts = {5: self.contexts_short, 10: self.contexts_long}
        contexts = sample_contexts(lm, counts, given.seed, count_opening=self.contexts_count_opening)
        prepared = with_anchors(Prepared(contexts), lm, [layer], given, self, optimise_values)
        if self.second_moment is SecondMoment.identity:
            return prepared
        moments, digest = second_moments(lm, [layer], self.second_moment_text, self.tokens_per_key_dim)
        hashes = {**prepared.hashes, "second_moment": digest}
        return replace(prepared, hashes=hashes, factors=factors({SECOND_MOMENT: moments[layer]}, lm.device))

    def cost(self, lm: LM, batch: Sequence[EditRequest], together: int) -> Cost:
        from afteredit.edit.costs import values as costs

        layers, counts = [self.edited_layer(lm)], {5: self.contexts_short, 10: self.contexts_long}
        update, updating = costs.search_work(lm, batch, costs.stand_ins(counts), layers[0], self, together)
        cost = Cost(start=costs.contexts_work(lm, counts), update=update, updating=updating,
                    disk=costs.factors_bytes(lm, layers, 1))  # fmt: skip
        if self.second_moment is SecondMoment.identity:
            return cost
        once = costs.moments_work(lm, layers, self.second_moment_text, self.tokens_per_key_dim)
        square, start = costs.square(lm, layers), cost.start + Work(solving=costs.cube(lm, layers) / 3)
        return replace(cost, once=once, start=start, update=update + Work(solving=4 * square),
                       cpu={"factor of the second moment": 8 * square}, preparing=28 * square)  # fmt: skip

    def find_values(
        self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, together: int
    ) -> dict[str, TargetValue]:
        """Returns each request's v* and k*, by its id.  Mutates nothing."""
        from afteredit.edit.ingredients.value_norm import anchored
        from afteredit.edit.ingredients.value_search import optimise_values, values_by_id

        def optimise(group: Sequence[EditRequest]) -> list[TargetValue]:
            bare_start = self.keys is Keys.asymmetric
            return optimise_values(lm, group, prepared.contexts, self.edited_layer(lm), self, bare_start=bare_start)

        values = values_by_id(lm, requests, together, optimise)
        return anchored(values, prepared, self.edited_layer(lm), self)

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the rank-one change that writes one request, or none where its v* is too long.  Mutates nothing."""
        from afteredit.edit.ingredients.least_squares import inverse_times

        (request,) = requests
        value = self.values_of(lm, requests, prepared)[request.id]
        dropped = {"dropped": float(value.dropped)} if self.value_norm is ValueNorm.anchor else {}
        if value.dropped:
            return Update({}, diagnostics=value.diagnostics | dropped)
        written_at_F = value.bare_key_F if self.keys is Keys.asymmetric else value.key_F
        direction_F = value.key_F.double().cpu()  # C⁻¹ k*
        if self.second_moment is not SecondMoment.identity:
            direction_F = inverse_times(prepared.factors[SECOND_MOMENT], direction_F[:, None])[:, 0]
        change, denominator = rank_one(direction_F, value.offset_D, written_at_F)
        diagnostics = value.diagnostics | {
            "cos_bare_key": _cosine(value.bare_key_F, value.key_F),
            "bare_key_share": float(change.right_Fr[:, 0].double() @ value.bare_key_F.double().cpu()),
            "denominator": denominator,
            "update_norm": change.norm(),
            **dropped,
        }
        (name,) = self.edited(lm)
        return Update({name: change}, diagnostics=diagnostics)


def rank_one(direction_F: Tensor, residual_D: Tensor, written_at_F: Tensor) -> tuple[LowRank, float]:
    """Returns the U with U k* = residual that disturbs typical keys least, as E[|U k|²]: eq. 2's second term.

    `direction_F` is C⁻¹k*, float64 on the CPU; `written_at_F` is k*, or the other key that ROME's reference puts into
    the denominator.  The factors are float32 on the CPU; the denominator comes with them.
    """
    denominator = direction_F @ written_at_F.double().cpu()
    change = LowRank(residual_D.float().cpu()[:, None], (direction_F / denominator).float()[:, None])
    return change, float(denominator)


def _cosine(a_F: Tensor, b_F: Tensor) -> float:
    return float(a_F @ b_F / (a_F.norm() * b_F.norm()))

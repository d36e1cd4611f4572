"""MEMIT: a batch of facts becomes one least-squares change to a few MLPs in turn (Meng et al., ICLR 2023, eq. 14).

    Δ_l = R_l K_lᵀ (λ C_l + K_l K_lᵀ)⁻¹,   R_l = (z − h_L) / (L − l + 1),   C = E[k kᵀ]

which minimises λ E|Δ k|² + |Δ K − R|².  z is the residual stream wanted after the last block (ingredients/
target_value.py), K the facts' keys (ingredients/subject_keys.py).  Solved in float64.
Departures from the reference code (kmeng01/memit): C comes from few tokens, of text that the model itself wrote unless
another is named; the KL term of z is taken after the whole of "{subject} is a", as the paper says, not at the
subject's last token (`kl_at=subject`); ingredients/context_prefixes.py says how prefixes are sampled, and
`contexts_count_opening=true` takes the reference's length.
Remedies, off by default: `ridge` adds ρ I to λ C (ENCORE, arXiv 2502.01636, code: scalable-model-editing/encore, with ρ
of 10 to 20; RLSEdit's λ², arXiv 2601.15686).  `ridge_kind=relative` counts ρ in mean eigenvalues of λ C, which is ours:
the published numbers are in units of the authors' models.  `distribute=boundary` is in ingredients/layer_by_layer.py,
`value_norm` in value_norm.py and `stop_steps` in value_search.py.
In a sequence every batch is written as if it were the first: earlier batches are not protected (memit_seq.py does
that).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from afteredit.edit.ingredients.value_settings import Distribute, KlAt, ValueKeys, check_blocks
from afteredit.edit.method import Given, Method, Prepared, check_numbers
from afteredit.edit.request import EditRequest
from afteredit.edit.update import State, Update
from afteredit.model.costs.work import Cost, Work
from afteredit.store.field_roles import WEIGHTS, decides

if TYPE_CHECKING:
    from torch import Tensor

    from afteredit.edit.ingredients.target_value import TargetStream
    from afteredit.model.lm import LM


class RidgeKind(Enum):
    absolute = "absolute"  # added to λ C as it is
    relative = "relative"  # in multiples of the mean eigenvalue of λ C


@dataclass(frozen=True)
class Memit(ValueKeys, Method):
    layers: list[int] | None = None  # blocks edited, lowest first; None: five that end a quarter of the way up
    second_moment_weight: float = 15000.0  # λ: facts' weight is 1 each, so more protects more
    ridge: float = 0.0  # ρ: weight of |Δ|², whatever the keys are
    ridge_kind: RidgeKind = RidgeKind.absolute
    distribute: Distribute = Distribute.spread
    merge_subjects: bool = False  # facts of one subject in one batch share a key and an offset (MEMIT-Merge)
    value_steps: int = 25  # losses computed for z; Adam steps are one fewer
    value_lr: float = 0.5
    weight_decay: float = 0.5  # on |offset| / |h|²
    kl_weight: float = 0.0625
    kl_at: KlAt = KlAt.prompt_end  # subject: as the references' code
    max_offset: float = 0.75  # cap on |z - h|, in multiples of |h|
    stop_loss: float = 0.05
    contexts: int = 5  # sampled prefixes of 10 tokens, beside the bare prompt
    contexts_count_opening: bool = False  # whether the opening word is one of the 10, as in the reference
    # sampled (from the model itself), hub:<data set>, or a text file
    second_moment_text: str = field(default="sampled", metadata=decides(WEIGHTS, by_content=True))
    tokens_per_key_dim: int = 10

    optimises_values: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_blocks(self.layers, self.distribute)
        check_numbers(self, second_moment_weight="above 0", ridge="at least 0", value_steps="at least 1",
                      value_lr="above 0", weight_decay="at least 0", kl_weight="at least 0", max_offset="above 0",
                      contexts="at least 0", tokens_per_key_dim="at least 1")  # fmt: skip

    def edited(self, lm: LM) -> list[str]:
        return [lm.mlp_out_name(layer) for layer in self.edited_layers(lm)]

    def edited_layers(self, lm: LM) -> list[int]:
        """Returns the blocks whose MLP output matrices are edited, lowest first."""
        from afteredit.edit.ingredients.layer_by_layer import edited_blocks

        return edited_blocks(lm, self.layers, self.distribute)

    @property
    def values_are_independent(self) -> bool:
        return not self.merge_subjects

    def content(self, given: Given) -> dict[str, str]:
        from afteredit.edit.ingredients.sampled_text import identity
        from afteredit.edit.ingredients.value_norm import pilot_content

        return {"second_moment_text": identity(self.second_moment_text), **pilot_content(self, given)}

    def prepare(self, lm: LM, given: Given) -> Prepared:
        """Returns context prefixes, anchors, and the factors of the second moments with their ridge.

        Raises BadInput where the MLP's output is not added to the residual stream as it is (Gemma 2).
        """
        from afteredit.edit.ingredients.layer_by_layer import prepare_blocks
        from afteredit.edit.ingredients.least_squares import factors

        prepared = prepare_blocks(lm, self, given)
        moments = {name: tensor for name, tensor in prepared.tensors.items() if name.startswith("second_moment/")}
        anchors = {name: tensor for name, tensor in prepared.tensors.items() if name not in moments}
        ridged = {name: self.with_ridge(C_FF) for name, C_FF in moments.items()}
        return replace(prepared, tensors=anchors, factors=factors(ridged, lm.device))

    def cost(self, lm: LM, batch: Sequence[EditRequest], together: int) -> Cost:
        from afteredit.edit.costs.values import cube, square, written_in_turn

        layers = self.edited_layers(lm)
        cost, entries = written_in_turn(lm, batch, layers, self, together), square(lm, layers)
        return replace(cost, start=cost.start + Work(solving=cube(lm, layers) / 3),
                       update=cost.update + Work(solving=4.0 * len(batch) * entries),
                       cpu={"factors of second moments": 8 * entries},
                       preparing=8 * entries + 20 * entries / len(layers))  # fmt: skip

    def with_ridge(self, C_FF: Tensor) -> Tensor:
        """Returns C + ρ/λ I, float64."""
        C_FF = C_FF.double()
        if not self.ridge:
            return C_FF
        unit = C_FF.diagonal().mean() if self.ridge_kind is RidgeKind.relative else 1 / self.second_moment_weight
        return C_FF + (self.ridge * unit) * C_FF.new_ones(len(C_FF)).diag()

    def find_values(
        self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, together: int
    ) -> dict[str, TargetStream]:
        """Returns each request's z, by its id.  Mutates nothing."""
        from afteredit.edit.ingredients.layer_by_layer import first_targets

        return first_targets(lm, requests, prepared, self, together)

    def update(self, lm: LM, requests: Sequence[EditRequest], prepared: Prepared, state: State) -> Update:
        """Returns the change that writes a batch.  Mutates nothing."""
        from afteredit.edit.ingredients.layer_by_layer import write_in_turn
        from afteredit.edit.ingredients.least_squares import solve_weighted

        def solve(layer: int, keys_FE: Tensor) -> Tensor:
            return solve_weighted(self.second_moment_weight, keys_FE, prepared.factors[f"second_moment/{layer}"])

        update = write_in_turn(lm, requests, self.values_of(lm, requests, prepared), prepared, self, solve)
        return replace(update, adds={})  # no later edit needs its keys

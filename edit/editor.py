"""Editor: writes facts into a model, batch after batch, and rebuilds a model from updates made before.

A run computes updates with `write` and applies them with `apply`; a replay only applies the journal's.  Both take the
same operations in the same order, so that they end in the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from afteredit.edit.constraint import Constraint
from afteredit.edit.method import Method, Prepared
from afteredit.edit.request import EditRequest
from afteredit.edit.speed import Speed
from afteredit.edit.update import State, Update
from afteredit.store.errors import BadInput, NoEdit

if TYPE_CHECKING:
    from afteredit.model.lm import LM

log = logging.getLogger(__name__)

GROUPS_IN_WINDOW = 4  # requests are grouped by length among so many groups of those that follow each other


class Editor:
    """One model under edits.  `n_edits` facts were applied; `carried` are those that the model holds now."""

    n_edits: int
    carried: list[EditRequest]

    def __init__(
        self,
        lm: LM,
        method: Method,
        constraint: Constraint,
        prepared: Prepared | None = None,
        *,
        planned: Sequence[EditRequest] = (),
        single: bool = False,
        speed: Speed = Speed(),  # noqa: B008
    ):
        """`prepared`: None for an editor that only applies updates made before and keeps no state.

        `planned`: every request of the run, in order.  `single`: each batch edits the unedited model.
        """
        self.n_edits, self.carried = 0, []
        self._lm, self._method, self._constraint = lm, method, constraint
        self._prepared, self._single, self._together = prepared, single, speed.together
        self._state: State = {}
        self._values: dict[str, Any] = {}  # found ahead of their turn
        ahead = single and prepared is not None and method.optimises_values and method.values_are_independent
        self._group_of = _groups(lm, planned, self._together) if ahead else {}

    def begin(self, batch: Sequence[EditRequest]) -> None:
        """Makes the model ready for `batch`: where each batch edits the unedited model, restores that."""
        if self._single:
            self._lm.weights.restore()
            self._state, self.carried = {}, []

    def write(self, batch: Sequence[EditRequest]) -> Update:
        """Returns the update that writes `batch`; changes no weight.

        Where the method's update is not finite, or a model that edits have changed leaves it none, returns an empty
        update with the diagnostic `collapsed`.  Raises NoEdit where the unedited model leaves it none.
        """
        import torch

        if self._prepared is None:
            raise ValueError("this editor has no constants: it only applies updates made before")
        try:
            values = self._values_for(batch, self._prepared)
            prepared = replace(self._prepared, values=values, together=self._together)
            update = self._method.update(self._lm, batch, prepared, self._state)
        except (NoEdit, torch.linalg.LinAlgError) as problem:
            if self._lm.weights.is_unedited():
                raise
            log.warning("collapse: %s", problem)
        else:
            if update.is_finite():
                return update
            log.warning("collapse: the update of %s holds NaN, infinity or more than float32 can", batch[0].id)
        return Update({}, diagnostics={"collapsed": 1.0})

    def apply(self, batch: Sequence[EditRequest], update: Update) -> None:
        """Changes the weights by `update` as the constraint lets it through, and takes it into the state.

        Raises BadInput for an update that the method cannot have made: a journal may come from anywhere.
        """
        self._refuse_foreign(batch, update)
        weights = self._lm.weights
        weights.add(self._constraint.constrain(update, weights.W, weights.W_base).changes)
        if self._prepared is not None:
            self._state = self._method.extend(self._state, update, self._prepared)
        self.n_edits += len(batch)
        self.carried = [*self.carried, *batch]

    def weights_sha256(self) -> str:
        """Returns the SHA-256 of the edited matrices as they are now, ordered by name."""
        return self._lm.weights.sha256()

    def _refuse_foreign(self, batch: Sequence[EditRequest], update: Update) -> None:
        """Raises BadInput for a change to a matrix that the method does not edit, of another shape, or no numbers."""
        of = f"the update of {batch[0].id}{' and others' if len(batch) > 1 else ''}"
        edited = self._method.edited(self._lm)
        for name, change in update.changes.items():
            if name not in edited:
                raise BadInput(f"{of} changes {name}, which this method does not edit (it edits {', '.join(edited)}); "
                               "restore the run directory")  # fmt: skip
            if change.shape != (shape := tuple(self._lm.weights.W(name).shape)):
                raise BadInput(f"{of} changes {name} with shape {change.shape}, but the model has {shape}; restore "
                               "the run directory")  # fmt: skip
        factors = [tensor for change in update.changes.values() for tensor in change.tensors().values()]
        if not update.is_finite() or not all(tensor.is_floating_point() for tensor in factors):
            raise BadInput(f"{of} holds NaN, infinity or no floating-point numbers, which no run stores; restore the "
                           "run directory")  # fmt: skip

    def _values_for(self, batch: Sequence[EditRequest], prepared: Prepared) -> dict[str, Any]:
        """Returns the optimised values of `batch`; where edits are independent, finds a whole group's at once."""
        if not self._group_of:
            return self._method.find_values(self._lm, batch, prepared, self._together)
        for request in batch:
            if request.id not in self._values:
                group = self._group_of[request.id]
                self._values |= self._method.find_values(self._lm, group, prepared, self._together)
        return {request.id: self._values.pop(request.id) for request in batch}


def _groups(lm: LM, planned: Sequence[EditRequest], together: int) -> dict[str, list[EditRequest]]:
    """Returns, by request id, the requests whose values are found in one go.

    Groups depend on the run's edits alone, so that a run that was killed makes the same groups, and the same bits,
    again.  (With a larger n_edits the last window is cut anew.)  A group is never filled up with requests of the next:
    every edit's rounding would then depend on all edits before it.
    """
    from afteredit.edit.ingredients.value_search import groups_of_like_length

    groups: dict[str, list[EditRequest]] = {}
    window = GROUPS_IN_WINDOW * together
    for start in range(0, len(planned), window):
        for group in groups_of_like_length(lm, planned[start : start + window], together):
            groups |= {request.id: group for request in group}
    return groups

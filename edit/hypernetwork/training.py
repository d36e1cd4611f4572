"""Trains MEND's hypernetwork on the unedited model by Adam (Mitchell et al., ICLR 2022, sec. 3.3); the loss is in
training_loss.py.

The network that is used has the least loss on rows held back.  It is measured every `validate_every` steps and not by
the clock: the same training must not end in another network when interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from afteredit.edit.hypernetwork.network import Hypernetwork
from afteredit.edit.hypernetwork.training_batches import Batch, Batches
from afteredit.edit.hypernetwork.training_loss import Validation, learn, validate
from afteredit.edit.hypernetwork.training_progress import Progress
from afteredit.edit.hypernetwork.training_settings import TrainingSettings
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.store.field_roles import WEIGHTS, names_by_role
from afteredit.store.progress.kept_progress import KeptProgress
from afteredit.store.progress.work import working
from afteredit.store.user_cache import cache_key, content_hash, made_once

log = logging.getLogger(__name__)

FORMAT = 2  # raised when the same rows and settings train another network
SEED = 0
FEWEST_ROWS = 10
MOST_HELD_BACK = 50


def trained(
    lm: LM, layers: Sequence[int], rows: Sequence[EditRequest], settings: TrainingSettings
) -> tuple[dict[str, Tensor], str]:
    """Returns the trained network's state on the model's device, and the hash that names its file in the cache.

    Raises BadInput where there are too few rows, training goes wrong, or its result is worse than no edit.
    """
    decisive = {name: getattr(settings, name) for name in names_by_role(TrainingSettings, WEIGHTS)}
    digest = cache_key(FORMAT, {"model": lm.fingerprint, "separator": lm.tokens.separator, "layers": list(layers),
                                "seed": SEED, "rows": content_hash([row.content for row in rows]),
                                **decisive})  # fmt: skip
    name = f"mend/{digest}.safetensors"
    kept = KeptProgress(name, 60 * settings.checkpoint_minutes)

    def make(path: Path) -> None:
        save_file(Training(lm, layers, rows, settings).run(kept), path)

    path = made_once(name, make, "training MEND's hypernetwork")
    kept.clear()
    return load_file(path, device=str(lm.device)), digest


class Training:
    """One training: its rows, the network and what an edit must beat."""

    def __init__(self, lm: LM, layers: Sequence[int], rows: Sequence[EditRequest], settings: TrainingSettings):
        if len(rows) < FEWEST_ROWS:
            raise BadInput(f"the training split holds {len(rows)} rows; MEND learns from at least {FEWEST_ROWS}: give "
                           "more rows (edits.train)")  # fmt: skip
        self.lm, self.layers, self.settings = lm, layers, settings
        n_held_back = min(MOST_HELD_BACK, len(rows) // 10)
        learned = rows[:-n_held_back]
        self.batches = Batches(lm, learned, learned, layers, settings.batch)
        self.held_back: list[Batch] = Batches(lm, rows[-n_held_back:], rows, layers, settings.batch).for_validation()
        network = Hypernetwork([lm.widths(layer) for layer in layers], settings.rank).start(settings.alpha, SEED)
        self.progress = Progress(network.to(lm.device), settings)
        log.info("training MEND's hypernetwork on %d rows, %d held back", len(learned), n_held_back)

    def run(self, kept: KeptProgress) -> dict[str, Tensor]:
        """Returns the best network's state.  Goes on from what was `kept` where there is something, and keeps more."""
        progress, settings = self.progress, self.settings
        checkpoint = kept.found()
        if checkpoint is not None:
            progress.load(checkpoint)
            log.info("going on from step %d", progress.step)
        else:
            no_edit = validate(self.lm, self.layers, None, self.held_back)
            progress.loss_without_edit = no_edit.loss(settings)
            log.info("without an edit: %s; untrained: %s", no_edit, self._validate())
            if kept.is_due():
                kept.keep(progress.save)
        with working("steps", settings.steps, progress.step) as work:
            while progress.step < settings.steps:
                loss = self._step()
                work.done, work.part = progress.step, "not finite, skipped" if loss is None else f"loss {loss:.4f}"
                if kept.is_due():
                    kept.keep(progress.save)
        self._refuse_if_worse_than_no_edit()
        return progress.best

    def _step(self) -> float | None:
        """Learns from one batch, and looks at the rows held back where it is time to; returns the batch's loss."""
        progress, settings = self.progress, self.settings
        loss = learn(self.lm, self.layers, progress, self.batches.at_step(progress.step), settings)
        self._count_skipped(loss)
        progress.step += 1
        if loss is None:
            log.warning("step %d skipped: its loss or gradient is not finite", progress.step)
        if progress.step % settings.validate_every == 0 or progress.step == settings.steps:
            validation = self._validate()
            better = progress.take_if_best(validation.loss(settings))
            log.info("step %d: %s%s", progress.step, validation, " (best so far)" if better else "")
        return loss

    def _validate(self) -> Validation:
        return validate(self.lm, self.layers, self.progress.network, self.held_back)

    def _count_skipped(self, loss: float | None) -> None:
        progress, settings = self.progress, self.settings
        progress.skipped = 0 if loss is not None else progress.skipped + 1
        if progress.skipped > settings.max_skipped:
            raise BadInput(f"MEND's training broke down at step {progress.step}: the loss or its gradient was not "
                           f"finite {progress.skipped} times in a row; lower method.learning_rate="
                           f"{settings.learning_rate:g} or method.alpha_learning_rate="
                           f"{settings.alpha_learning_rate:g}, or set dtype=float32")  # fmt: skip

    def _refuse_if_worse_than_no_edit(self) -> None:
        best, no_edit, settings = self.progress.best_loss, self.progress.loss_without_edit, self.settings
        if best >= no_edit:
            raise BadInput(f"the hypernetwork that MEND trained is worse than no edit at all (validation loss "
                           f"{best:.3g}, without an edit {no_edit:.3g}) and is not used; set method.steps="
                           f"{settings.steps}, method.learning_rate={settings.learning_rate:g} or "
                           f"method.alpha_learning_rate={settings.alpha_learning_rate:g} to another value, or give "
                           "more training rows (edits.train)")  # fmt: skip

"""Trains MEND's hypernetwork on the unedited model by Adam (Mitchell et al., ICLR 2022, sec. 3.3); the loss is in
training_loss.py.

The network that is used has the least loss on rows held back.  It is measured every `validate_every` steps and not by
the clock: the same training must not end in another network when interrupted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
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
from afteredit.store.user_cache import cache_folder, content_hash, made_once

log = logging.getLogger(__name__)

SEED = 0
FEWEST_ROWS = 10
MOST_HELD_BACK = 50
LOG_SECONDS = 20


def trained(
    lm: LM, layers: Sequence[int], rows: Sequence[EditRequest], settings: TrainingSettings
) -> tuple[dict[str, Tensor], str]:
    """Returns the trained network's state on the model's device, and the hash that names its file in the cache.

    Raises BadInput where there are too few rows, training goes wrong, or its result is worse than no edit.
    """
    decisive = {name: getattr(settings, name) for name in names_by_role(TrainingSettings, WEIGHTS)}
    digest = content_hash({"model": lm.fingerprint, "separator": lm.tokens.separator, "layers": list(layers),
                           "seed": SEED, "rows": content_hash([asdict(row) for row in rows]), **decisive})  # fmt: skip
    checkpoint = cache_folder() / f"mend/{digest}.checkpoint.safetensors"
    path = made_once(
        f"mend/{digest}.safetensors",
        lambda path: save_file(Training(lm, layers, rows, settings).run(checkpoint), path),
    )
    checkpoint.unlink(missing_ok=True)
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
        self.no_edit = validate(lm, layers, None, self.held_back)
        log.info("training MEND's hypernetwork on %d rows, %d held back; without an edit: %s", len(learned),
                 n_held_back, self.no_edit)  # fmt: skip

    def run(self, checkpoint: Path) -> dict[str, Tensor]:
        """Returns the best network's state.  Continues from `checkpoint` where there is one, and writes it."""
        progress, settings = self.progress, self.settings
        if checkpoint.exists():
            progress.load(checkpoint)
            log.info("going on from step %d (%s)", progress.step, checkpoint)
        else:
            log.info("untrained: %s", self._validate())
        clock = _Clock(progress.step, settings.steps)
        while progress.step < settings.steps:
            loss = learn(self.lm, self.layers, progress, self.batches.at_step(progress.step), settings)
            self._count_skipped(loss)
            progress.step += 1
            clock.tick(progress.step, loss)
            if progress.step % settings.validate_every == 0 or progress.step == settings.steps:
                validation = self._validate()
                better = progress.take_if_best(validation.loss(settings))
                log.info("step %d: %s%s", progress.step, validation, " (best so far)" if better else "")
            if clock.minutes_since_checkpoint() >= settings.checkpoint_minutes:
                progress.save(checkpoint)
                clock.checkpoint = time.monotonic()
        self._refuse_if_worse_than_no_edit()
        return progress.best

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
        best, no_edit, settings = self.progress.best_loss, self.no_edit.loss(self.settings), self.settings
        if best >= no_edit:
            raise BadInput(f"the hypernetwork that MEND trained is worse than no edit at all (validation loss "
                           f"{best:.3g}, without an edit {no_edit:.3g}) and is not used; set method.steps (now "
                           f"{settings.steps}) or method.learning_rate (now {settings.learning_rate:g}) to other "
                           "values, or give more training rows (edits.train)")  # fmt: skip


class _Clock:
    """Logs now and then how far the training is, with the speed of this session."""

    def __init__(self, step: int, steps: int):
        self.first_step, self.steps = step, steps
        self.started = self.logged = self.checkpoint = time.monotonic()

    def minutes_since_checkpoint(self) -> float:
        return (time.monotonic() - self.checkpoint) / 60

    def tick(self, step: int, loss: float | None) -> None:
        now = time.monotonic()
        if loss is None:
            log.warning("step %d skipped: its loss or gradient is not finite", step)
        elif now - self.logged >= LOG_SECONDS:
            self.logged = now
            speed = (step - self.first_step) / (now - self.started)
            left = int((self.steps - step) / speed)
            log.info("step %d of %d: loss %.4f, %.1f steps/s, %d:%02d left", step, self.steps, loss, speed,
                     *divmod(left, 60))  # fmt: skip

"""Training MEND's hypernetwork on the unedited model (Mitchell et al., ICLR 2022, sec. 3.3, eq. 4).

    L = c_edit · (−log p_W̃(target | prompt or a rewording)) + KL(p_W(·|neighbour) ‖ p_W̃(·|neighbour)),   Adam on g and α

Each row of a batch is an edit with its own W̃.  The network kept is the one with the least L on rows held back, measured
every `validate_every` steps and not by the clock: the same training must not end in another network when interrupted.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from afteredit.edit.hypernetwork.network import Hypernetwork
from afteredit.edit.hypernetwork.token_gradients import changed
from afteredit.edit.hypernetwork.training_batches import Batch, Batches
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.store.user_cache import cache_folder, content_hash, made_once

if TYPE_CHECKING:
    from afteredit.edit.methods.mend import Mend

log = logging.getLogger(__name__)

SEED = 0
FEWEST_ROWS = 10
MOST_HELD_BACK = 50
LOG_SECONDS = 20
DECIDES = ("rank", "alpha", "edit_weight", "steps", "batch", "learning_rate", "alpha_learning_rate", "max_gradient",
           "validate_every")  # fmt: skip


def trained(
    lm: LM, layers: Sequence[int], rows: Sequence[EditRequest], settings: Mend
) -> tuple[dict[str, Tensor], str]:
    """The trained network's state on the model's device, and the hash that names its file in the cache.

    Raises BadInput where there are too few rows, training goes wrong, or its result is worse than no edit.
    """
    decides = {"model": lm.fingerprint, "layers": list(layers), "rows": content_hash([asdict(row) for row in rows]),
               "seed": SEED, **{name: getattr(settings, name) for name in DECIDES}}  # fmt: skip
    digest = content_hash(decides)
    checkpoint = cache_folder() / f"mend/{digest}.checkpoint.safetensors"
    path = made_once(
        f"mend/{digest}.safetensors", lambda path: save_file(_train(lm, layers, rows, settings, checkpoint), path)
    )
    checkpoint.unlink(missing_ok=True)
    return load_file(path, device=str(lm.device)), digest


class Progress:
    """All that training adds up to: what a checkpoint holds."""

    def __init__(self, network: Hypernetwork, settings: Mend):
        self.network = network
        parts = [parameter for name, parameter in network.named_parameters() if name != "alpha_M"]
        self.adam = torch.optim.Adam([{"params": parts, "lr": settings.learning_rate},
                                      {"params": [network.alpha_M], "lr": settings.alpha_learning_rate}])  # fmt: skip
        self.step = 0
        self.skipped = 0  # in a row
        self.best_loss = math.inf
        self.best: dict[str, Tensor] = {}

    def save(self, path: Path) -> None:
        flat = {f"network|{name}": tensor for name, tensor in self.network.state_dict().items()}
        flat |= {f"best|{name}": tensor for name, tensor in self.best.items()}
        for place, values in self.adam.state_dict()["state"].items():
            flat |= {f"adam|{place}|{name}": tensor for name, tensor in values.items()}
        flat |= {"step": torch.tensor(self.step), "skipped": torch.tensor(self.skipped),
                 "best_loss": torch.tensor(self.best_loss, dtype=torch.float64)}  # fmt: skip
        temporary = path.with_name(f"{path.name}.part")
        save_file(flat, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        flat = load_file(path)
        self.step, self.skipped = int(flat["step"]), int(flat["skipped"])
        self.best_loss = float(flat["best_loss"])
        self.network.load_state_dict(_under("network|", flat))
        self.best = _under("best|", flat)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("adam|", flat).items():
            place, part = name.split("|")
            state.setdefault(int(place), {})[part] = tensor
        self.adam.load_state_dict({**self.adam.state_dict(), "state": state})


def _under(front: str, flat: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(front): tensor for name, tensor in flat.items() if name.startswith(front)}


def _train(
    lm: LM, layers: Sequence[int], rows: Sequence[EditRequest], settings: Mend, checkpoint: Path
) -> dict[str, Tensor]:
    """The best network's state.  Continues from `checkpoint` where there is one."""
    if len(rows) < FEWEST_ROWS:
        raise BadInput(f"the training split holds {len(rows)} rows; MEND learns from at least {FEWEST_ROWS}: give more "
                       "rows (edits.train)")  # fmt: skip
    n_held_back = min(MOST_HELD_BACK, len(rows) // 10)
    batches = Batches(lm, rows[:-n_held_back], rows[:-n_held_back], layers, settings.batch)
    held_back = Batches(lm, rows[-n_held_back:], rows, layers, settings.batch).for_validation()
    network = Hypernetwork([lm.widths(layer) for layer in layers], settings.rank).start(settings.alpha, SEED)
    progress = Progress(network.to(lm.device), settings)
    no_edit = measure(lm, layers, None, held_back)
    log.info("training MEND's hypernetwork on %d rows, %d held back; without an edit: %s", len(rows) - n_held_back,
             n_held_back, no_edit)  # fmt: skip
    if checkpoint.exists():
        progress.load(checkpoint)
        log.info("going on from step %d (%s)", progress.step, checkpoint)
    else:
        log.info("untrained: %s", measure(lm, layers, progress.network, held_back))
    clock = _Clock(progress.step, settings.steps)
    while progress.step < settings.steps:
        loss = learn(lm, layers, progress, batches.at_step(progress.step), settings)
        progress.skipped = 0 if loss is not None else progress.skipped + 1
        if progress.skipped > settings.max_skipped:
            raise BadInput(f"MEND's training broke down at step {progress.step}: the loss or its gradient was not "
                           f"finite {progress.skipped} times in a row; lower method.learning_rate="
                           f"{settings.learning_rate:g} or method.alpha_learning_rate="
                           f"{settings.alpha_learning_rate:g}, or set dtype=float32")  # fmt: skip
        progress.step += 1
        clock.tick(progress.step, loss)
        if progress.step % settings.validate_every == 0 or progress.step == settings.steps:
            _keep_the_best(progress, measure(lm, layers, progress.network, held_back), settings)
        if clock.minutes_since_checkpoint() >= settings.checkpoint_minutes:
            progress.save(checkpoint)
            clock.checkpoint = time.monotonic()
    if progress.best_loss >= no_edit.loss(settings):
        raise BadInput(f"the hypernetwork that MEND trained is worse than no edit at all (validation loss "
                       f"{progress.best_loss:.3g}, without an edit {no_edit.loss(settings):.3g}) and is not used; set "
                       f"method.steps (now {settings.steps}) or method.learning_rate (now {settings.learning_rate:g}) "
                       "to other values, or give more training rows (edits.train)")  # fmt: skip
    return progress.best


def learn(lm: LM, layers: Sequence[int], progress: Progress, batch: Batch, settings: Mend) -> float | None:
    """One step of Adam; the loss, or None where something was not finite and nothing was learned."""
    network = progress.network
    if not all(terms.is_finite() for terms in batch.terms.values()):
        return None  # before it reaches the statistics, which would never be finite again
    for matrix, layer in enumerate(layers):
        network.observe(matrix, batch.terms[layer].keys_NF, batch.terms[layer].deltas_ND)
    progress.adam.zero_grad()
    with torch.enable_grad():
        nll_B, _, kl_B = after_edits(lm, layers, network, batch)
        loss = (settings.edit_weight * nll_B.mean(0) + kl_B).mean()
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_gradient)
    if not (loss.isfinite() and norm.isfinite()):
        return None
    progress.adam.step()
    return float(loss.detach())


def after_edits(
    lm: LM, layers: Sequence[int], network: Hypernetwork | None, batch: Batch
) -> tuple[Tensor, Tensor, Tensor]:
    """After each row's own edit (none without a network), by wording A: −log p(target) (A, B), whether the target is
    argmax throughout (A, B); and the KL at its neighbour (B,)."""
    changes = {}
    if network is not None:
        for matrix, layer in enumerate(layers):
            terms = batch.terms[layer]
            left_ND, right_NF = network(matrix, terms.keys_NF, terms.deltas_ND)
            changes[layer] = terms.by_row(left_ND), terms.by_row(right_NF)
    with changed(lm, changes):
        nlls, forced = zip(*(answers.outcome() for answers in batch.answers), strict=True)
        return torch.stack(nlls), torch.stack(forced), batch.neighbours.kl()


@dataclass(frozen=True)
class Measured:
    """Means over the rows held back."""

    nll: float  # of the target, over the prompt and its rewording
    forced: float  # share of edits whose target is argmax throughout, asked by the prompt
    paraphrase: float  # the same, asked by the rewording
    kl: float

    def loss(self, settings: Mend) -> float:
        return settings.edit_weight * self.nll + self.kl

    def __str__(self) -> str:
        return (f"target argmax in {self.forced:.0%} (reworded {self.paraphrase:.0%}), nll {self.nll:.3f}, "
                f"kl {self.kl:.4f}")  # fmt: skip


@torch.no_grad()
def measure(lm: LM, layers: Sequence[int], network: Hypernetwork | None, batches: Sequence[Batch]) -> Measured:
    seen = [after_edits(lm, layers, network, batch) for batch in batches]
    nll_AE, forced_AE = (torch.cat([part[i] for part in seen], dim=1).double() for i in (0, 1))
    kl_E = torch.cat([part[2] for part in seen]).double()
    return Measured(float(nll_AE.mean()), float(forced_AE[0].mean()), float(forced_AE[1].mean()), float(kl_E.mean()))


def _keep_the_best(progress: Progress, measured: Measured, settings: Mend) -> None:
    loss = measured.loss(settings)
    better = loss < progress.best_loss  # never true for nan
    if better:
        progress.best_loss = loss
        progress.best = {name: tensor.cpu().clone() for name, tensor in progress.network.state_dict().items()}
    log.info("step %d: %s%s", progress.step, measured, " (best so far)" if better else "")


class _Clock:
    """Progress in the log now and then, with the speed of this session."""

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

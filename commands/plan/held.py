"""What a run holds in memory, by device and by what it is for, and which keys would make it less."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from afteredit.commands.plan.counted_lm import CountedLM
from afteredit.commands.plan.evaluation import Part
from afteredit.commands.plan.machine import Machine
from afteredit.edit.ingredients.sampled_text import GROUP, PIECE, row_length
from afteredit.launch.experiment import Dtype, Experiment
from afteredit.model.costs.work import Cost, element_bytes, key_value_width

DEVICE, CPU = "device", "cpu"


@dataclass(frozen=True)
class Held:
    """Bytes by what they are for: `always`, and for the while of each `phase`, of which the largest counts.

    `room` is what there is.  On a CPU, device and CPU are one.
    """

    always: dict[str, dict[str, float]]
    phases: dict[str, dict[str, float]]
    room: dict[str, float]
    remedies: list[str]

    def peak(self, place: str) -> float:
        """Returns the most that is held at once."""
        return sum(self.always.get(place, {}).values()) + max(self.phases.get(place, {}).values(), default=0.0)

    def lacking(self) -> dict[str, float]:
        """Returns how many bytes more than there are would be held, by place; nothing for what fits."""
        beyond = {place: self.peak(place) - self.room[place] for place in self.always if place in self.room}
        return {place: n for place, n in beyond.items() if n > 0}


def held(x: Experiment, lm: CountedLM, cost: Cost, parts: Sequence[Part], kept_bytes: int, machine: Machine) -> Held:
    """Returns what the run holds, given the parts of its evaluation."""
    on_cpu = lm.planned_device.type == "cpu"
    weights = float(sum(p.numel() for p in lm.model.parameters()) * element_bytes(lm))
    matrices = [lm.widths(lm.anatomy.mlp_out_names.index(name)) for name in x.method.edited(lm)]
    each = 4.0 if x.settings.dtype in (Dtype.float32, Dtype.float64) else 8.0
    edited = each * sum(D * F for D, F in matrices)
    device = {"weights": weights, "edited matrices as they were": edited, **cost.device}
    cpu = {"the program": _program(), "blocks below the lowest edited one, kept": float(kept_bytes), **cost.cpu}
    phases = {"preparing": max(cost.preparing, _writing_text(lm, cost)),
              "updating": cost.updating, "measuring": max(_measuring(lm, part) for part in parts)}  # fmt: skip
    if on_cpu:
        always = {CPU: {**device, **cpu}}
        return Held(always, {CPU: phases}, machine.memory, _remedies(x, always[CPU], phases))
    return Held({DEVICE: device, CPU: cpu}, {DEVICE: phases}, machine.memory, _remedies(x, {**device, **cpu}, phases))


def _measuring(lm: CountedLM, part: Part) -> float:
    """Returns the bytes of the largest pass: keys and values of its columns, twice while rows are put together; logits
    and what is made of them; hidden states."""
    size, (D, F) = element_bytes(lm), lm.widths(0)
    caches = part.columns * key_value_width(lm) * lm.n_blocks * size
    logits = part.logits * lm.vocabulary * (4 if size == 4 else 4 + size)
    return caches * 1.5 + logits * 2 + part.tokens * (4 * D + 3 * F) * size


def _writing_text(lm: CountedLM, cost: Cost) -> float:
    """Returns the bytes of keys and values while the model writes the text of second moments, if it writes one."""
    if not any(one.decoding for one in cost.once.passes):
        return 0.0
    rows = PIECE.get(lm.planned_device.type, GROUP)
    return rows * row_length(lm) * key_value_width(lm) * lm.n_blocks * element_bytes(lm) * 1.5


def _program() -> float:
    """Returns the bytes that this process itself holds, which has imported what a run imports, and read its rows."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return float(int(status.read_text().split()[1]) * resource.getpagesize())
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _remedies(x: Experiment, always: dict[str, float], phases: dict[str, float]) -> list[str]:
    """Returns the keys that would make it less, those that save most first."""
    saved: dict[str, float] = {}
    if x.settings.dtype in (Dtype.float32, Dtype.float64):
        saved["dtype=bfloat16"] = always["weights"] / 2
    if phases["updating"] == max(phases.values()) and (x.settings.batch_size > 1 or x.settings.single):
        saved["speed.together=1"] = phases["updating"] * (1 - 1 / x.speed.together)
    saved["speed.cache_gib=0"] = always["blocks below the lowest edited one, kept"]
    named = [
        f"{key} ({n / 2**30:.1f} GiB less)" for key, n in sorted(saved.items(), key=lambda pair: -pair[1]) if n > 2**26
    ]
    return [*named, "model.device_map=auto, over several devices"]

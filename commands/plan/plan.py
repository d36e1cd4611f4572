"""Says what a run would cost before it is made: memory, seconds, disk.  No weights are loaded and nothing is kept."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from afteredit.commands.plan.counted_lm import CountedLM
from afteredit.commands.plan.evaluation import ROWS, Counter, Part, few_rows
from afteredit.commands.plan.held import Held, held
from afteredit.commands.plan.machine import Machine, given, measured
from afteredit.commands.plan.shape_only import without_weights
from afteredit.edit.request import EditRequest, without_split_rows
from afteredit.evaluate.metrics.editing_success import success_prompts
from afteredit.launch.experiment import Experiment, PlannedBy
from afteredit.launch.opening import chosen_device, read_edits
from afteredit.model.costs.work import Cost, Work
from afteredit.record.run_directory import N_FIRST_FACTS

BATCHES = 4  # of the run, on which an update's cost is counted
AROUND = 0.15  # of every estimate, beside what the measurements themselves differ by


@dataclass(frozen=True)
class Seconds:
    """An estimate: `low` where answers and searches end early and the machine is at its best, `high` where not."""

    expected: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.expected + other.expected, self.low + other.low, self.high + other.high)

    def __mul__(self, times: float) -> Seconds:
        return Seconds(self.expected * times, self.low * times, self.high * times)


@dataclass(frozen=True)
class Planned:
    """All that is estimated of one run.  Seconds by what takes them; `checkpoints` are the numbers of edits at which it
    is measured."""

    started: Seconds
    once: Seconds
    start: Seconds
    update: Seconds
    immediate: Seconds
    unedited: dict[str, Seconds]
    later: dict[str, Seconds]
    last: dict[str, Seconds]
    checkpoints: list[int]
    n_updates: int
    held: Held
    disk: dict[str, float]
    notes: list[str]

    @property
    def whole(self) -> Seconds:
        """Returns the seconds of the whole run, without what is made once per model."""
        parts = [self.started, self.start, self.update * self.n_updates, self.immediate * self.n_updates,
                 *self.unedited.values(), *self.last.values()]  # fmt: skip
        n_later = max(0, len(self.checkpoints) - 2)
        return total([*parts, *(part * n_later for part in self.later.values())])


def total(parts: Iterable[Seconds]) -> Seconds:
    """Returns the sum of several estimates."""
    return sum(parts, Seconds())


def planned(x: Experiment) -> Planned:
    """Returns the estimates.  Raises BadInput where a row or a shape cannot be read."""
    rows, _ = read_edits(x)
    facts = rows[: max(x.settings.n_edits, N_FIRST_FACTS)]
    device = chosen_device(x.settings.device) if x.plan.by is PlannedBy.machine else "cuda"
    lm = without_weights(x.model, x.settings.dtype.value, device, x.edits.separator.value, _texts(x, facts))
    size, n_edits = x.settings.batch_size, x.settings.n_edits
    batches = [rows[i : i + size] for i in range(0, n_edits, size)]
    if x.settings.single:
        batches, _ = without_split_rows(batches)
    together = x.speed.together if x.settings.single or size > 1 else 1
    cost = _mean_cost(x, lm, batches, together)
    names = x.method.edited(lm)
    lowest = min(layer for layer in range(lm.n_blocks) if lm.mlp_out_name(layer) in names)
    counter = Counter(x, lm, facts, lowest)
    immediate = counter.immediate() * size
    due = [n for n in range(size, n_edits + 1, size) if x.settings.due(n, size) or n == n_edits]
    carried = [size if x.settings.single else n for n in due]
    middle = carried[len(carried) // 2]
    parts = {"unedited": counter.unedited(), "later": counter.checkpoint(middle, False),
             "last": counter.checkpoint(carried[-1], True)}  # fmt: skip
    abilities = counter.abilities()
    machine = _machine(x, lm)
    timed = {when: _seconds(machine, {**found, **abilities}, first=when == "unedited") for when, found in parts.items()}
    memory = held(x, lm, cost, [*abilities.values(), *parts["last"].values(), immediate], counter.kept_bytes, machine)
    return Planned(
        started=_around(_startup(lm, machine), AROUND), once=_of(machine, cost.once), start=_of(machine, cost.start),
        update=_of(machine, cost.update), immediate=_seconds(machine, {"": immediate}, first=True)[""],
        unedited=timed["unedited"], later=timed["later"], last=timed["last"], checkpoints=[0, *due],
        n_updates=len(batches), held=memory, disk=_disk(x, lm, cost, len(batches), len(due) + 1, abilities),
        notes=_notes(lm, cost),
    )  # fmt: skip


def _machine(x: Experiment, lm: CountedLM) -> Machine:
    if x.plan.by is PlannedBy.given:
        return given(lm, float(x.plan.tflops or 0), float(x.plan.gib or 0))
    machine = measured(lm, x.plan.gib)
    return machine if x.plan.tflops is None else given(lm, x.plan.tflops, machine.memory.get("device", 0) / 2**30)


def _texts(x: Experiment, facts: Sequence[EditRequest]) -> Iterator[str]:
    """Yields the texts that the run reads, for a tokenizer that is made of them."""
    from afteredit.evaluate.abilities.build import build_tasks
    from afteredit.evaluate.inference.held_out import held_out_text

    for fact in facts:
        for prompt in success_prompts(fact):
            yield f"{prompt.prompt} {prompt.target_new} {prompt.target_true or ''}"
        yield from fact.generation_prompts
        yield f"{fact.subject} is a"
    yield held_out_text(x.settings)
    for built in build_tasks(x.tasks, few_rows(x.settings)):
        for doc in list(built.task.eval_docs)[:ROWS]:
            yield " ".join(str(value) for value in doc.values())


def _mean_cost(x: Experiment, lm: CountedLM, batches: Sequence[Sequence[EditRequest]], together: int) -> Cost:
    """Returns the method's cost; an update's is a mean over a few batches of the run, or over independent edits."""
    if x.settings.single and x.method.optimises_values and together > len(batches[0]):
        joined = [request for batch in batches[: max(1, together // len(batches[0]))] for request in batch]
        cost = x.method.cost(lm, joined, together)
        share = len(batches[0]) / len(joined)
        return dataclasses.replace(cost, update=cost.update * share, disk=cost.disk * share)
    step = max(1, len(batches) // BATCHES)
    costs = [x.method.cost(lm, batch, together) for batch in batches[::step][:BATCHES]]
    update = sum((cost.update for cost in costs[1:]), costs[0].update) * (1 / len(costs))
    most = max(costs, key=lambda cost: cost.updating)
    return dataclasses.replace(most, update=update)


def _around(seconds: float, share: float) -> Seconds:
    return Seconds(seconds, seconds * (1 - share), seconds * (1 + share))


def _of(machine: Machine, work: Work) -> Seconds:
    return _around(machine.seconds(work), AROUND + machine.spread)


def _seconds(machine: Machine, parts: dict[str, Part], *, first: bool) -> dict[str, Seconds]:
    seconds = {}
    for name, part in parts.items():
        expected = machine.seconds(part.first if first else part.again) + part.beside
        most = max(expected, machine.seconds(part.most) + part.beside)
        share = AROUND + machine.spread
        seconds[name] = Seconds(expected, expected * (1 - share), most * (1 + share))
    return seconds


def _startup(lm: CountedLM, machine: Machine) -> float:
    """Returns the seconds until a run's first work: half of what this process needed itself, and weights that are read
    and hashed."""
    weights = sum(p.nbytes for p in lm.model.parameters())
    return time.process_time() * 0.5 + weights / 1e9 + 2 * weights / machine.moving


def _disk(x: Experiment, lm: CountedLM, cost: Cost, n_updates: int, n_rows: int,
          abilities: dict[str, Part]) -> dict[str, float]:  # fmt: skip
    """Returns bytes: measured are 5 KB a fact in edits.jsonl and immediate-*.jsonl, and 40 KB a checkpoint and eight
    abilities (docs/results/disk)."""
    lines = 5e3 * x.settings.n_edits + n_rows * (10e3 + 5e3 * len(abilities))
    squares = 4.0 * sum(lm.widths(lm.anatomy.mlp_out_names.index(name))[1] ** 2 for name in x.method.edited(lm))
    made = squares if cost.once.solving else 0.0
    return {"updates of the journal": cost.disk * n_updates, "records, rows, examples": lines, "cache": made}


def _notes(lm: CountedLM, cost: Cost) -> list[str]:
    notes = [*cost.notes]
    if lm.is_estimated:
        notes.append("no tokenizer of this model is on this disk: tokens are estimated from characters, 4 to a token")
    if cost.once.passes or cost.once.solving:
        notes.append("what is made once per model is read from the cache by later runs")
    notes.append("searches are taken to make all their steps; generated answers to be as long as the gold ones, and at "
                 "most as long as they may be")  # fmt: skip
    return notes

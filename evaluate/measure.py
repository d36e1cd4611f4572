"""One checkpoint: editing success, drift and abilities of the model as it is now.  Measuring changes nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from afteredit.edit.request import EditRequest
from afteredit.evaluate.abilities.ability import BuiltAbility
from afteredit.evaluate.abilities.lm_eval_model import HarnessLM
from afteredit.evaluate.abilities.unedited_scores import measure_base
from afteredit.evaluate.inference.kept_blocks import BaseBlocks
from afteredit.evaluate.inference.likelihood import Ids
from afteredit.evaluate.metrics.drift import drift
from afteredit.evaluate.metrics.editing_success import Probe, Seen, judge, look, means, probes
from afteredit.evaluate.metrics.fluency import fluency
from afteredit.model.lm import LM
from afteredit.model.packed_weights import packed
from afteredit.model.weights import View

PANEL = 100  # edits in each of the three panels on which retention is measured

Samples = list[dict[str, Any]]


@dataclass(frozen=True)
class Immediate:
    """How well the edits of one batch succeeded right after they were written."""

    samples: Samples  # one score per prompt and criterion
    texts: list[dict[str, str]]  # per request: the greedy text after its prompt, `before` any edit and `after` its own
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """All metrics of the model as it is, by the keys they are recorded under, and the scores of every example."""

    row: dict[str, float]
    samples: Samples

    def with_immediate(self, samples: Samples) -> Checkpoint:
        """Adds the success right after their own edit of the edits since the last checkpoint, given its samples."""
        row = means(samples, "editing/immediate")
        if samples:
            row["editing/immediate/n_edits"] = len({sample["request"] for sample in samples})
        return Checkpoint(row | self.row, [{"kind": "immediate", **sample} for sample in samples] + self.samples)


class Measure:
    """Measures one model; built once per run.  What a constraint shows of the edited matrices (`view`) is measured."""

    def __init__(
        self,
        lm: LM,
        abilities: Sequence[BuiltAbility],
        held_out: list[tuple[Ids, Ids]],
        first_facts: Sequence[EditRequest],
        seed: int,
        *,
        view: View = lambda _W_base_DF, W_DF: W_DF,
        progress: Callable[[str], None] = lambda _what: None,
        cache_gib: float = 0.0,
        shared: bool = False,
    ):
        """Takes what is measured beside the edits: the abilities and the windows of held-out text.

        `first_facts`: the unedited model's editing success is measured on these.  `seed`: draws the random panel.
        `progress`: is called with the name of each part before it is measured.  `cache_gib`: memory for what editing
        cannot have changed.  `shared`: the unedited model's abilities are read from the user's cache, or kept there.
        """
        self.lm, self.abilities, self.held_out, self.view = lm, abilities, held_out, view
        self.first_facts, self.seed = first_facts, seed
        self.base_blocks = BaseBlocks(lm, cache_gib)
        self.harness = HarnessLM(lm, self.base_blocks)
        self.progress, self.shared = progress, shared
        self._unedited: dict[Probe, Seen] = {}
        self._looked: set[str] = set()

    def immediate(self, batch: Sequence[EditRequest]) -> Immediate:
        """Measures the editing success of a batch, of whose edits the model holds those already."""
        started = time.perf_counter()
        with generators_kept(), self.lm.weights.seen_through(self.view):
            before = self._before(batch)
            with packed(self.lm):
                after = look(self.lm, batch)
            samples = judge(self.lm, after, before)
        prompts = [probes(request)[0] for request in batch]
        texts = [{"request": probe.request_id, "before": before[probe].text, "after": after[probe].text}
                 for probe in prompts]  # fmt: skip
        return Immediate(samples, texts, time.perf_counter() - started)

    def checkpoint(self, carried: Sequence[EditRequest], *, last: bool) -> Checkpoint:
        """Measures everything but the immediate success, after the edits `carried`, which the model holds.

        Retention is over fixed panels of these, and at the `last` checkpoint also over all of them; before the first
        edit it is the unedited model's, over the first facts.
        """
        with generators_kept(), self.lm.weights.seen_through(self.view):
            started = time.perf_counter()
            self.progress("editing success")
            panel = panels(carried or self.first_facts, self.seed)
            everyone = carried if last and len(panel) < len(carried) else []
            before = self._before([*panel, *everyone])
            with packed(self.lm):
                row, samples = self._of_this_model(carried, panel, everyone, before)
            row["time/eval_s"] = time.perf_counter() - started
            row["memory/peak_gib"] = peak_memory_gib(self.lm.device)
            return Checkpoint(row, samples)

    def _of_this_model(
        self,
        carried: Sequence[EditRequest],
        panel: Sequence[EditRequest],
        everyone: Sequence[EditRequest],
        before: dict[Probe, Seen],
    ) -> tuple[dict[str, float], Samples]:
        retained = judge(self.lm, look(self.lm, panel) if carried else before, before)
        row = means(retained, "editing/retained")
        row["editing/retained/n_edits"] = len(panel)
        samples = [{"kind": "retained", **sample} for sample in retained]
        if everyone:
            by_all = judge(self.lm, look(self.lm, everyone), before)
            row |= means(by_all, "editing/retained_by_all")
            samples += [{"kind": "retained_by_all", **sample} for sample in by_all]
        self.progress("fluency")
        written = fluency(self.lm, panel)
        row |= means(written, "editing/retained")
        samples += [{"kind": "fluency", **sample} for sample in written]
        self.progress("drift")
        row |= drift(self.lm, self.held_out, self.base_blocks)
        from_cache = self.shared and not carried and self.lm.weights.is_unedited()
        for built in self.abilities:
            self.progress(built.name)
            measured = measure_base if from_cache else BuiltAbility.measure
            metrics, examples = measured(built, self.harness, chat=self.lm.tokens.prompt == "chat")
            row |= metrics
            samples += [{"kind": "ability", "name": built.name, **asdict(example)} for example in examples]
        return row, samples

    def _before(self, requests: Sequence[EditRequest]) -> dict[Probe, Seen]:
        """What the unedited model does on the requests' probes; computed once, by putting W0 back for the while."""
        missing = [request for request in requests if request.id not in self._looked]
        if missing:
            edited = self.lm.weights.copies()
            self.lm.weights.restore()
            with packed(self.lm):
                for request in missing:  # each alone: a batch's rounding must not hang on what a resumed run has left
                    self._unedited |= look(self.lm, [request])
            self.lm.weights.put_back(edited)
            self._looked |= {request.id for request in missing}
        return self._unedited


def panels(done: Sequence[EditRequest], seed: int) -> list[EditRequest]:
    """The first 100, the last 100 and a seeded random 100 of the edits, each once, in order."""
    drawn = random.Random(seed).sample(range(len(done)), min(PANEL, len(done)))
    kept = sorted({*range(min(PANEL, len(done))), *range(max(0, len(done) - PANEL), len(done)), *drawn})
    return [done[i] for i in kept]


@contextmanager
def generators_kept() -> Iterator[None]:
    """Python's, NumPy's and torch's random generators leave as they came (lm-eval reseeds all three)."""
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def peak_memory_gib(device: torch.device) -> float:
    """Of the accelerator where there is one, else of this process (its largest resident size)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30

"""One checkpoint: editing success, drift and abilities of the model as it is now.  Measuring changes nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
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
from afteredit.model.lm import LM, View
from afteredit.model.packed_weights import packed

PANEL = 100  # edits in each of the three panels on which retention is measured

Row = dict[str, float]
Samples = list[dict[str, Any]]


class Measure:
    """Built once per run; what a constraint shows of the edited matrices (`view`) is what is measured."""

    def __init__(
        self,
        lm: LM,
        abilities: Sequence[BuiltAbility],
        held_out: list[tuple[Ids, Ids]],
        seed: int,
        view: View = lambda _W_base_DF, W_DF: W_DF,
        progress: Callable[[str], None] = lambda _what: None,
        cache_gib: float = 0.0,
        shared: bool = False,
    ):
        """`cache_gib`: for what editing cannot have changed.  `shared`: the unedited model's abilities are read from
        the user's cache, or kept there."""
        self.lm, self.abilities, self.held_out, self.seed, self.view = lm, abilities, held_out, seed, view
        self.base_blocks = BaseBlocks(lm, cache_gib)
        self.harness = HarnessLM(lm, self.base_blocks)
        self.progress, self.shared = progress, shared
        self._unedited: dict[Probe, Seen] = {}
        self._looked: set[str] = set()
        self._after: dict[Probe, Seen] = {}

    def immediate(self, batch: Sequence[EditRequest]) -> Samples:
        """Editing success of a batch right after its own edit: one row per probe and way of looking."""
        with generators_kept(), self.lm.weights.seen_through(self.view):
            before = self._before(batch)
            with packed(self.lm):
                self._after = look(self.lm, batch)
            return judge(self.lm, self._after, before)

    def generated(self, batch: Sequence[EditRequest]) -> list[dict[str, str]]:
        """The greedy text behind each request's prompt, `before` any edit and `after` its own, when `immediate` looked
        at the same batch."""
        asked = [probes(request)[0] for request in batch]
        return [{"request": probe.request_id, "before": self._unedited[probe].text, "after": self._after[probe].text}
                for probe in asked]  # fmt: skip

    def checkpoint(
        self, done: Sequence[EditRequest], recent: Samples, *, planned: Sequence[EditRequest], last: bool
    ) -> tuple[Row, Samples]:
        """All metrics after the edits `done`, and the scores of every example.

        `done`: the edits that the model carries.  `recent`: what `immediate` gave for the edits since the last
        checkpoint.  Retention is over fixed panels of those done, at the `last` apart from that over all; before the
        first edit it is the unedited model's, over those `planned`.
        """
        with generators_kept(), self.lm.weights.seen_through(self.view):
            started = time.perf_counter()
            self.progress("editing success")
            panel = panels(done or planned, self.seed)
            everyone = done if last and len(panel) < len(done) else []
            before = self._before([*panel, *everyone])
            with packed(self.lm):
                row, samples = self._of_this_model(done, recent, panel, everyone, before)
            row["time/eval_s"] = time.perf_counter() - started
            row["memory/peak_gib"] = peak_memory_gib(self.lm.device)
            return row, samples

    def _of_this_model(
        self,
        done: Sequence[EditRequest],
        recent: Samples,
        panel: Sequence[EditRequest],
        everyone: Sequence[EditRequest],
        before: dict[Probe, Seen],
    ) -> tuple[Row, Samples]:
        retained = judge(self.lm, look(self.lm, panel) if done else before, before)
        row: Row = means(recent, "editing/immediate") | means(retained, "editing/retained")
        row["editing/retained/n_edits"] = len(panel)
        if recent:
            row["editing/immediate/n_edits"] = len({sample["request"] for sample in recent})
        samples = [{"kind": "immediate", **sample} for sample in recent]
        samples += [{"kind": "retained", **sample} for sample in retained]
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
        from_cache = self.shared and not done and self.lm.weights.is_unedited()
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

"""Measures a model as it is now: editing success, fluency, drift and abilities.  Measuring changes nothing."""

from __future__ import annotations

import logging
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from afteredit.edit.request import EditRequest
from afteredit.evaluate.abilities.built_ability import AbilityScores, BuiltAbility
from afteredit.evaluate.abilities.unedited_scores import unedited_scores
from afteredit.evaluate.inference.batches import Ids
from afteredit.evaluate.inference.kept_blocks import KeptBlocks
from afteredit.evaluate.metrics.drift import drift
from afteredit.evaluate.metrics.editing_success import Responses, means, respond, success_scores
from afteredit.evaluate.metrics.fluency import fluency
from afteredit.evaluate.panels import panels, stands_for
from afteredit.model.lm import LM
from afteredit.model.weights import View
from afteredit.store.progress.work import Work, working

log = logging.getLogger(__name__)

Samples = list[dict[str, Any]]


@dataclass(frozen=True)
class Immediate:
    """Holds how well the edits of one batch succeeded, measured right after they were written."""

    samples: Samples  # one score per prompt and criterion
    texts: list[dict[str, str]]  # per prompt: the greedy text that follows, `before` any edit and `after` its own
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """Holds all metrics of the model by the keys they are recorded under, and every example: its score and what the
    model said."""

    row: dict[str, float]
    samples: Samples

    def with_immediate(self, samples: Samples) -> Checkpoint:
        """Adds the immediate success of the edits since the last checkpoint, given its samples."""
        row = means(samples, "editing/immediate")
        if samples:
            row["editing/immediate/n_edits"] = len({sample["request"] for sample in samples})
        return Checkpoint(row | self.row, _labelled("immediate", samples) + self.samples)


class Measure:
    """Measures one model; built once per run.  The constraint's `view` of the edited matrices is what is measured."""

    def __init__(
        self,
        lm: LM,
        abilities: Sequence[BuiltAbility],
        held_out: list[tuple[Ids, Ids]],
        first_facts: Sequence[EditRequest],
        seed: int,
        *,
        view: View = lambda _W_base_DF, W_DF: W_DF,
        rounding: Callable[[torch.Tensor], torch.Tensor] = lambda W_DF: W_DF,
        progress: Callable[[str], None] = lambda _part: None,
        cache_gib: float = 0.0,
        shared: bool = False,
        change_shares: Sequence[float] = (),
    ):
        """Takes what is measured besides the edits: the abilities, and the windows of held-out text.

        `first_facts`: the unedited model's editing success is measured on these.  `seed`: draws the random panel.
        `rounding`: what is done to the edited matrices after the view, and to the unedited ones that they are held
        against.
        `progress`: is called with the name of each part before it is measured.  `cache_gib`: memory for what editing
        cannot have changed.  `shared`: the unedited model's abilities are read from the user's cache, or kept there.
        `change_shares`: see `drift`.
        """
        self.lm, self.abilities, self.held_out = lm, abilities, held_out
        self.first_facts, self.seed = first_facts, seed
        self.view: View = lambda W_base_DF, W_DF: rounding(view(W_base_DF, W_DF))
        self._unedited_view: View = lambda _W_base_DF, W_DF: rounding(W_DF)
        self.progress, self.shared, self.change_shares = progress, shared, change_shares
        self.kept_blocks = KeptBlocks(lm, cache_gib)
        self._work = Work("measuring")
        self._unedited: Responses = {}
        self._unedited_ids: set[str] = set()  # the requests whose prompts `_unedited` holds

    def immediate(self, batch: Sequence[EditRequest]) -> Immediate:
        """Measures the editing success of a batch whose edits the model has just received."""
        started = time.perf_counter()
        with generators_kept(), self.lm.weights.seen_through(self.view):
            unedited = self._unedited_responses(batch)
            now = respond(self.lm, batch)
            samples = success_scores(self.lm, now, unedited)
        texts = [{"request": prompt.request_id, "group": prompt.group, "prompt": prompt.prompt,
                  "before": unedited[prompt].text, "after": said.text} for prompt, said in now.items()]  # fmt: skip
        return Immediate(samples, texts, time.perf_counter() - started)

    def checkpoint(self, carried: Sequence[EditRequest], *, last: bool) -> Checkpoint:
        """Measures everything but immediate success, on a model that holds the edits `carried`.

        Retention is over fixed panels of these edits; where these are not all, also what they say about all, and at the
        `last` checkpoint over all of them.  Before the first edit it is the unedited model's, over the first facts.
        """
        n_parts = 3 + len(self.abilities)
        with generators_kept(), self.lm.weights.seen_through(self.view), working("measuring", n_parts) as self._work:
            started = time.perf_counter()
            self._begin("editing success")
            panel = panels(carried or self.first_facts, self.seed)
            beyond_panel = carried if len(panel) < len(carried) else []
            unedited = self._unedited_responses([*panel, *(beyond_panel if last else [])])
            now = respond(self.lm, panel) if carried else unedited
            parts = [self._retention(now, unedited, len(panel), stands_for(beyond_panel, self.seed))]
            if beyond_panel and last:
                parts.append(self._retention_by_all(respond(self.lm, beyond_panel), unedited))
            parts += [self._fluency(panel), self._drift(), *self._abilities(unedited=not carried)]
            row = {key: value for part in parts for key, value in part.row.items()}
            row |= {"time/eval_s": time.perf_counter() - started, "memory/peak_gib": peak_memory_gib(self.lm.device)}
            return Checkpoint(row, [sample for part in parts for sample in part.samples])

    def _begin(self, part: str) -> None:
        self.progress(part)
        self._work.begin(part)

    def _retention(self, now: Responses, unedited: Responses, n_edits: int, weights: dict[str, float]) -> Checkpoint:
        scores = success_scores(self.lm, now, unedited, answers=True)
        row = means(scores, "editing/retained") | {"editing/retained/n_edits": n_edits}
        if weights:
            row |= means(scores, "editing/retained_estimate", weights)
        return Checkpoint(row, _labelled("retained", scores))

    def _retention_by_all(self, now: Responses, unedited: Responses) -> Checkpoint:
        scores = success_scores(self.lm, now, unedited, answers=True)
        return Checkpoint(means(scores, "editing/retained_by_all"), _labelled("retained_by_all", scores))

    def _fluency(self, requests: Sequence[EditRequest]) -> Checkpoint:
        self._begin("fluency")
        texts = fluency(self.lm, requests)
        return Checkpoint(means(texts, "editing/retained"), _labelled("fluency", texts))

    def _drift(self) -> Checkpoint:
        self._begin("drift")
        return Checkpoint(drift(self.lm, self.held_out, self.kept_blocks, self.change_shares), [])

    def _abilities(self, *, unedited: bool) -> Iterator[Checkpoint]:
        from_cache = self.shared and unedited and self.lm.weights.is_unedited()
        for built in self.abilities:
            self._begin(built.name)
            measure = unedited_scores if from_cache else BuiltAbility.measure
            scores = measure(built, self.lm, self.kept_blocks)
            if unedited:
                self._say_what_did_not_fit(built.name, scores)
            questions = built.questions() if unedited else []  # kept once, beside the unedited model's answers
            asked = dict(enumerate(questions))
            samples = [{"kind": "ability", "name": built.name, **asdict(example), **asked.get(example.doc_id, {})}
                       for example in scores.examples]  # fmt: skip
            yield Checkpoint(scores.row, samples)

    def _say_what_did_not_fit(self, name: str, scores: AbilityScores) -> None:
        n_cut, n_ran_out = (sum(getattr(row, share) or 0 for row in scores.examples) for share in ("cut", "ran_out"))
        if n_cut:
            log.warning("task=%s: %d of %d rows cut on the left: with their answers they are longer than the %s tokens "
                        "that the model reads", name, n_cut, len(scores.examples), self.lm.max_tokens)  # fmt: skip
        if n_ran_out:
            log.info("task=%s: %d of %d answers did not end within the tokens that they may have (max_gen_toks)", name,
                     n_ran_out, len(scores.examples))  # fmt: skip

    def _unedited_responses(self, requests: Sequence[EditRequest]) -> Responses:
        """Returns what the unedited model does on the requests' prompts; W0 is put back for it, once per request."""
        missing = [request for request in requests if request.id not in self._unedited_ids]
        if missing:
            edited = self.lm.weights.copies()
            self.lm.weights.restore()
            with working("facts", len(missing)) as work, self.lm.weights.seen_through(self._unedited_view):
                for request in missing:  # one by one: rounding must not depend on the batch, which a resumed run alters
                    self._unedited |= respond(self.lm, [request])
                    work.done += 1
            self.lm.weights.put_back(edited)
            self._unedited_ids |= {request.id for request in missing}
        return self._unedited


def _labelled(kind: str, samples: Samples) -> Samples:
    return [{"kind": kind, **sample} for sample in samples]


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restores Python's, NumPy's and torch's random generators at the end (lm-eval reseeds all three)."""
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
    """Returns the peak of the accelerator's memory where there is one, else this process's largest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30

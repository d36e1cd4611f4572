"""Counts what checkpoints and immediate success cost, by running their own code on a counted model."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from afteredit.commands.plan.counted_lm import CountedBlocks, CountedLM
from afteredit.edit.request import EditRequest
from afteredit.evaluate.abilities.build import build_tasks
from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.inference.held_out import held_out
from afteredit.evaluate.inference.likelihood import score
from afteredit.evaluate.metrics.editing_success import respond
from afteredit.evaluate.metrics.fluency import fluency
from afteredit.evaluate.panels import PANEL_SIZE
from afteredit.launch.experiment import Experiment, Settings
from afteredit.model.costs.work import Pass, Work
from afteredit.record.run_directory import N_FIRST_FACTS

ROWS = 32  # of each ability that are counted; of more, their share is taken to be alike
FACTS = 24  # whose prompts are counted


@dataclass(frozen=True)
class Part:
    """One part of a checkpoint: its work the first time and any later, the least of it where answers end early, and the
    seconds beside the model's passes (texts, prompts, metrics), as they were while it was counted."""

    first: Work
    again: Work
    most: Work  # as `again`, with every generated answer as long as it may be
    beside: float = 0.0
    columns: int = 0
    tokens: int = 0
    logits: int = 0

    def __mul__(self, times: float) -> Part:
        return dataclasses.replace(self, first=self.first * times, again=self.again * times, most=self.most * times,
                                   beside=self.beside * times)  # fmt: skip


class Counter:
    """Counts the parts of an experiment's evaluation."""

    def __init__(self, x: Experiment, lm: CountedLM, facts: Sequence[EditRequest], lowest: int):
        self.x, self.lm, self.facts = x, lm, facts
        self._lowest, self._blocks = lowest, CountedBlocks(lm, x.speed.cache_gib, lowest)

    @property
    def kept_bytes(self) -> int:
        """The bytes that stay of the blocks below the lowest edited one."""
        return self._blocks.n_bytes

    def immediate(self) -> Part:
        """Returns the mean of one fact's immediate success; the unedited model is asked as well."""
        sample = self.facts[:FACTS]
        batch = max(1, min(self.x.settings.batch_size, len(sample)))
        batches = [sample[i : i + batch] for i in range(0, len(sample), batch)]
        now = [self._part(partial(respond, self.lm, each)) for each in batches]
        before = [self._part(partial(respond, self.lm, [fact])) for fact in sample]
        return _joined([*now, *before]) * (1 / len(sample))

    def unedited(self) -> dict[str, Part]:
        """Returns the parts of the checkpoint at 0 edits, but for abilities; the first facts are asked one by one."""
        first = self.facts[:N_FIRST_FACTS]
        asked = _joined([self._part(partial(respond, self.lm, [fact])) for fact in first])
        return {"editing success": asked, **self._rest(first)}

    def checkpoint(self, n_edits: int, last: bool) -> dict[str, Part]:
        """Returns the parts of the checkpoint after so many edits, but for the abilities; at the `last` all edits are
        asked about as well as a panel of them."""
        panel = _panel_size(n_edits)
        asked = panel + (n_edits if last and n_edits > panel else 0)
        sample = random.Random(0).sample(list(self.facts[:n_edits]), min(panel, FACTS))
        success = self._part(partial(respond, self.lm, sample)) * (asked / len(sample))
        return {"editing success": success, **self._rest(self.facts[:panel])}

    def _rest(self, panel: Sequence[EditRequest]) -> dict[str, Part]:
        parts = {"fluency": self._part(partial(fluency, self.lm, panel))}
        windows = held_out(self.lm, self.x.settings)
        drift = self._part(partial(score, self.lm, windows, self._blocks))
        sizes = [self.lm.widths(layer) for layer in self._edited_layers()]
        matrices = Work(solving=sum(2.0 * min(d) ** 2 * max(d) + 4.0 * min(d) ** 3 for d in sizes),
                        moved=sum(40.0 * d[0] * d[1] for d in sizes))  # fmt: skip
        parts["drift"] = dataclasses.replace(drift, first=drift.first + matrices, again=drift.again + matrices,
                                             most=drift.most + matrices)  # fmt: skip
        return parts

    def abilities(self) -> dict[str, Part]:
        """Returns the part of each ability, from its own rows."""
        few = few_rows(self.x.settings)
        whole = {built.name: built for built in build_tasks(self.x.tasks, self.x.settings)}
        counted = build_tasks(self.x.tasks, few) if self.x.settings.limit != few.limit else list(whole.values())
        return {built.name: self._ability(built) * (_n_rows(whole[built.name]) / _n_rows(built)) for built in counted}

    def _ability(self, built: BuiltAbility) -> Part:
        generates = built.task.OUTPUT_TYPE == "generate_until"
        expected = self._gold_tokens(built) + 1 if generates else float("inf")
        part = self._part(partial(built.measure, self.lm, self._blocks), expected)
        if not generates:
            return part
        longest = self._part(partial(built.measure, self.lm, CountedBlocks(self.lm, 1e9, self._lowest)))
        return dataclasses.replace(part, most=longest.again, columns=longest.columns)

    def _gold_tokens(self, built: BuiltAbility) -> float:
        """Returns the mean number of tokens of the answers that are wanted."""
        lengths = []
        for doc in list(built.task.eval_docs)[:ROWS]:
            gold = built.task.doc_to_target(doc)
            text = str(gold[0] if isinstance(gold, list) and gold else gold)
            lengths.append(len(self.lm.tokens.text_ids(text)))
        return sum(lengths) / max(1, len(lengths))

    def _part(self, measure: Callable[[], object], answer_tokens: float = float("inf")) -> Part:
        began = time.process_time()
        with self.lm.counting(answer_tokens) as counts:
            measure()
        seconds = time.process_time() - began
        first, again = (_merged(Work(tuple(passes))) for passes in (counts.first, counts.again))
        return Part(first, again, again, seconds, counts.columns, counts.tokens, counts.logits)

    def _edited_layers(self) -> list[int]:
        names = self.x.method.edited(self.lm)
        return [layer for layer in range(self.lm.n_blocks) if self.lm.mlp_out_name(layer) in names]


def few_rows(settings: Settings) -> Settings:
    """Returns the settings with at most ROWS rows of each ability."""
    return dataclasses.replace(settings, limit=min(ROWS, settings.limit or ROWS))


def _joined(parts: Sequence[Part]) -> Part:
    work = [sum((getattr(part, name) for part in parts), Work()) for name in ("first", "again", "most")]
    most = [max(getattr(part, name) for part in parts) for name in ("columns", "tokens", "logits")]
    first, again, longest = map(_merged, work)
    return Part(first, again, longest, sum(part.beside for part in parts), *most)


def _merged(work: Work) -> Work:
    """Returns the same work with like passes counted together."""
    times: dict[Pass, float] = {}
    for one in work.passes:
        alone = dataclasses.replace(one, times=1.0)
        times[alone] = times.get(alone, 0.0) + one.times
    return Work(tuple(dataclasses.replace(one, times=n) for one, n in times.items()), work.solving, work.moved)


def _panel_size(n_edits: int) -> int:
    """Returns about how many different edits three panels hold."""
    drawn = min(PANEL_SIZE, n_edits)
    ends = min(2 * PANEL_SIZE, n_edits)
    return ends + round(drawn * (n_edits - ends) / max(1, n_edits))


def _n_rows(built: BuiltAbility) -> int:
    n_docs = len(built.task.eval_docs)
    return min(n_docs, built.limit) if built.limit else n_docs

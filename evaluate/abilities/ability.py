"""Ability: one lm-eval task, which of its metrics is the headline, and its chance level.

lm-eval owns the task: prompts, few-shot examples, filters, metrics, aggregation.  Tasks and their requests are built
once per run; each checkpoint answers them anew (lm-eval's response cache stays off: it does not see weights).
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from afteredit.evaluate.abilities.lm_eval_model import HarnessLM

FEWSHOT_SEED = 1234  # lm-eval's own default
UNREAD = ("", "[invalid]")  # what lm-eval's filters leave where they find no answer


@dataclass(frozen=True)
class Ability:
    """`lm_eval` is an inline lm-eval task config, or the name of a task that lm-eval ships."""

    headline: str
    chance: float
    lm_eval: Any
    title: str = ""
    rows: list[str] = field(default_factory=list)  # file names looked for: the embedded one, then the real set's
    hub: dict[str, Any] = field(
        default_factory=dict
    )  # path, name, split, revision, columns (ours: theirs), label_names


@dataclass(frozen=True)
class Example:
    """What one row scored: headline = numerator / denominator (mean over rows: Σ numerators / Σ denominators)."""

    doc_id: int
    numerator: float
    denominator: float
    gold_nll: float | None  # nats, mean per token of the gold answer
    unparseable: float | None


class BuiltAbility:
    """An ability whose task and requests stand ready."""

    def __init__(self, name: str, ability: Ability, data: str, limit: int | None):
        """Raises BadInput for a task that lm-eval cannot build, or rows that cannot be had."""
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self.name, self.ability, self.limit = name, ability, limit
        self.task = _task(name, ability, data)
        self.task.set_fewshot_seed(seed=FEWSHOT_SEED)
        self._built = False

    def measure(self, harness: HarnessLM, chat: bool) -> tuple[dict[str, float], list[Example]]:
        """The ability's metrics by the keys they are tracked under, and every example's scores."""
        from lm_eval.evaluator import evaluate

        harness.scored.clear()
        self._delimiter = "" if chat else self.task.config.target_delimiter  # behind a chat turn lm-eval puts none
        harness.gold = self._gold
        with _reused_requests(self):
            results = evaluate(
                harness, {self.name: self.task}, limit=self.limit, bootstrap_iters=0, log_samples=True,
                apply_chat_template=chat,
            )  # fmt: skip
        assert results is not None  # we are the only rank
        metrics = results["results"][self.name]
        found = [key for key in metrics if key.split(",")[0] == self.ability.headline]
        if not found:
            known = sorted({key.split(",")[0] for key in metrics if "," in key and "_stderr" not in key})
            raise BadInput(f"task={self.name}: headline {self.ability.headline!r} is none of its metrics: {known}")
        gold = self._gold_nll(harness)
        one_filter = found[-1].split(",")[1]
        examples = [
            _example(sample, self.ability.headline, gold.get(sample["doc_id"]), self.task.OUTPUT_TYPE)
            for sample in results["samples"][self.name]
            if sample["filter"] == one_filter
        ]
        row = {f"ability/{self.name}": float(metrics[found[-1]])}
        nlls = [e.gold_nll for e in examples if e.gold_nll is not None]
        unread = [e.unparseable for e in examples if e.unparseable is not None]
        if nlls:
            row[f"ability/{self.name}/gold_nll"] = sum(nlls) / len(nlls)
        if unread:
            row[f"ability/{self.name}/unparseable"] = sum(unread) / len(unread)
        return row, examples

    def _gold(self, request: Any) -> str | None:
        """The answer wanted to a request to generate, as it continues the context."""
        gold = self.task.doc_to_target(request.doc)
        text = gold[0] if isinstance(gold, list) else str(gold)
        return self._delimiter + text if text.strip() else None

    def _gold_nll(self, harness: HarnessLM) -> dict[int, float]:
        """Per document, of the gold answer behind the same context; already scored where it was one of the choices, or
        on the way to an answer generated."""
        from lm_eval.api.instance import Instance

        asked: dict[int, tuple[str, str]] = {}
        by_doc: dict[int, list[Any]] = {}
        for instance in self.task.instances:
            by_doc.setdefault(instance.doc_id, []).append(instance)
        for doc_id, instances in by_doc.items():
            if self.task.OUTPUT_TYPE == "multiple_choice":
                gold = self.task.doc_to_target(instances[0].doc)
                index = gold[0] if isinstance(gold, list) else gold
                if isinstance(index, int) and 0 <= index < len(instances):
                    asked[doc_id] = instances[index].args
            elif self.task.OUTPUT_TYPE == "generate_until":
                answer = self._gold(instances[0])
                if answer is not None:
                    asked[doc_id] = (instances[0].args[0], answer)
        missing = [pair for pair in asked.values() if pair not in harness.scored]
        harness.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in missing])
        return {doc_id: -harness.scored[pair][0] / harness.scored[pair][1] for doc_id, pair in asked.items()}


def shipped(name: str) -> Ability:
    """An ability around a task that lm-eval ships (`harness=[hellaswag]`), its headline the task's first metric."""
    task = _shipped_task(name)
    headline = next(iter(task.aggregation()))
    choices = task.doc_to_choice(task.eval_docs[0]) if task.OUTPUT_TYPE == "multiple_choice" else None
    return Ability(headline=headline, chance=1 / len(choices) if choices else 0.0, lm_eval=name)


def _task(name: str, ability: Ability, data: str) -> Any:
    from lm_eval.api.task import ConfigurableTask

    from afteredit.evaluate.abilities.task_rows import load_rows

    if isinstance(ability.lm_eval, str):
        return _shipped_task(ability.lm_eval)
    config = {key: _resolved(value) for key, value in ability.lm_eval.items()}
    source = {"task": name, "files": list(ability.rows), "hub": dict(ability.hub), "data": data}
    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": load_rows,
            "dataset_kwargs": source,
            "test_split": "test",
            **config,
        }  # fmt: skip
    )


def _shipped_task(name: str) -> Any:
    from difflib import get_close_matches

    manager = _task_manager()
    if name not in manager.all_subtasks:
        close = get_close_matches(name, manager.all_subtasks, n=3)
        raise BadInput(f"harness task {name!r} is not one that lm-eval ships; did you mean {close}? "
                       "`lm-eval ls tasks` lists them all")  # fmt: skip
    try:
        (task,) = manager.load([name])["tasks"].values()
    except (OSError, ValueError) as problem:
        raise BadInput(f"harness task {name!r} could not be loaded ({str(problem).splitlines()[0]}); its rows come "
                       "from the hub: let this machine reach it, or leave the task out") from None  # fmt: skip
    return task


@cache
def _task_manager() -> Any:
    """lm-eval's index of the tasks it ships takes seconds to build."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _resolved(value: Any) -> Any:
    """Dotted paths into this project become the functions they name; nothing else is imported from a config."""
    if isinstance(value, str) and value.startswith("afteredit."):
        module, _, function = value.rpartition(".")
        return getattr(importlib.import_module(module), function)
    if isinstance(value, Mapping):
        return {key: _resolved(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner) for inner in value]
    return value


class _reused_requests:
    """Lets lm-eval's evaluator build a task's requests the first time, and only clears their answers afterwards."""

    def __init__(self, built: BuiltAbility):
        self.built = built

    def __enter__(self) -> None:
        task = self.built.task
        for instance in getattr(task, "_instances", None) or []:
            instance.resps, instance.filtered_resps = [], {}
        if self.built._built:
            task.build_all_requests = lambda **_: None

    def __exit__(self, *_: object) -> None:
        self.built._built = True


def _example(sample: Mapping[str, Any], headline: str, gold_nll: float | None, output_type: str) -> Example:
    score = sample[headline]
    numerator, denominator = score if isinstance(score, tuple) else (float(score), 1.0)
    unparseable = sample.get("unparseable")
    if unparseable is None and output_type == "generate_until":
        answer = sample["filtered_resps"][0]
        answer = answer[0] if isinstance(answer, list) else answer
        unparseable = float(str(answer).strip() in UNREAD)
    return Example(sample["doc_id"], float(numerator), float(denominator), gold_nll, unparseable)

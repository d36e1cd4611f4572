"""Makes lm-eval's task objects: from an inline config, or by the name of a task that lm-eval ships."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.task_rows import load_rows
from afteredit.store.errors import BadInput


def make_task(name: str, ability: Ability, data: str, limit: int | None = None) -> Any:
    """Returns lm-eval's task; one of ours holds its first `limit` rows.

    Raises BadInput where lm-eval cannot build it, or its rows cannot be had.
    """
    from lm_eval.api.task import ConfigurableTask

    if isinstance(ability.lm_eval, str):
        return _shipped_task(ability.lm_eval)
    source = {"task": name, "files": list(ability.rows), "hub": dict(ability.hub), "labels": dict(ability.labels),
              "data": data, "limit": limit}  # fmt: skip
    config = {"task": name, "custom_dataset": load_rows, "dataset_kwargs": source, "test_split": "test"}
    return ConfigurableTask(config={**config, **with_functions(dict(ability.lm_eval))})


def shipped_ability(name: str) -> Ability:
    """Returns an ability for a task that lm-eval ships (`harness=[hellaswag]`); its first metric is the headline.

    Raises BadInput for a name that lm-eval does not know, or where it cannot get the rows.
    """
    task = _shipped_task(name)
    headline = next(iter(task.aggregation()))
    choices = task.doc_to_choice(task.eval_docs[0]) if task.OUTPUT_TYPE == "multiple_choice" else None
    return Ability(headline=headline, chance=1 / len(choices) if choices else 0.0, lm_eval=name)


def with_functions(value: Any) -> Any:
    """Returns a config in which dotted paths into this project have become the functions that they name.

    Nothing else is imported from a config.
    """
    if isinstance(value, str) and value.startswith("afteredit."):
        module, _, function = value.rpartition(".")
        return getattr(importlib.import_module(module), function)
    if isinstance(value, Mapping):
        return {key: with_functions(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_functions(inner) for inner in value]
    return value


def _shipped_task(name: str) -> Any:
    manager = _task_manager()
    if name not in manager.all_subtasks:
        close = get_close_matches(name, manager.all_subtasks, n=3)
        guess = f"; did you mean {close}?" if close else ";"
        raise BadInput(f"harness task {name!r} is not one that lm-eval ships{guess} "
                       "`lm-eval ls tasks` lists them all")  # fmt: skip
    try:
        (task,) = manager.load([name])["tasks"].values()
    except (OSError, ValueError) as problem:
        raise BadInput(f"harness task {name!r} could not be loaded ({str(problem).splitlines()[0]}); its rows come "
                       "from the hub: let this machine reach it, or leave the task out") from None  # fmt: skip
    return task


@cache
def _task_manager() -> Any:
    """Returns lm-eval's index of the tasks that it ships, which takes seconds to build."""
    from lm_eval.tasks import TaskManager

    return TaskManager()

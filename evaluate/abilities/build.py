"""Checks the files that a run measures with, and builds its abilities once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.abilities.lm_eval_tasks import make_task, shipped_ability, with_functions
from afteredit.evaluate.abilities.task_rows import find_rows
from afteredit.evaluate.inference.held_out import held_out_text
from afteredit.evaluate.settings import MeasureSettings
from afteredit.store.errors import BadInput
from afteredit.store.user_cache import content_hash


def check_files(tasks: Mapping[str, Ability], settings: MeasureSettings) -> None:
    """Raises BadInput, before anything heavy is loaded, where a task's rows or the held-out text are missing."""
    held_out_text(settings)
    if settings.data != "hub":
        for name, ability in tasks.items():
            if not isinstance(ability.lm_eval, str):
                find_rows(name, ability.rows, settings.data)


def rows_sha256(tasks: Mapping[str, Ability], data: str) -> dict[str, str]:
    """Returns the hash of each task's rows: of their file's bytes, or of what the hub gives."""
    hashes: dict[str, str] = {}
    for name, ability in tasks.items():
        if data == "hub" or isinstance(ability.lm_eval, str):
            hashes[name] = content_hash(list(make_task(name, ability, data).eval_docs))
        else:
            hashes[name] = hashlib.sha256(find_rows(name, ability.rows, data).read_bytes()).hexdigest()[:16]
    return hashes


def code_of(ability: Ability) -> list[Any]:
    """Returns the class of an ability and the functions that its task names."""
    return [type(ability), with_functions(ability.lm_eval)]


def shipped_abilities(names: Sequence[str]) -> dict[str, Ability]:
    """Returns an ability for each task that lm-eval ships under one of `names`."""
    return {name: shipped_ability(name) for name in names}


def build_tasks(tasks: Mapping[str, Ability], settings: MeasureSettings) -> list[BuiltAbility]:
    """Returns the abilities of `tasks`, and of the shipped tasks in `settings`, ready to be measured."""
    abilities = {**tasks, **shipped_abilities(settings.harness)}
    return [_built(name, ability, settings) for name, ability in abilities.items()]


def _built(name: str, ability: Ability, settings: MeasureSettings) -> BuiltAbility:
    """Raises BadInput where a row of our tasks does not fill the prompt, or its answer is none of the choices.

    lm-eval would score such a row as wrong and say nothing.
    """
    if isinstance(ability.lm_eval, str):
        return BuiltAbility(name, ability, settings.data, settings.limit)
    from jinja2 import TemplateError

    where = "its rows do"
    try:
        built = BuiltAbility(name, ability, settings.data, settings.limit)
        for number, row in enumerate(islice(built.task.eval_docs, settings.limit), start=1):
            where = f"row {number} does"
            _refuse_empty(row, ability.lm_eval)
            built.task.doc_to_text(row)
            gold = built.task.doc_to_target(row)
            if built.task.OUTPUT_TYPE == "multiple_choice":
                choices = built.task.doc_to_choice(row)
                if not isinstance(gold, int) or not 0 <= gold < len(choices):
                    raise LookupError(f"the answer {gold!r} is none of 0..{len(choices) - 1}, in place of {choices}")
    except BadInput:
        raise
    except (TemplateError, LookupError, TypeError, ValueError) as problem:
        raise BadInput(f"task={name}: {where} not fit the task: {problem}; its columns and answers are those in "
                       f"conf/task/{name}.yaml and data/") from None  # fmt: skip
    return built


def _refuse_empty(row: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises ValueError where null stands in a column that the task uses, which a prompt would show as "None", or where
    an answer is empty."""
    from jinja2 import Environment, meta

    empty_values: dict[str, tuple[Any, ...]] = {"doc_to_text": (None,), "doc_to_target": (None, "", [])}
    for key, empty in empty_values.items():
        template = config.get(key)
        if isinstance(template, str):
            names = {template, *meta.find_undeclared_variables(Environment().parse(template))}
            for name in sorted(names & set(row)):
                if any(row[name] == value and type(row[name]) is type(value) for value in empty):
                    raise ValueError(f"its column {name} is {row[name]!r}")

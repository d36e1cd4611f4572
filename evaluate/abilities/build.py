"""The abilities and the held-out text of a run, built once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice

from afteredit.evaluate.abilities.ability import Ability, BuiltAbility, shipped
from afteredit.evaluate.abilities.task_rows import find_rows
from afteredit.evaluate.inference.held_out import held_out_text
from afteredit.evaluate.settings import MeasureSettings
from afteredit.store.errors import BadInput


def check_files(tasks: Mapping[str, Ability], settings: MeasureSettings) -> None:
    """Raises BadInput, before anything heavy is loaded, where a task's rows or the held-out text are not there."""
    held_out_text(settings)
    if settings.data != "hub":
        for name, ability in tasks.items():
            if not isinstance(ability.lm_eval, str):
                find_rows(name, ability.rows, settings.data)


def rows_sha256(tasks: Mapping[str, Ability], data: str) -> dict[str, str]:
    """Of each task's file; the hub's rows are told apart by the revision in the task's config."""
    if data == "hub":
        return {}
    files = {n: find_rows(n, a.rows, data) for n, a in tasks.items() if not isinstance(a.lm_eval, str)}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items()}


def shipped_abilities(names: Sequence[str]) -> dict[str, Ability]:
    return {name: shipped(name) for name in names}


def build_tasks(tasks: Mapping[str, Ability], settings: MeasureSettings) -> list[BuiltAbility]:
    every = {**tasks, **shipped_abilities(settings.harness)}
    return [_built(name, ability, settings) for name, ability in every.items()]


def _built(name: str, ability: Ability, settings: MeasureSettings) -> BuiltAbility:
    """Raises BadInput for rows of our tasks that their prompts cannot be made from, or whose answer is none of the
    choices: lm-eval scores these as wrong and says nothing."""
    if isinstance(ability.lm_eval, str):
        return BuiltAbility(name, ability, settings.data, settings.limit)
    from jinja2 import TemplateError

    where = "its rows do"
    try:
        built = BuiltAbility(name, ability, settings.data, settings.limit)
        for number, row in enumerate(islice(built.task.eval_docs, settings.limit), start=1):
            where = f"row {number} does"
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

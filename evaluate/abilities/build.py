"""Checks the files that a run measures with, and builds its abilities once."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.abilities.gold_answers import refuse_gold, silence_is_right
from afteredit.evaluate.abilities.labels import with_classes
from afteredit.evaluate.abilities.lm_eval_tasks import (
    harness_abilities,
    make_task,
    refuse_unknown_tasks,
    with_functions,
)
from afteredit.evaluate.abilities.task_rows import find_rows, read_task_rows
from afteredit.evaluate.inference.held_out import held_out_text
from afteredit.evaluate.settings import MeasureSettings
from afteredit.store.errors import BadInput
from afteredit.store.plain_yaml import refuse_endless
from afteredit.store.rows.normal_text import shown
from afteredit.store.rows.row import Row
from afteredit.store.user_cache import content_hash

log = logging.getLogger(__name__)


def check_files(tasks: Mapping[str, Ability], settings: MeasureSettings) -> None:
    """Raises BadInput, before a model is loaded, where a task's rows, a task of lm-eval's or the held-out text is
    missing."""
    held_out_text(settings)
    if settings.harness_path is not None and not Path(settings.harness_path).is_dir():
        raise BadInput(f"harness_path={settings.harness_path} is no folder; give the one that holds your task files "
                       "for lm-eval")  # fmt: skip
    if settings.harness and settings.harness_path:
        for path in sorted(Path(settings.harness_path).rglob("*.yaml")):
            refuse_endless(path)
    refuse_unknown_tasks(settings)
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


def with_chance(tasks: Mapping[str, Ability], settings: MeasureSettings) -> dict[str, Ability]:
    """Returns the abilities with a number for each chance level that depends on the rows in use."""
    return {
        name: dataclasses.replace(ability, chance=_built(name, ability, settings).silent_score())
        if ability.chance is None
        else ability
        for name, ability in tasks.items()
    }


def build_tasks(tasks: Mapping[str, Ability], settings: MeasureSettings) -> list[BuiltAbility]:
    """Returns the abilities of `tasks`, and of the tasks that `settings` name for lm-eval, ready to be measured."""
    abilities = {**tasks, **harness_abilities(settings)}
    return [_built(name, ability, settings) for name, ability in abilities.items()]


def _built(name: str, ability: Ability, settings: MeasureSettings) -> BuiltAbility:
    """Raises BadInput where a row of our tasks does not fill the prompt, or its answer is none of the choices.

    lm-eval would score such a row as wrong and say nothing.
    """
    if isinstance(ability.lm_eval, str):
        return BuiltAbility(name, ability, settings.data, settings.limit)
    from jinja2 import TemplateError

    silent: list[int] = []
    number = 0  # lm-eval looks at the first row as it makes a task, and turns each into questions
    try:
        built = BuiltAbility(name, ability, settings.data, settings.limit)
        for number, row in enumerate(islice(built.task.eval_docs, built.limit), start=1):  # noqa: B007
            _refuse_empty(row, ability.lm_eval)
            built.task.doc_to_text(row)
            if built.task.OUTPUT_TYPE == "generate_until":
                refuse_gold(built.task, row, ability.headline, ability.lm_eval)
                if silence_is_right(built.task, row, ability.headline, ability.lm_eval):
                    silent.append(number)
            if built.task.OUTPUT_TYPE == "multiple_choice":
                gold = built.task.doc_to_target(row)
                choices = built.task.doc_to_choice(row)
                if not isinstance(gold, int) or not 0 <= gold < len(choices):
                    raise LookupError(f"the answer {gold!r} is none of 0..{len(choices) - 1}, in place of {choices}")
    except BadInput:
        raise
    except (TemplateError, LookupError, TypeError, ValueError, SyntaxError, OverflowError) as problem:
        raise _misfit(name, ability, settings.data, number, problem) from None
    if silent:
        _leave_out(built, silent, settings.data)
    return built


def _leave_out(built: BuiltAbility, silent: Sequence[int], data: str) -> None:
    """Takes the rows that a model which says nothing would answer out of a task, and warns of them.

    Published sets hold such rows too (NQ's "---"), so that they stop no run.  Raises BadInput where no others are left.
    """
    name, ability, docs = built.name, built.ability, built.task.dataset["test"]
    rows = read_task_rows(name, ability.rows, ability.hub, data)
    places = [f"{rows[number - 1].place} ({shown(built.task.doc_to_target(docs[number - 1]))})" for number in silent]
    reason = "the metric leaves nothing of their gold answers, so that silence would be right: " + ", ".join(places)
    if len(silent) == len(docs):
        raise BadInput(f"task={name}: no row can be measured; {reason}; give an answer of letters or digits")
    log.warning("task=%s: %d of %d rows left out; %s", name, len(silent), len(docs), reason)
    built.task.dataset["test"] = docs.select(sorted(set(range(len(docs))) - {number - 1 for number in silent}))


def _misfit(name: str, ability: Ability, data: str, number: int, problem: Exception) -> BadInput:
    """Returns the error that names the row which does not fit the task, what it holds and what is allowed."""
    row = _row_of(number, ability, read_task_rows(name, ability.rows, ability.hub, data))
    reason = f"{problem}; it holds {', '.join(f'{column}={shown(value)}' for column, value in row.value.items())}"
    try:
        _refuse_empty(row.value, ability.lm_eval)
    except ValueError as clearer:
        reason = str(clearer)
    return BadInput(f"{row.place}: does not fit task={name}: {reason}; its columns and answers are those in "
                    f"conf/task/{name}.yaml and data/")  # fmt: skip


def _row_of(number: int, ability: Ability, rows: Sequence[Row]) -> Row:
    """Returns the row that a task's question comes from; for 0 the first that cannot be turned into questions."""
    as_questions = with_functions(ability.lm_eval).get("process_docs") or list
    n_questions = 0
    for row in rows:
        try:
            n_questions += len(as_questions([with_classes(row, ability.labels)]))
        except (LookupError, TypeError, ValueError):
            return row
        if 0 < number <= n_questions:
            return row
    return rows[0]


def _refuse_empty(row: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises ValueError where null, nothing or an object stands in a column that the task uses, or something else than
    a text where the prompt shows the column as it is: it would be asked as "None", "[]" or "['a']"."""
    from jinja2 import Environment, meta

    for key in ("doc_to_text", "doc_to_choice", "doc_to_target"):
        template = config.get(key)
        if isinstance(template, str):
            names = {template, *meta.find_undeclared_variables(Environment().parse(template))}
            for name in sorted(names & set(row)):
                if _is_empty(row[name], key == "doc_to_choice"):
                    wanted = "a list of texts" if key == "doc_to_choice" else "a text, or a list of texts"
                    raise ValueError(f"field {name} is {shown(row[name])}; allowed: {wanted}, not empty and not null")
                shown_as_it_is = name == template or re.search(rf"{{{{\s*{name}\s*}}}}", template)
                if key == "doc_to_text" and shown_as_it_is and not isinstance(row[name], str):
                    raise ValueError(f"field {name} is {shown(row[name])}; allowed: a text")


def _is_empty(value: Any, texts: bool = False) -> bool:
    """Tells whether a value, or one of a list, is null, an object or holds nothing; with `texts`, or no text."""
    if isinstance(value, list):
        return not value or any(_is_empty(part) or (texts and not isinstance(part, str)) for part in value)
    return value is None or isinstance(value, Mapping) or (isinstance(value, str) and not value.strip())

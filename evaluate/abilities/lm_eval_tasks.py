"""Makes lm-eval's task objects: from an inline config, or by the name of one that it ships or a folder holds."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.task_rows import load_rows
from afteredit.evaluate.settings import MeasureSettings
from afteredit.store.errors import BadInput
from afteredit.store.field_roles import NOTHING, decides
from afteredit.store.own_code import is_allowed


@dataclass(frozen=True)
class OwnTask(Ability):
    """An ability whose task, named by `lm_eval`, stands in a folder of task files for lm-eval."""

    folder: str = field(default="", metadata=decides(NOTHING))
    files_sha256: str = ""  # of all that the folder holds


def make_task(name: str, ability: Ability, data: str, limit: int | None = None) -> Any:
    """Returns lm-eval's task; one of ours holds its first `limit` rows.

    Raises BadInput where lm-eval cannot build it, or its rows cannot be had.
    """
    from lm_eval.api.task import ConfigurableTask

    if isinstance(ability.lm_eval, str):
        own = (ability.folder, ability.files_sha256) if isinstance(ability, OwnTask) else ()
        return _task_by_name(ability.lm_eval, *own)
    source = {"task": name, "files": list(ability.rows), "hub": dict(ability.hub), "labels": dict(ability.labels),
              "data": data, "limit": limit}  # fmt: skip
    config = {"task": name, "custom_dataset": load_rows, "dataset_kwargs": source, "test_split": "test"}
    return ConfigurableTask(config={**config, **with_functions(dict(ability.lm_eval))})


def harness_abilities(settings: MeasureSettings) -> dict[str, Ability]:
    """Returns an ability for each task of `harness`, which `harness_path` holds or lm-eval ships; its first metric is
    the headline.

    Raises BadInput for a name that neither has, or where lm-eval cannot get the rows.
    """
    folder, sha256, held = refuse_unknown_tasks(settings)
    return {name: _own_task(name, folder, sha256) if name in held else
            Ability(*_headline_and_chance(_task_by_name(name)), name) for name in settings.harness}  # fmt: skip


def refuse_unknown_tasks(settings: MeasureSettings) -> tuple[str, str, list[str]]:
    """Returns what `_held` does.  Raises BadInput for a name in `harness` that neither `harness_path` holds nor lm-eval
    ships; reads no rows."""
    folder, sha256, held = _held(settings)
    for name in settings.harness:
        if name not in held:
            _refuse_unshipped(name, folder, held)
    return folder, sha256, held


def _refuse_unshipped(name: str, folder: str, held: Sequence[str]) -> None:
    manager = _task_manager("", "")
    known = manager.all_subtasks
    if name in (*manager.all_groups, *manager.all_tags):
        index = manager.task_index
        held_by_it = [task for task in known if task.startswith(f"{name}_") or name in index[task].tags]
        raise BadInput(f"harness task {name!r} is a group of lm-eval's tasks, and each is measured by itself: name "
                       f"them one by one, as {held_by_it[:5]}; `lm-eval ls subtasks` lists them all")  # fmt: skip
    if name not in known:
        close = get_close_matches(name, [*known, *held], n=3)
        guess = f"; did you mean {close}?" if close else ";"
        in_folder = f", and harness_path={folder} holds {', '.join(held) or 'no task'}" if folder else ""
        raise BadInput(f"harness task {name!r} is not one that lm-eval ships{in_folder}{guess} "
                       "`lm-eval ls tasks` lists them all")  # fmt: skip


def _held(settings: MeasureSettings) -> tuple[str, str, list[str]]:
    """Returns the folder that `harness_path` names, the SHA-256 of its files, and the tasks that it holds."""
    folder = str(Path(settings.harness_path).resolve()) if settings.harness_path and settings.harness else ""
    sha256 = files_sha256(folder)
    return folder, sha256, list(_task_manager(folder, sha256).all_subtasks) if folder else []


def _own_task(name: str, folder: str, sha256: str) -> Ability:
    return OwnTask(*_headline_and_chance(_task_by_name(name, folder, sha256)), name, folder=folder, files_sha256=sha256)


def _headline_and_chance(task: Any) -> tuple[str, float]:
    choices = task.doc_to_choice(task.eval_docs[0]) if task.OUTPUT_TYPE == "multiple_choice" else None
    return next(iter(task.aggregation())), 1 / len(choices) if choices else 0.0


def files_sha256(folder: str) -> str:
    """Returns the SHA-256 of the names and contents of all files under a folder; nothing for no folder."""
    if not folder:
        return ""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def with_functions(value: Any) -> Any:
    """Returns a config in which dotted paths into this project, and into what the command allows (`own_code`), have
    become the functions that they name.

    Nothing else is imported from a config.
    """
    if isinstance(value, str) and (value.startswith("afteredit.") or is_allowed(value)):
        module, _, function = value.rpartition(".")
        return getattr(importlib.import_module(module), function)
    if isinstance(value, Mapping):
        return {key: with_functions(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_functions(inner) for inner in value]
    return value


def _task_by_name(name: str, folder: str = "", sha256: str = "") -> Any:
    try:
        (task,) = _task_manager(folder, sha256).load([name])["tasks"].values()
    except (OSError, TypeError, ValueError) as problem:  # TypeError: a key that lm-eval does not know
        remedy = "" if folder else "; its rows come from the hub: let this machine reach it, or leave the task out"
        reason = str(problem).splitlines()[0]
        raise BadInput(f"harness task {name!r} could not be loaded ({reason}){remedy}") from None
    return task


@cache
def _task_manager(folder: str, sha256: str) -> Any:
    """Returns lm-eval's index of the tasks in a folder, or of all that it ships, which takes seconds to build; another
    one where the folder's files have changed."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder or None, include_defaults=not folder)

"""The abilities and the held-out text of a run, built once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from afteredit.edit.edit_set import EMBEDDED
from afteredit.edit.request import BadInput
from afteredit.evaluate.ability import Ability, BuiltAbility, shipped
from afteredit.evaluate.rows import find_rows

if TYPE_CHECKING:
    from afteredit.config import Settings
    from afteredit.edit.lm import LM
    from afteredit.evaluate.likelihood import Ids


def check_rows(tasks: Mapping[str, Ability], data: str) -> None:
    """Raises BadInput, before anything heavy is loaded, where a task's rows are not there."""
    if data != "hub":
        for name, ability in tasks.items():
            if not isinstance(ability.lm_eval, str):
                find_rows(name, ability.rows, data)


def rows_sha256(tasks: Mapping[str, Ability], data: str) -> dict[str, str]:
    """Of each task's file; the hub's rows are told apart by the revision in the task's config."""
    if data == "hub":
        return {}
    files = {n: find_rows(n, a.rows, data) for n, a in tasks.items() if not isinstance(a.lm_eval, str)}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items()}


def shipped_abilities(names: Sequence[str]) -> dict[str, Ability]:
    return {name: shipped(name) for name in names}


def build_tasks(tasks: Mapping[str, Ability], settings: Settings) -> list[BuiltAbility]:
    every = {**tasks, **shipped_abilities(settings.harness)}
    return [BuiltAbility(name, ability, settings.data, settings.limit) for name, ability in every.items()]


def held_out(lm: LM, settings: Settings) -> list[tuple[Ids, Ids]]:
    from afteredit.evaluate.drift import held_out_windows

    path = Path(settings.held_out) if settings.held_out else EMBEDDED / "heldout.txt"
    if not path.is_file():
        raise BadInput(f"held_out={settings.held_out}: no such file; give a text file, or null for the embedded text")
    return held_out_windows(lm, path.read_text(encoding="utf-8"), settings.held_out_tokens)

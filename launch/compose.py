"""Turns a composed Hydra config into typed dataclasses, before torch is imported: a typo costs a second."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afteredit.edit.constraint import Constraint
from afteredit.edit.edit_set import EditSet
from afteredit.edit.method import Method
from afteredit.evaluate.abilities.ability import Ability
from afteredit.launch.checks import (
    check_edits_file,
    check_locate,
    check_plan,
    check_replay,
    check_settings,
    check_tasks,
    refuse_infinite,
    refuse_nan,
    refuse_no_texts,
    refuse_other_kinds,
)
from afteredit.launch.experiment import (
    Experiment,
    LocateSettings,
    PlanSettings,
    ReplaySettings,
    Settings,
    SpeedSettings,
)
from afteredit.launch.help.kinds_in_words import kind_in_words
from afteredit.launch.help.unknown_names import CONF, unknown_key
from afteredit.model.loading.model_source import ModelSource
from afteredit.record.settings import TrackerSettings
from afteredit.store.errors import BadInput, refuse_secrets
from afteredit.store.own_code import allow

PLACES = (
    "afteredit.edit.methods.",
    "afteredit.edit.constraint.",
    "afteredit.edit.constraints.",
    "afteredit.evaluate.abilities.",
)  # what `_target_` may name; runs/ is under afteredit too
KINDS = {"method": Method, "constraint": Constraint, "task": Ability}  # by the group of the key
TYPED = {"model": ModelSource, "edits": EditSet, "tracker": TrackerSettings, "replay": ReplaySettings,
         "locate": LocateSettings, "speed": SpeedSettings, "plan": PlanSettings}  # fmt: skip
BUILT = ("method", "constraint")  # `_target_` names their class
PATHS = ("runs", "data", "held_out", "harness_path", "edits.file", "method.second_moment_text", "model.source",
         "replay.run", "replay.export", "locate.out")  # fmt: skip


def experiment(config: DictConfig, names: Mapping[str, str], overrides: Sequence[str] = ()) -> Experiment:
    """Returns the typed experiment.  Raises BadInput, naming the key, the given value and what is allowed."""
    for key in PATHS:
        path = OmegaConf.select(config, key)
        if isinstance(path, str) and path.startswith("~/"):  # in quotes, or from a sweep, no shell has put it in
            OmegaConf.update(config, key, os.path.expanduser(path))
    _count_typed_facts(config, overrides)
    top_level = {key: config[key] for key in config if key not in (*TYPED, *BUILT, "task")}
    settings = typed(Settings, OmegaConf.create(top_level), "")
    parts = {key: typed(cls, config[key], key) for key, cls in TYPED.items()}
    packages = _own_packages(settings.own_code, overrides)
    parts |= {key: build(config[key], key, packages) for key in BUILT}
    tasks = {str(name): build(node, f"task.{name}", packages) for name, node in _nodes(config.get("task"))}
    check_settings(settings, parts["method"])
    check_edits_file(parts["edits"], settings, overrides)
    check_tasks(tasks, settings.harness)
    check_replay(parts["replay"], settings)
    check_locate(parts["locate"], parts["replay"])
    check_plan(parts["plan"], parts["locate"], parts["replay"])
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    resolved = {key: _as_used(value, parts.get(key, getattr(settings, key, value))) for key, value in plain.items()}
    for name, node in (plain.get("task") or {}).items():
        resolved["task"][name] = _as_used(node, tasks[str(name)])
    refuse_secrets(resolved)
    return Experiment(settings=settings, tasks=tasks, names=dict(names), resolved=resolved, overrides=list(overrides),
                      **parts)  # fmt: skip


def _count_typed_facts(config: DictConfig, overrides: Sequence[str]) -> None:
    """Sets n_edits to the number of facts in edits.fact.  Raises BadInput where the command says another."""
    if isinstance(config.edits.get("fact"), str):
        config.edits.fact = [as_text(config.edits.fact)]
    n_facts = len(config.edits.get("fact") or ())
    if not n_facts:
        return
    if config.n_edits != n_facts and any(override.lstrip("+").startswith("n_edits=") for override in overrides):
        raise BadInput(f"n_edits={config.n_edits}, but edits.fact gives {n_facts}; leave n_edits out")
    config.n_edits = n_facts


def _own_packages(entries: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Returns the names of the user's own packages.  Raises BadInput where not the command itself allows them: a YAML
    file may come from elsewhere."""
    if entries and not any(override.lstrip("+").startswith("own_code=") for override in overrides):
        raise BadInput(f"a YAML file sets own_code={list(entries)}, but only a command may let code outside afteredit "
                       f"run: own_code=[{','.join(entries)}]")  # fmt: skip
    return allow(entries)


def _as_used(given: Any, used: Any) -> Any:
    """Returns what a key was given, as the run uses it: where a text stands for a number, or "yes" for true, the number
    or true.  What is equal stays as it was given (1 for 1.0)."""
    if dataclasses.is_dataclass(used):
        return {key: _as_used(value, getattr(used, key, value)) for key, value in given.items()}  # `_target_` is none
    if isinstance(used, Enum):
        return used.name
    return given if given == used else used


def refuse_no_groups(config: DictConfig) -> None:
    """Raises BadInput where something else stands in the place of a group of keys, or nothing."""
    for key in (*TYPED, *BUILT):
        if not isinstance(config.get(key), DictConfig):
            given = f"is {config[key]!r}" if key in config else "is taken out"
            raise BadInput(f"{key} {given}, but no run is without it: it is a group of keys; leave it as conf/ has it, "
                           f"or set one of its keys ({key}.…=…)")  # fmt: skip


def _nodes(tasks: Any) -> list[tuple[Any, DictConfig]]:
    """Returns the names and nodes under `task`.  Raises BadInput for what is none."""
    nodes = list((tasks or {}).items()) if isinstance(tasks, DictConfig | None) else [("", tasks)]
    for name, node in nodes:
        if not isinstance(node, DictConfig):
            raise BadInput(f"{f'task.{name!s}'.rstrip('.')} is {node!r}; an ability is a file of conf/task or its "
                           "keys: task=[nli,sentiment]; such a file begins with the line # @package task.<name>, "
                           "without a byte-order mark")  # fmt: skip
    return nodes


def build(node: DictConfig, key: str, packages: Sequence[str] = ()) -> Any:
    """Returns the dataclass that `_target_` names, filled from the rest of the node.

    Raises BadInput for a class outside this project and `packages`, an unknown key or a value of the wrong type.
    """
    cls = class_at(node.get("_target_"), key, packages)
    return typed(cls, node, key, beside="_target_")


def class_at(target: Any, key: str, packages: Sequence[str] = ()) -> Any:
    """Returns the class that `target` names.  Raises BadInput, before anything is imported, where it is in none of
    PLACES and of `packages`, and where it is not of the kind that `key` needs."""
    kind = KINDS[key.partition(".")[0]]
    if not isinstance(target, str) or not target.startswith((*PLACES, *(f"{package}." for package in packages))):
        raise BadInput(f"{key}._target_ is {target!r}; it must name a {kind.__name__} in one of "
                       f"{', '.join(place + '…' for place in PLACES)}, or in a package that the command allows: "
                       "own_code=[./my_code]")  # fmt: skip
    module, _, name = target.rpartition(".")
    try:
        cls: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError) as problem:
        raise BadInput(f"{key}._target_={target} cannot be imported: {problem}") from None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and issubclass(cls, kind)):
        raise BadInput(f"{key}._target_={target} is no dataclass that is a {kind.__name__}; name one")
    return cls


def typed(cls: type, node: DictConfig, key: str, beside: str = "") -> Any:
    """Returns an instance of the dataclass, filled from the node at `key` but for its key `beside`.  Raises BadInput as
    `build` does."""
    dot = f"{key}." if key else ""
    known = [f.name for f in dataclasses.fields(cls)]
    for given in map(str, node):
        if given not in known and given != beside:
            raise BadInput(unknown_key(f"{dot}{given}", [f"{dot}{k}" for k in known]))
    try:
        values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True, throw_on_missing=True))
        values.pop(beside, None)
        for field in dataclasses.fields(cls):
            refuse_no_texts(values.get(field.name), f"{dot}{field.name}", str(field.type))
            refuse_infinite(values.get(field.name), f"{dot}{field.name}")
        kinds = get_type_hints(cls)
        for name, value in values.items():
            refuse_other_kinds(kinds[name], value, f"{dot}{name}")
        made: Any = OmegaConf.to_object(OmegaConf.unsafe_merge(OmegaConf.structured(cls), as_text(values)))
        refuse_nan(dataclasses.asdict(made), dot)  # after the class's own checks, which say what is allowed
        return made
    except OmegaConfBaseException as problem:
        inner = str(problem.full_key or "").removeprefix(dot)
        bad = f"{dot}{inner}" if inner else key
        types = {f.name: f.type for f in dataclasses.fields(cls)}
        wanted = types.get(inner.split(".")[0].split("[")[0], "")
        message = str(problem).strip().splitlines()[0]
        raise BadInput(f"{bad}: {message}" + (f"; allowed: {kind_in_words(str(wanted))}" if wanted else "")) from None


def as_text(value: Any) -> Any:
    """Returns the value with its texts escaped for OmegaConf, which would look up what stands in ${…}."""
    if isinstance(value, dict):
        return {key: as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return list(map(as_text, value))
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def takes_text(key: str) -> bool:
    """Tells whether the key, or what stands inside it, is a text (or null) and no list, mapping or switch."""
    kinds, inside = _kinds(key)
    return bool(kinds) and kinds <= ({"dict[str, str]"} if inside else {"str", "str | None"})


def is_open(key: str) -> bool:
    """Tells whether the key is a map of texts or stands inside of one: it may be given names that it does not have."""
    return _kinds(key)[0] == {"dict[str, str]"}


def takes_texts(key: str) -> bool:
    """Tells whether the key is a list or a mapping of texts."""
    kinds, inside = _kinds(key)
    return bool(kinds) and not inside and kinds <= {"list[str]", "dict[str, str]"}


def _kinds(key: str) -> tuple[set[str], bool]:
    """Returns the types of the field that the key names in the classes that its group may be, and whether the key goes
    on inside of it."""
    group, *names = key.split(".")
    if group == "task":
        names = names[1:]
    elif group not in (*TYPED, *BUILT):
        group, names = "", [group, *names]
    classes = _classes(group) if names else []
    types = {str(field.type) for cls in classes for field in dataclasses.fields(cls) if field.name == names[0]}
    return types, len(names) > 1


@cache
def _classes(group: str) -> list[Any]:
    if group in BUILT:
        configs = [OmegaConf.load(path) for path in sorted((CONF / group).glob("*.yaml"))]
        return [class_at(config._target_, group) for config in configs if "_target_" in config]
    return [{"": Settings, "task": Ability, **TYPED}[group]]

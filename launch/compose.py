"""Turns a composed Hydra config into typed dataclasses, before torch is imported: a typo costs a second."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from afteredit.edit.constraint import Constraint
from afteredit.edit.edit_set import EditSet
from afteredit.edit.method import Method
from afteredit.evaluate.abilities.ability import Ability
from afteredit.launch.checks import check_replay, check_settings
from afteredit.launch.experiment import Experiment, ReplaySettings, Settings, SpeedSettings
from afteredit.model.loading.model_source import ModelSource
from afteredit.record.settings import TrackerSettings
from afteredit.store.errors import BadInput

CONF = Path(__file__).resolve().parents[1] / "conf"
PLACES = (
    "afteredit.edit.methods.",
    "afteredit.edit.constraint.",
    "afteredit.edit.constraints.",
    "afteredit.evaluate.abilities.",
)  # what `_target_` may name; runs/ is under afteredit too
KINDS = {"method": Method, "constraint": Constraint, "task": Ability}  # by the group of the key
TYPED = {"model": ModelSource, "edits": EditSet, "tracker": TrackerSettings, "replay": ReplaySettings,
         "speed": SpeedSettings}  # fmt: skip
BUILT = ("method", "constraint")  # `_target_` names their class
MOVED = {"method.together": "speed.together", "evaluate.cache_gib": "speed.cache_gib", "evaluate": "speed"}


def experiment(config: DictConfig, names: Mapping[str, str], overrides: Sequence[str] = ()) -> Experiment:
    """Returns the typed experiment.  Raises BadInput, naming the key, the given value and what is allowed."""
    top_level = {key: config[key] for key in config if key not in (*TYPED, *BUILT, "task")}
    settings = typed(Settings, OmegaConf.create(top_level), "")
    parts = {key: typed(cls, config[key], key) for key, cls in TYPED.items()}
    parts |= {key: build(config[key], key) for key in BUILT}
    tasks = {str(name): build(node, f"task.{name}") for name, node in (config.get("task") or {}).items()}
    check_settings(settings, parts["method"])
    check_replay(parts["replay"], settings)
    resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    return Experiment(settings=settings, tasks=tasks, names=dict(names), resolved=resolved, overrides=list(overrides),
                      **parts)  # fmt: skip


def build(node: DictConfig, key: str) -> Any:
    """Returns the dataclass that `_target_` names, filled from the rest of the node.

    Raises BadInput for a class outside this project, an unknown key or a value of the wrong type.
    """
    cls = class_at(node.get("_target_"), key)
    rest = {k: node._get_node(k) for k in node if k != "_target_"}
    return typed(cls, OmegaConf.create(rest, parent=cast(Any, node._get_parent())), key)


def class_at(target: Any, key: str) -> Any:
    """Returns the class that `target` names.  Raises BadInput, before anything is imported, where it is in none of
    PLACES, and where it is not of the kind that `key` needs."""
    kind = KINDS[key.partition(".")[0]]
    if not isinstance(target, str) or not target.startswith(PLACES):
        raise BadInput(f"{key}._target_ is {target!r}; it must name a {kind.__name__} in one of "
                       f"{', '.join(place + '…' for place in PLACES)}")  # fmt: skip
    module, _, name = target.rpartition(".")
    try:
        cls: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise BadInput(f"{key}._target_={target} cannot be imported: {problem}") from None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and issubclass(cls, kind)):
        raise BadInput(f"{key}._target_={target} is no dataclass that is a {kind.__name__}; name one")
    return cls


def typed(cls: type, node: DictConfig, key: str) -> Any:
    """Returns an instance of the dataclass, filled from the node at `key`.  Raises BadInput as `build` does."""
    dot = f"{key}." if key else ""
    known = [f.name for f in dataclasses.fields(cls)]
    for given in map(str, node):
        if given not in known:
            raise BadInput(unknown_key(f"{dot}{given}", [f"{dot}{k}" for k in known]))
    try:
        values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True, throw_on_missing=True))
        for field in dataclasses.fields(cls):
            if field.type == "dict[str, str]":
                _refuse_no_texts(values.get(field.name), f"{dot}{field.name}")
        made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values))
        _refuse_nan(values, dot)  # after the class's own checks, which say what is allowed
        return made
    except OmegaConfBaseException as problem:
        inner = str(problem.full_key or "").removeprefix(dot)
        bad = f"{dot}{inner}" if inner else key
        types = {f.name: f.type for f in dataclasses.fields(cls)}
        wanted = types.get(inner.split(".")[0].split("[")[0], "")
        message = str(problem).strip().splitlines()[0]
        raise BadInput(f"{bad}: {message}" + (f"; allowed: {wanted}" if wanted else "")) from None


def _refuse_nan(value: Any, key: str) -> None:
    """Raises BadInput for NaN, which no key allows, wherever it stands in the values."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_nan(inner, f"{key.rstrip('.')}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            _refuse_nan(inner, key)
    elif isinstance(value, float) and math.isnan(value):
        raise BadInput(f"{key} is nan; it must be a number")


def _refuse_no_texts(values: Any, key: str) -> None:
    """Raises BadInput for an entry of a map of texts that is a list, a mapping or null."""
    for name, value in values.items() if isinstance(values, dict) else ():
        if value is None or isinstance(value, list | dict):
            raise BadInput(f"{key}.{name} is {value!r}; it must be a text, or take it out with ~{key}.{name}")


def takes_text(key: str) -> bool:
    """Tells whether the key, or what stands inside it, is a text (or null) and no list, mapping or switch."""
    group, _, rest = key.partition(".")
    cls: Any = TYPED.get(group, Settings)
    name = rest.partition(".")[0] if group in TYPED else key
    kind = {field.name: str(field.type) for field in dataclasses.fields(cls)}.get(name, "")
    return kind in ("str", "str | None") or (kind == "dict[str, str]" and rest != name)


def unknown_key(given: str, known: Sequence[str], kind: str = "key") -> str:
    """Returns the message about an unknown key or entry: where it has moved to, or else what it resembles."""
    if given in MOVED:
        return f"{given} is now {MOVED[given]}; say {MOVED[given]} in its place"
    close = get_close_matches(given, known, n=1)
    guess = f"; did you mean {close[0]}?" if close else "."
    return f"unknown {kind} {given}{guess} Allowed: {', '.join(sorted(known))}"

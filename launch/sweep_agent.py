"""Turns the parameters that a W&B sweep's agent passes into Hydra overrides.

`${args_no_hyphens}` writes every parameter as Python prints it: `limit=None`, `edits={'order': 'shuffled'}`.  A run
that is started a second time, resumed or requeued, gets its whole config as parameters instead of the sweep's
(wandb/wandb#9143): `method={'_target_': …} _wandb={…}`.  That config contains the overrides of the first start.
The agent writes the parameters, with their types, to a file, which is read here: a text is a text, but where a key
wants a list, a switch or null, what Hydra reads as one is one.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from afteredit.launch.compose import takes_text
from afteredit.launch.overrides import SENTENCES, as_meant, in_quotes, quoted
from afteredit.store.errors import BadInput

PLAIN = re.compile(r"[\w./:+-]+")  # a word that needs no quotes within a list


def overrides_from_agent(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """Returns the overrides; `arguments` unchanged if no agent started this process.

    Raises BadInput if the agent's file cannot be read.
    """
    path = environment.get("WANDB_SWEEP_PARAM_PATH")
    if path is None:
        return list(arguments)
    parameters = _parameters(Path(path))
    if "overrides" in parameters:
        stored = parameters["overrides"]
        if not isinstance(stored, list) or not all(isinstance(override, str) for override in stored):
            raise BadInput(f"the sweep's parameter overrides is {stored!r}; it must be a list of texts, key=value each")
        for override in stored:
            key = override.partition("=")[0].lstrip("+")
            if override not in arguments:
                _refuse_look_ups(key if key in SENTENCES else "overrides", override)
        keys = {argument: argument.removeprefix("--").partition("=")[0] for argument in arguments}
        fixed = [argument for argument in arguments if keys[argument] not in parameters]
        return [*fixed, *stored]
    overrides: list[str] = []
    for argument in arguments:
        key = argument.removeprefix("--").partition("=")[0]  # -- where the sweep's command is the agent's own
        overrides += _overrides_of(key, parameters[key]) if key in parameters else [argument]
    return overrides


def _parameters(path: Path) -> dict[str, Any]:
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {key: node["value"] for key, node in stored.items() if isinstance(node, dict)}
    except (OSError, ValueError, yaml.YAMLError, KeyError, AttributeError, RecursionError) as problem:
        raise BadInput(f"WANDB_SWEEP_PARAM_PATH={path} holds no parameters of a sweep ({problem}); unset it if no "
                       "agent started this") from None  # fmt: skip


def _overrides_of(key: str, value: Any) -> Iterator[str]:
    """Yields one override, or one for each key of a nested parameter."""
    _refuse_look_ups(key, value)
    if isinstance(value, dict) and value:
        for name, nested in value.items():
            yield from _overrides_of(f"{key}.{name}", nested)
    else:
        if takes_text(key) and isinstance(value, bool | int | float):
            value = str(value).lower() if isinstance(value, bool) else str(value)
        text = quoted if takes_text(key) else as_meant
        yield text(key, value) if isinstance(value, str) else f"{key}={_element(value)}"


def _refuse_look_ups(key: str, value: Any) -> None:
    """Raises BadInput for a text that OmegaConf would resolve, from the environment too: a sweep's values are data."""
    if key in SENTENCES:  # what is typed is text
        return
    if "${" in str(value):
        raise BadInput(f"the sweep's parameter {key} holds {value!r}, but nothing that a sweep says is looked up; "
                       "write the value itself, or put key=${…} into the sweep's command")  # fmt: skip


def _element(value: Any) -> str:
    """Returns the value in Hydra's grammar, quoted where it needs quotes."""
    if value is None:
        return "null"
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))  # W&B's q_uniform and bayes write whole numbers so; a key that wants a float takes both
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_element, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_element(nested)}' for name, nested in value.items())}}}"
    if isinstance(value, str):
        return quoted("x", value)[2:] if PLAIN.fullmatch(value) else in_quotes(value)
    return str(value)

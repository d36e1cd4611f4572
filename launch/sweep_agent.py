"""What a W&B sweep's agent hands over, as Hydra wants it.

`${args_no_hyphens}` writes every parameter as Python prints it: `limit=None`, `edits={'order': 'shuffled'}`.  And a run
that is handed out a second time, resumed or requeued, comes with its whole config for parameters instead of the
sweep's (wandb/wandb#9143): `method={'_target_': …} _wandb={…}`.  Its config holds the overrides it was begun with.
The agent keeps the parameters, with their types, in a file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from afteredit.store.errors import BadInput

PLAIN = re.compile(r"[\w./:+-]+")  # a word that needs no quotes within a list


def overrides_from_agent(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """`arguments` as they are where no agent gave them.  Raises BadInput where the agent's file cannot be read."""
    path = environment.get("WANDB_SWEEP_PARAM_PATH")
    if path is None:
        return list(arguments)
    given = _parameters(Path(path))
    if "overrides" in given:
        return [*(fixed for fixed in arguments if fixed.partition("=")[0] not in given), *given["overrides"]]
    overrides: list[str] = []
    for argument in arguments:
        key = argument.partition("=")[0]
        overrides += _written(key, given[key]) if key in given else [argument]
    return overrides


def _parameters(path: Path) -> dict[str, Any]:
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {key: node["value"] for key, node in stored.items() if isinstance(node, dict)}
    except (OSError, ValueError, yaml.YAMLError, KeyError, AttributeError) as problem:
        raise BadInput(f"WANDB_SWEEP_PARAM_PATH={path} holds no parameters of a sweep ({problem}); unset it where no "
                       "agent started this") from None  # fmt: skip


def _written(key: str, value: Any) -> Iterator[str]:
    """One override, or one for each key of a nested parameter."""
    if isinstance(value, dict) and value:
        for name, nested in value.items():
            yield from _written(f"{key}.{name}", nested)
    else:
        yield f"{key}={value if isinstance(value, str) else _element(value)}"


def _element(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_element, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{_element(nested)}' for name, nested in value.items())}}}"
    if isinstance(value, str) and not PLAIN.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return str(value)

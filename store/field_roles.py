"""Says beside a dataclass field what its value decides: weights, measurement, speed, course, or nothing.

The name of a run, the name of a results file and the keys that a replay accepts follow from these roles, so that no
list elsewhere repeats the names of fields.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any


class Role(Enum):
    """What the value of a field decides."""

    WEIGHTS = "weights"  # the weights after an edit; it is part of the run's name
    MEASUREMENT = "measurement"  # the numbers that are measured of given weights; it is part of the results file's name
    SPEED = "speed"  # how fast and in how much memory; numbers may differ in their last bits
    COURSE = "course"  # how far a run goes and when it is measured; the same run can go on under another value
    NOTHING = "nothing"  # no number


FROM_MODEL_FOLDERS = "transformers_modules"  # where transformers puts the code of model folders, under its own names
WEIGHTS, MEASUREMENT, SPEED = Role.WEIGHTS, Role.MEASUREMENT, Role.SPEED
COURSE, NOTHING = Role.COURSE, Role.NOTHING


def decides(role: Role, *, by_content: bool = False) -> dict[str, Any]:
    """Returns the `metadata` of a dataclass field: `field(default=8, metadata=decides(SPEED))`.

    `by_content`: the field only says where something is found, and what is found there is hashed in its place.
    """
    return {"decides": role, "by_content": by_content}


def role_of(field: dataclasses.Field[Any], default: Role = WEIGHTS) -> Role:
    """Returns the role that the field's metadata names, else `default`."""
    role: Role = field.metadata.get("decides", default)
    return role


def values_by_role(instance: Any, role: Role, default: Role = WEIGHTS) -> dict[str, Any]:
    """Returns the values of the fields that have `role`, as plain data, with the full name of the class under "class".

    A field without metadata has the role `default`.  Fields that decide by their content are left out.
    """
    fields = [
        f for f in dataclasses.fields(instance) if role_of(f, default) is role and not f.metadata.get("by_content")
    ]
    values = dataclasses.asdict(instance)
    plain = {key: value.value if isinstance(value, Enum) else value for key, value in values.items()}
    return {"class": class_name(type(instance)), **{field.name: plain[field.name] for field in fields}}


def class_name(cls: type) -> str:
    """Returns the full name of a class, which does not depend on the folder that it was loaded from."""
    in_a_folder = cls.__module__.startswith(FROM_MODEL_FOLDERS)
    return cls.__qualname__ if in_a_folder else f"{cls.__module__}.{cls.__qualname__}"


def names_by_role(cls: type, *roles: Role, default: Role = WEIGHTS) -> list[str]:
    """Returns the names of the fields of a dataclass that have one of `roles`."""
    return [field.name for field in dataclasses.fields(cls) if role_of(field, default) in roles]

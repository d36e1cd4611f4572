"""What a field decides is said beside it, and read from there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum

from afteredit.store.field_roles import MEASUREMENT, NOTHING, SPEED, WEIGHTS, decides, names_by_role, values_by_role


class Kind(Enum):
    small = "little"


NAME = f"{__name__}.Keys"  # two classes of one name in two files are two


@dataclass(frozen=True)
class Keys:
    layer: int
    kind: Kind = Kind.small
    together: int = field(default=8, metadata=decides(SPEED))
    rows: str = field(default="rows.jsonl", metadata=decides(MEASUREMENT, by_content=True))
    limit: int = field(default=3, metadata=decides(MEASUREMENT))


def test_a_field_without_a_role_decides_the_weights_unless_another_default_is_given():
    assert values_by_role(Keys(5), WEIGHTS) == {"class": NAME, "layer": 5, "kind": "little"}
    assert values_by_role(Keys(5), WEIGHTS, default=NOTHING) == {"class": NAME}


def test_a_field_that_decides_by_its_content_is_named_but_its_value_is_left_out():
    assert values_by_role(Keys(5), MEASUREMENT) == {"class": NAME, "limit": 3}
    assert names_by_role(Keys, MEASUREMENT, SPEED) == ["together", "rows", "limit"]


def test_values_are_plain_data():
    assert json.loads(json.dumps(values_by_role(Keys(5), WEIGHTS))) == values_by_role(Keys(5), WEIGHTS)

"""Reads YAML that may be a stranger's, or a user's own before Hydra reads it: nothing deep, nothing endless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from afteredit.store.errors import BadInput
from afteredit.store.plain_json import refuse_half

DEEPEST = 50  # levels of nesting
MOST_NODES = 10_000  # of a file with aliases, each of which stands for a copy


class _ShallowLoader(yaml.SafeLoader):
    """Takes no deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth == DEEPEST:
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, f"nested more than {DEEPEST} levels deep", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class PlainLoader(_ShallowLoader):
    """Takes no aliases, which can multiply a short file without end, no deep nesting and no half characters."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias (*name), which no run writes", mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        refuse_half(str(text))
        return text


def refuse_endless(path: Path) -> None:
    """Raises BadInput for YAML whose aliases multiply it, or that is nested deep.  What is no YAML passes: who reads it
    says why."""
    try:
        root = _ShallowLoader(path.read_text(encoding="utf-8")).get_single_node()
    except yaml.composer.ComposerError as problem:
        if problem.problem and "levels deep" in problem.problem:
            raise BadInput(f"{path} is {problem.problem}; make it flatter") from None
        return
    except (OSError, ValueError, yaml.YAMLError):
        return
    known: dict[int, int] = {}
    if _n_nodes(root, known) > max(MOST_NODES, len(known)):
        raise BadInput(
            f"the aliases (*name) of {path} make it more than {MOST_NODES:,} values; write out what is meant"
        )


def _n_nodes(node: Any, known: dict[int, int]) -> int:
    """Returns the nodes below and with this one, those of an alias each time; of one that holds itself, more than are
    allowed."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # while it is counted
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else getattr(node, "value", ())
        inner = parts if isinstance(parts, list) else ()
        known[id(node)] = 1 + sum(_n_nodes(part, known) for part in inner)
    return known[id(node)]

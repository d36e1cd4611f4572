"""Reads what a stranger may have made, a run directory or a YAML file in it, as data and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from afteredit.store.errors import BadInput

FOLDERS = ("updates", "samples")  # those of a run directory that are read
CHECK = b"# sha256 of what follows: "
DEEPEST = 50  # levels of nesting


def refuse_links(folder: Path) -> None:
    """Raises BadInput where a run directory holds a symbolic link, a pipe or a device among what is read of it."""
    for inner in (folder, *(folder / name for name in FOLDERS)):
        for path in sorted(inner.iterdir()) if inner.is_dir() else ():
            if path.is_symlink():
                raise BadInput(f"{path} is a symbolic link; in a run directory only files and folders of its own are "
                               "read: put the file itself in its place")  # fmt: skip
            if not (path.is_file() or path.is_dir()):
                raise BadInput(f"{path} is neither a file nor a folder; take it out of the run directory")


class _PlainLoader(yaml.SafeLoader):
    """Takes no aliases, which can multiply a short file without end, and no deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias (*name), which no run writes", mark)
        if self.depth == DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nested more than {DEEPEST} levels deep", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def with_check(config_yaml: bytes) -> bytes:
    """Returns a YAML file with its checksum as a comment in the first line."""
    return CHECK + hashlib.sha256(config_yaml).hexdigest().encode() + b"\n" + config_yaml


def config_matches(path: Path) -> bool:
    """Tells whether a stored config is as it was written.  Those of older versions begin with no comment."""
    content = path.read_bytes() if path.is_file() else b""
    return not content.startswith(b"#") or content == with_check(content.partition(b"\n")[2])


def read_config(path: Path) -> dict[str, Any]:
    """Returns a stored config as plain data: nothing in it is looked up or built.  Raises BadInput."""
    try:
        config = _PlainLoader(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise BadInput(f"{path} cannot be read ({' '.join(str(problem).split())}); restore it") from None
    if not isinstance(config, dict):
        raise BadInput(f"{path} is no config; restore it")
    return {str(key): value for key, value in config.items()}

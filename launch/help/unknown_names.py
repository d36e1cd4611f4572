"""What a key or an entry that is not known may be: one that has moved, one of other programs, or a typo."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from afteredit.store.errors import BadInput

CONF = Path(__file__).resolve().parents[2] / "conf"

PUBLISHED = {  # the names of other programs (the authors' code, EasyEdit, transformers): ours
    "edits.path": "file",
    "name_or_path": "source",
    "path": "source",
    "pretrained": "source",
    "torch_dtype": "dtype",
    "clamp_norm_factor": "max_offset",
    "kl_factor": "kl_weight",
    "lr": "learning_rate",
    "mom2_dataset": "second_moment_text",
    "mom2_n_samples": "tokens_per_key_dim",
    "mom2_update_weight": "second_moment_weight",
    "norm_constraint": "max_change",
    "nullspace_threshold": "threshold",
    "num_steps": "steps",
    "v_lr": "value_lr",
    "v_num_grad_steps": "value_steps",
    "v_weight_decay": "weight_decay",
}
MOVED = {"method.together": "speed.together", "evaluate.cache_gib": "speed.cache_gib", "evaluate": "speed"}


def refuse_hidden_keys(folder: Path, given: Iterable[str]) -> None:
    """Raises BadInput where a folder of configs holds a folder that is named as a key of run.yaml among those given,
    whose value Hydra would look for among that folder's files."""
    keys = yaml.safe_load((CONF / "run.yaml").read_text(encoding="utf-8"))
    for key in given:
        if key in keys and (folder / key).is_dir():
            raise BadInput(f"{key}=… cannot be given while the folder of configs {folder} holds a folder {key}, which "
                           "would count as a group of configs; give --config-dir (or hydra.searchpath) a folder that "
                           "holds your method/, edits/, model/, … alone: move them into one")  # fmt: skip


def unknown_key(given: str, known: Sequence[str], kind: str = "key") -> str:
    """Returns the message about an unknown key or entry: where it has moved to, or else what it resembles."""
    if given in MOVED:
        return f"{given} is now {MOVED[given]}; say {MOVED[given]} in its place"
    if given in known:
        return f"{given} has no keys below it here; give it its whole value: {given}=…"
    group, _, name = given.rpartition(".")
    known = known if group or kind == "entry" else sorted({*known, *_groups()})
    ours = f"{group}.{PUBLISHED.get(given) or PUBLISHED.get(name)}"
    if ours in known:
        return f"unknown {kind} {given}; here it is {ours}. Allowed: {', '.join(sorted(known))}"
    entry = Path(given.replace(".", "/"))
    if kind == "key" and entry.parent.name and (CONF / f"{entry}.yaml").is_file():
        group, name = entry.parent.as_posix(), entry.name
        return f"unknown key {given}; {name} is an entry of {group}: say {group}={name}, and its keys as {group}.<key>"
    known = [each for each in known if not each.endswith("._target_")]
    by_name = {_name(each): each for each in known}
    guesses = [by_name[close] for close in get_close_matches(_name(given), by_name, n=1, cutoff=0.65)]
    owners = [] if guesses else _entries_with(given)
    guesses += _elsewhere(given)
    guess = f"; {' and '.join(owners)} {'have' if len(owners) > 1 else 'has'} one." if owners else "."
    guess = f"; did you mean {' or '.join(guesses)}?" if guesses else guess
    return f"unknown {kind} {given}{guess} Allowed: {', '.join(sorted(known)) or 'none'}"


def _name(key_or_entry: str) -> str:
    """Returns what is compared: without the group, which all names of one share."""
    return re.split("[.=]", key_or_entry)[-1].lower()


def _entries_with(key: str) -> list[str]:
    """Returns the entries of the key's group that have such a key: `constraint=rect`."""
    group, _, name = key.partition(".")
    files = sorted((CONF / group).glob("*.yaml")) if name else []
    return [f"{group}={path.stem}" for path in files if name in _keys(path)]


def _elsewhere(key: str) -> list[str]:
    """Returns what a key may be that was given without its group or in another: `layer` is `method.layer`, `model.seed`
    is `seed`.  A key that only some entries of its group have is named with them."""
    given_in, _, name = key.rpartition(".")
    name = PUBLISHED.get(name, name)
    found = [name] if name != key and ((CONF / name).is_dir() or name in _keys(CONF / "run.yaml")) else []
    for group in _groups():
        entries = [path.stem for path in sorted((CONF / group).glob("*.yaml")) if name in _keys(path)]
        if entries and group not in ("experiment", "task", given_in):
            only = "" if "base" in entries else f" (of {group}={', '.join(entries)})"
            found.append(f"{group}.{name}{only}")
    return found


def _groups() -> list[str]:
    """Returns the groups of our keys; of `experiment`, no key is left once it is composed."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def _keys(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text("utf-8")) or {}

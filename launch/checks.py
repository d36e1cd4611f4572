"""Checks what keys say, alone and together, before anything heavy is imported or loaded."""

from __future__ import annotations

import math
import os
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Collection, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from afteredit.edit.edit_set import EditSet
from afteredit.edit.method import Method
from afteredit.evaluate.retention import RETAINED
from afteredit.evaluate.settings import names_of_shares
from afteredit.launch.experiment import (
    ExportFormat,
    Locate,
    LocateSettings,
    PlannedBy,
    PlanSettings,
    ReplaySettings,
    Settings,
)
from afteredit.launch.help.kinds_in_words import kind_in_words
from afteredit.launch.help.unknown_names import CONF
from afteredit.record.settings import OnCollapse, When
from afteredit.store.errors import BadInput
from afteredit.store.plain_yaml import refuse_endless
from afteredit.store.rows.row_files import EMBEDDED


def check_settings(settings: Settings, method: Method) -> None:
    """Raises BadInput where a top-level key is out of its range or does not fit another key or the method."""
    for name in ("n_edits", "batch_size", "eval_every", "held_out_tokens"):
        if getattr(settings, name) < 1:
            raise BadInput(f"{name}={getattr(settings, name)}; it must be at least 1")
    _check_paths(settings, method)
    if not 0 <= settings.seed < 2**63:
        raise BadInput(f"seed={settings.seed}; it must be at least 0 and below 2**63")
    for name in ("learning_rate", "alpha_learning_rate", "value_lr"):
        if not getattr(method, name, 0.0) <= 1e30:
            raise BadInput(f"method.{name}={getattr(method, name)}; its steps must fit float32: at most 1e30")
    if not settings.collapse_perplexity > 1:
        raise BadInput(f"collapse_perplexity={settings.collapse_perplexity}; it is a multiple of the unedited model's "
                       "perplexity and must be above 1")  # fmt: skip
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", settings.device):
        raise BadInput(f"device={settings.device}; allowed: auto, cpu, cuda, or one of several by its number: cuda:1")
    if settings.limit is not None and settings.limit < 1:
        raise BadInput(f"limit={settings.limit}; it must be at least 1, or null for all rows")
    if settings.eval_every % settings.batch_size:
        raise BadInput(f"eval_every={settings.eval_every} is not a multiple of batch_size={settings.batch_size}; "
                       "a checkpoint lies between batches")  # fmt: skip
    _check_later(settings)
    if any(n < 1 for n in settings.eval_at):
        raise BadInput(f"eval_at={settings.eval_at}; each must be at least 1: the unedited model is always measured")
    for share in settings.change_shares:
        if not (share >= 0 and math.isfinite(share)):
            raise BadInput(f"change_shares={settings.change_shares}: {share} is no change; each must be at least 0 "
                           "(0.077: by more than 7.7 %)")  # fmt: skip
    names_of_shares(settings.change_shares)
    rest = settings.n_edits % settings.batch_size
    if rest:  # a last batch that is cut short could not be completed when n_edits is raised
        whole = [n for n in (settings.n_edits - rest, settings.n_edits - rest + settings.batch_size) if n]
        raise BadInput(f"n_edits={settings.n_edits} is not a multiple of batch_size={settings.batch_size}; set n_edits="
                       f"{' or '.join(map(str, whole))}, or another batch_size")  # fmt: skip
    most = method.max_batch
    if most is not None and settings.batch_size > most:
        raise BadInput(f"batch_size={settings.batch_size}, but this method writes at most {most} fact at a time; set "
                       f"batch_size={most}")  # fmt: skip


def _check_paths(settings: Settings, method: Method) -> None:
    """Raises BadInput where a path is the empty text, which would name the working folder."""
    paths = {key: getattr(settings, key) for key in ("runs", "data", "held_out", "harness_path")}
    paths["method.second_moment_text"] = getattr(method, "second_moment_text", None)
    for key, path in paths.items():
        if path == "":
            raise BadInput(f"{key} is empty (an unset shell variable?); give its path, or leave the key out")


def _check_later(settings: Settings) -> None:
    """Raises BadInput where checkpoints that are measured later come too late for another key."""
    if settings.measure is not When.later:
        return
    if settings.on_collapse is OnCollapse.stop:
        raise BadInput("measure=later with on_collapse=stop: a collapse is seen by a checkpoint, and that is measured "
                       "after later edits were made; use measure=now, or on_collapse=continue")  # fmt: skip
    if os.environ.get("WANDB_SWEEP_ID"):
        raise BadInput("measure=later in a W&B sweep: the sweep would get a run without the numbers that it compares; "
                       "use measure=now")  # fmt: skip


def check_edits_file(edits: EditSet, settings: Settings, overrides: Sequence[str]) -> None:
    """Raises BadInput where the command names a file of facts that stands in the working folder, but the edit set would
    take an embedded file of that name."""
    given = any(override.lstrip("+").startswith("edits.file=") for override in overrides)
    own, embedded = Path(edits.file), EMBEDDED / edits.file
    is_embedded = edits.in_data_folder and settings.data in ("mini", "hub") and embedded.is_file()
    if given and is_embedded and own.is_file() and not own.samefile(embedded):
        raise BadInput(f"edits.file={edits.file} is the embedded file of edits={edits.name} (data={settings.data}); "
                       f"for the file of that name in this folder say edits=my edits.file={edits.file}, or give its "
                       "full path")  # fmt: skip


def check_tasks(tasks: Collection[str], harness: Collection[str]) -> None:
    """Raises BadInput where two scores would have one name: of two tasks, or of a task and another column."""
    for name in tasks:
        if "/" in name or name.endswith(("sha256", "n_edits")):
            raise BadInput(f"task.{name}: its scores are ability/{name} and ability/{name}/…; a task's name holds no / "
                           "and ends neither in sha256 nor in n_edits; give it another name")  # fmt: skip
        if name == RETAINED:
            raise BadInput(f"task.{name}: ability/{name} is the mean of all abilities; give the task another name")
        if name in harness:
            raise BadInput(f"harness={list(harness)} names {name}, which task.{name} is already; leave one out")


def check_replay(replay: ReplaySettings, settings: Settings) -> None:
    """Raises BadInput where the keys of `replay` do not fit each other or the run."""
    keys = {key: getattr(replay, key) for key in ("at", "collapse", "pending", "export", "chat")}
    given = {key: value for key, value in keys.items() if value is not None and value is not False}
    if replay.after is not None and (replay.run is None or set(given) not in ({"at"}, {"collapse"})):
        raise BadInput(f"replay.after={replay.after.name} says how the models of a run are measured; allowed with "
                       "replay.run and either replay.at or replay.collapse")  # fmt: skip
    if replay.run is None:
        if given:
            key, value = next(iter(given.items()))
            raise BadInput(f"replay.{key}={value} has no meaning without replay.run=<run directory>")
        return
    if set(given) not in ({"at"}, {"collapse"}, {"pending"}, {"at", "export"}, {"at", "chat"}):
        named = " and ".join(f"replay.{key}" for key in given) or "neither"
        raise BadInput(f"replay.run with {named}; allowed: replay.at=<n edits>, replay.at=<n edits> with "
                       "replay.export=<new folder> or replay.chat=true, replay.collapse=<task or retained>, or "
                       "replay.pending=true")  # fmt: skip
    _check_export(replay)
    if not (replay.lease_s >= 1 and math.isfinite(replay.lease_s)):
        raise BadInput(f"replay.lease_s={replay.lease_s}; it must be at least 1 second")
    if not 0 < replay.drop < 1:
        raise BadInput(f"replay.drop={replay.drop}; it is the share that is lost, between 0 and 1 (0.5: half)")
    if replay.collapse is not None and settings.single:
        raise BadInput(f"replay.collapse={replay.collapse}, but in {replay.run} (setting=single) each batch edits the "
                       "unedited model, so the edits add up to no collapse; use replay.at")  # fmt: skip


def check_locate(locate: LocateSettings, replay: ReplaySettings) -> None:
    """Raises BadInput where a replay is asked for as well: that measures edits, and tracing the unedited model."""
    if locate.what is not Locate.none and replay.run is not None:
        raise BadInput(f"locate={locate.what.name} and replay.run={replay.run} are two commands; give one of them")


def check_plan(plan: PlanSettings, locate: LocateSettings, replay: ReplaySettings) -> None:
    """Raises BadInput where the keys of `plan` do not fit each other, or stand beside another command's."""
    if plan.by is not PlannedBy.none and (replay.run is not None or locate.what is not Locate.none):
        raise BadInput(f"plan={plan.by.name} says what an ordinary run costs; leave replay.run and locate out")
    if plan.by is PlannedBy.given and (plan.tflops is None or plan.gib is None):
        raise BadInput("plan=given needs plan.tflops=<10^12 operations a second> and plan.gib=<memory of the device>")


def _check_export(replay: ReplaySettings) -> None:
    """Raises BadInput where keys of an export do not fit its format."""
    adapter = replay.export is not None and replay.format is ExportFormat.adapter
    if replay.export is None and replay.format is ExportFormat.adapter:
        raise BadInput("replay.format=adapter has no meaning without replay.export=<new folder>")
    if replay.push is not None and replay.export is None:
        raise BadInput(f"replay.push={replay.push} has no meaning without replay.export=<new folder>")
    if replay.rank is not None and (replay.rank < 1 or not adapter):
        raise BadInput(f"replay.rank={replay.rank}; it is the rank of an adapter (replay.export=<new folder> "
                       "replay.format=adapter) and must be at least 1")  # fmt: skip
    if replay.dtype is not None and (adapter or replay.export is None):
        raise BadInput(f"replay.dtype={replay.dtype.name}; it is the dtype of an exported model (replay.export=<new "
                       "folder>); an adapter's factors are float32")  # fmt: skip


def refuse_nan(value: Any, key: str) -> None:
    """Raises BadInput for NaN, which no key allows, wherever it stands in the values."""
    if isinstance(value, dict):
        for name, inner in value.items():
            refuse_nan(inner, f"{key.rstrip('.')}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            refuse_nan(inner, key)
    elif isinstance(value, float) and math.isnan(value):
        raise BadInput(f"{key} is nan; it must be a number")


def refuse_infinite(value: Any, key: str) -> None:
    """Raises BadInput for infinity, which only one key takes: collapse_perplexity=inf means that none is a collapse."""
    for inner in value if isinstance(value, list) else [value]:
        if isinstance(inner, float) and math.isinf(inner) and key != "collapse_perplexity":
            raise BadInput(f"{key}={inner}; it must be a finite number")


def refuse_no_texts(values: Any, key: str, kind: str) -> None:
    """Raises BadInput for an entry of a map of texts, or of a list, that is a list, a mapping or null."""
    for name, value in values.items() if isinstance(values, dict) and kind == "dict[str, str]" else ():
        if value is None or isinstance(value, list | dict):
            raise BadInput(f"{key}.{name} is {value!r}; it must be a text, or take it out with ~{key}.{name}")
    if kind.startswith("list[") and values is not None and not isinstance(values, list):
        raise BadInput(f"{key} is {values!r}; allowed: {kind_in_words(kind)}")
    for value in values if isinstance(values, list) and kind.startswith("list[") else ():
        if value is None or isinstance(value, list | dict):
            raise BadInput(f"{key}={values!r} holds {value!r}; allowed: {kind_in_words(kind)}")


def refuse_other_kinds(wanted: Any, value: Any, key: str) -> None:
    """Raises BadInput for what OmegaConf would turn into a boolean or a member of an Enum, but is none: 2, 1.0."""
    kinds = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    kind = kinds[0]
    if kind is bool:
        allowed, fits = ["true", "false"], str(value).lower() in ("true", "false", "yes", "no", "on", "off")
    elif isinstance(kind, type) and issubclass(kind, Enum):
        allowed = [member.name for member in kind]
        fits = isinstance(value, kind) or (isinstance(value, str) and value in allowed)
    else:
        return
    if not fits and not (value is None and NoneType in kinds):
        raise BadInput(f"{key} is {value!r}; allowed: {', '.join(allowed)}")


def check_own_configs(folder: Path, arguments: Sequence[str]) -> None:
    """Raises BadInput where a file of the user's own configs has the name of one in conf/, which Hydra takes first,
    begins with a byte-order mark, behind which Hydra does not see a "# @package" line, or would never end.

    Looked through are the groups of conf/, and those that the command or the "defaults" of such a file name.
    """
    named = {argument.lstrip("+~") for argument in arguments} | {f"{path.name}/" for path in CONF.iterdir()}
    groups = _groups_of(sorted(named), folder)
    for group in groups:
        for path in sorted((folder / group).rglob("*.yaml")):
            content = path.read_bytes()
            if group != "task" and content.startswith((BOM_UTF8, BOM_UTF16_LE, BOM_UTF16_BE)):
                raise BadInput(f"{path} begins with a byte-order mark; save it as UTF-8 without one")
            refuse_endless(path)
            items = re.findall(r"^\s*-\s+(?:(?:optional|override)\s+)*/?(.*)", content.decode(errors="replace"), re.M)
            groups += [group for group in _groups_of(items, folder) if group not in groups]
    for own in sorted(CONF.rglob("*.yaml")):
        path = folder / own.relative_to(CONF)
        if path.is_file() and own.read_bytes() != path.read_bytes():
            raise BadInput(f"{path} has the name of an entry of afteredit's own, which would be taken in its place; "
                           "give it another name, and choose it by that")  # fmt: skip


def _groups_of(choices: Sequence[str], folder: Path) -> list[str]:
    """Returns the folders in `folder` that texts such as edits=own, edits/sub/own and extra@there: own begin with."""
    begins = [match[1] for match in (re.match(r"(\w[\w-]*)\s*[/@:=]", choice) for choice in choices) if match]
    return [name for name in dict.fromkeys(begins) if (folder / name).is_dir()]

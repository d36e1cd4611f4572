"""The config of a replay: what belongs to the run comes from the run's own config.yaml, the rest from the command."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from afteredit.launch.compose import BUILT, CONF, as_text, class_at
from afteredit.launch.experiment import Experiment, Settings
from afteredit.launch.overrides import SENTENCES, for_shell, quoted
from afteredit.model.loading.model_source import ModelSource
from afteredit.record.environment import RUN, Environment
from afteredit.record.older_versions import older_commit
from afteredit.store.checked_lines import (
    config_fault,
    of_an_older_version,
    read_config,
    refuse_strange_files,
    with_check,
)
from afteredit.store.errors import BadInput
from afteredit.store.field_roles import MEASUREMENT, NOTHING, SPEED, Role, names_by_role

log = logging.getLogger(__name__)
FREE = (MEASUREMENT, SPEED, NOTHING)  # the roles of keys that a replay's command may set
OURS = ("mini", "hub")  # where rows come from that no folder of the user's holds
NEEDED = ("model", "method", "constraint", "batch_size", "setting", "seed", "dtype")


def free_keys() -> list[str]:
    """Returns the keys that a command may set beside `replay.run`: those that decide neither weights nor course."""
    groups = ["task" if name == "tasks" else name for name in names_by_role(Experiment, *FREE)]
    return [*groups, *names_by_role(Settings, *FREE), *(f"model.{name}" for name in names_by_role(ModelSource, *FREE))]


def as_it_ran(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Returns `config` with all that decides the weights and the course as the run in `replay.run` stored it.

    Raises BadInput where there is no run, or where one of the command's `overrides` sets such a key.
    """
    folder = Path(str(config.replay.run))
    refuse_strange_files(folder)
    for name in ("config.yaml", "edits.jsonl"):
        if not (folder / name).is_file():
            raise BadInput(f"replay.run={folder} is no run directory: {folder / name} is not there; give the folder of "
                           "a run that made edits (runs/<method>-<model>-<hash>)")  # fmt: skip
    free = free_keys()
    given = [override.lstrip("+~").partition("=")[0].partition("@")[0] for override in overrides]
    for key in given:
        if key not in free and key.split(".")[0] not in free:
            raise BadInput(f"{key} is given, but in a replay it is the run's own ({folder / 'config.yaml'}); leave it "
                           f"out.  Allowed beside replay.run: {', '.join(free)}")  # fmt: skip
    stored = _stored_config(folder / "config.yaml")
    commit = older_commit(folder)
    if commit is not None:
        log.warning("%s was made by an older version of this program (commit %s); its updates are applied as they are "
                    "stored", folder, commit)  # fmt: skip
        _translate(stored, f"{folder} was made by an older version of this program (commit {commit})")
    of_the_run = {key: stored[key] for key in stored if key not in free}
    if config.replay.pending:
        of_the_run |= _evaluation_of(stored, {key.split(".")[0] for key in given}, folder)
    _refuse_interpolations(of_the_run, folder / "config.yaml")
    if config.replay.pending:
        _refuse_unnamed_rows(of_the_run, folder, overrides)
    if "model.source" not in given:
        _refuse_unknown_source(of_the_run["model"], folder, overrides)
    for name in names_by_role(ModelSource, *FREE):
        if f"model.{name}" in given or name == "trust_remote_code":  # trust is this command's to give, not a folder's
            of_the_run["model"][name] = config.model[name]
    with open_dict(config):
        for key, value in of_the_run.items():
            config[key] = as_text(value)
    return config


def _evaluation_of(stored: dict[str, Any], given: set[str], folder: Path) -> dict[str, Any]:
    """Returns what decides a run's measurement and tracking, but for the keys that the command has `given`.

    Raises BadInput for what is code: a run directory may come from elsewhere.
    """
    keys = [key for key in (*names_by_role(Settings, MEASUREMENT), "tracker", "task") if key not in given]
    if "harness_path" in keys and stored.get("harness_path"):
        raise BadInput(f"{folder} was measured on tasks in harness_path={stored['harness_path']}, which are code: name "
                       "that folder in this command too, if you trust it")  # fmt: skip
    own = {key: stored[key] for key in keys if key in stored}
    return own | ({"task": _tasks_as_here(own["task"], folder)} if "task" in own else {})


def _refuse_unnamed_rows(of_the_run: Mapping[str, Any], folder: Path, overrides: Sequence[str]) -> None:
    """Raises BadInput where the run was measured on files that only its own folder names."""
    if named := rows_named_in(of_the_run):
        raise BadInput(f"{folder} was measured on files that it names itself, and a run directory may come from "
                       f"elsewhere: name them if they are yours: {RUN} {shlex.join([*overrides, *named])}")  # fmt: skip


def rows_named_in(stored: Mapping[str, Any]) -> list[str]:
    """Returns the overrides that name the files which a stored config was measured on, and which are none of ours."""
    return [quoted(key, str(stored[key])) for key in ("data", "held_out") if stored.get(key) not in (None, *OURS)]


def _tasks_as_here(stored: Any, folder: Path) -> dict[str, Any]:
    """Returns the tasks that the run measured, as conf/task has them: a task's templates are code, and a folder may
    come from elsewhere.  Raises BadInput where one is not as there."""
    tasks = stored if isinstance(stored, dict) else {}
    here = {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in sorted((CONF / "task").glob("*.yaml"))}
    for name in tasks:
        if here.get(name) != tasks[name]:
            raise BadInput(f"{folder} was measured on a task {name} that is not as conf/task has it, and a run "
                           "directory may come from elsewhere: name the run's tasks in this command too, with what "
                           "was set of them: task=[…]")  # fmt: skip
    return {name: here[name] for name in tasks}


def _refuse_interpolations(value: Any, path: Path, key: str = "") -> None:
    """Raises BadInput for a text that OmegaConf would resolve, from the environment too: what is stored is data."""
    if key in SENTENCES:  # what is typed is text
        return
    if isinstance(value, Mapping | list):
        for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            _refuse_interpolations(name, path, key)
            _refuse_interpolations(inner, path, f"{key}.{name}" if key else str(name))
    elif isinstance(value, str) and "${" in value:
        raise BadInput(f"{path}: {key} holds {value!r}, but nothing that a run directory says is looked up; write the "
                       "value itself")  # fmt: skip


def _refuse_unknown_source(model: Any, folder: Path, overrides: Sequence[str]) -> None:
    """Raises BadInput where the model is none of conf/model: a folder from elsewhere may name any model."""
    presets: list[Any] = [OmegaConf.load(path) for path in sorted((CONF / "model").glob("*.yaml"))]
    known = {(preset.get("name"), preset.get("source")) for preset in presets if preset.get("source")}
    if isinstance(model, Mapping) and (model.get("name"), model.get("source")) not in known:
        source = str(model.get("source"))
        command = f"{RUN} {shlex.join([*overrides, quoted('model.source', source)])}"
        raise BadInput(f"{folder} says that its model is {source!r}, which is none of conf/model, and a run directory "
                       f"may come from elsewhere: name the model if you trust it: {command}")  # fmt: skip


def _stored_config(path: Path) -> dict[str, Any]:
    """Returns the config as it is stored, without resolving anything.  Raises BadInput where it was altered."""
    fault, stored = config_fault(path), read_config(path)
    if fault and not of_an_older_version(path.parent):
        raise BadInput(fault)
    lost = [key for key in NEEDED if key not in stored]
    if lost:
        raise BadInput(f"{path} is damaged: {', '.join(lost)} not in it; restore it")
    for key in ("model", *BUILT):
        if not isinstance(stored[key], dict):
            raise BadInput(f"{path} is damaged: {key} is {stored[key]!r} and not a group of keys; restore it")
    return stored


def _translate(stored: dict[str, Any], origin: str) -> None:
    """Names the classes of an older version's config as they are named now, and leaves out the keys that are no more.

    Those keys only made the updates, which are in the journal.  Raises BadInput where a class is no more.
    """
    stored.pop("evaluate", None)
    for group in BUILT:
        node = stored[group]
        name = str(node.pop("_target_", "")).rpartition(".")[2]
        configs = [OmegaConf.load(path) for path in sorted((CONF / group).glob("*.yaml"))]
        targets = [str(OmegaConf.select(config, "_target_")) for config in configs]
        target = next((target for target in targets if target.rpartition(".")[2] == name), None)
        if target is None:
            raise BadInput(f"{origin}, and its {group} {name} is no more; replay it with that version")
        known = names_by_role(class_at(target, group), *Role)
        stored[group] = {"_target_": target, **{key: node[key] for key in node if key in known}}


def as_yaml(x: Experiment) -> bytes:
    """Returns the resolved config as it is stored in a run directory."""
    return with_check(OmegaConf.to_yaml(OmegaConf.create(as_text(x.resolved)), resolve=True).encode())


def for_tracking(x: Experiment) -> dict[str, Any]:
    """Returns the config that W&B shows: top-level keys, with the chosen file of each group as a sweep names it.

    All but long texts is under `resolved`, and the command's `overrides`, with which an agent begins this run again
    (sweep_agent.py).
    """
    names = {group: name for group, name in x.names.items() if name != "None"} | {"task": list(x.tasks)}
    return {**x.resolved, **names, "overrides": x.overrides, "resolved": _without_texts(x.resolved)}


def _without_texts(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config without few-shot examples, and without what is tuned for methods that are not this one."""
    tasks = {}
    for name, task in (resolved.get("task") or {}).items():
        ours = task.get("lm_eval")
        if isinstance(ours, Mapping):  # else the name of one of lm-eval's
            task = {**task, "lm_eval": {key: ours[key] for key in ours if key != "fewshot_config"}}
        tasks[name] = task
    model = {key: value for key, value in resolved["model"].items() if key != "edit"}
    return {**resolved, "task": tasks, "model": model}


def tracking_of(folder: Path, environment: Environment) -> dict[str, Any]:
    """Returns the config that W&B shows of a run, for a command that is not the run's own."""
    stored, commands = read_config(folder / "config.yaml"), environment["commands"]
    names = {group: name for group, name in environment["names"].items() if name != "None"}
    names = {"method": folder.name, "model": "", **names}
    return {**stored, **names, "task": list(stored.get("task") or {}), "resolved": _without_texts(stored),
            "overrides": shlex.split(commands[-1])[2:] if commands else []}  # fmt: skip


def named_speed_keys(x: Experiment) -> set[str]:
    """Returns the keys of `speed` that the command itself names."""
    keys = (override.lstrip("+~").partition("=")[0] for override in x.overrides)
    return {key.removeprefix("speed.") for key in keys if key.startswith("speed.")}


def as_command(overrides: Sequence[str]) -> str:
    """Returns the command that gives these overrides, as a shell takes it."""
    return " ".join([RUN, *map(for_shell, overrides)])

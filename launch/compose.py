"""From a composed Hydra config to typed dataclasses, before torch is imported: a typo costs a second."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from afteredit.edit.constraint import Constraint
from afteredit.edit.edit_set import EditSet
from afteredit.edit.method import Method
from afteredit.evaluate.abilities.ability import Ability
from afteredit.model.loading.model_source import ModelSource
from afteredit.record.tracker import TrackerSettings
from afteredit.store.errors import BadInput

GROUPS = ("model", "method", "edits", "task", "constraint", "tracker")
# What a command may say of a replayed run: what is measured of it, and where the same weights lie here.
OF_A_REPLAY = ("replay", "task", "harness", "limit", "data", "held_out", "held_out_tokens", "device", "tracker",
               "evaluate", "model.source", "model.trust_remote_code")  # fmt: skip


class Setting(Enum):
    sequential = "sequential"  # every edit builds on the ones before
    single = "single"  # every batch edits the unedited model; results are means over the models measured


class Dtype(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


OnCollapse = Enum("OnCollapse", ["stop", "continue"])  # written so, since `continue` is a keyword


class Resume(Enum):
    same = "same"  # only under the code and package versions that began the run
    force = "force"
    whole = "whole"  # as same; of a damaged journal, from its last whole record


@dataclass(frozen=True)
class Settings:
    """The top-level keys."""

    n_edits: int
    batch_size: int
    eval_every: int
    setting: Setting
    seed: int
    device: str  # auto, cpu, cuda, cuda:1
    dtype: Dtype
    data: str  # mini, hub, or a folder of JSON-lines files
    limit: int | None  # rows per ability; null: all
    harness: list[str]  # tasks that lm-eval ships, measured beside the abilities
    held_out: str | None  # text file for perplexity; null: the embedded text
    held_out_tokens: int
    runs: str  # folder of the run directories
    resume: Resume
    on_collapse: OnCollapse
    collapse_perplexity: float  # collapse: perplexity past this multiple of the unedited model's


@dataclass(frozen=True)
class ReplaySettings:
    """Going back in a run that is there (`run`: its directory): `at` or `collapse` is asked of it."""

    run: str | None = None  # null: an ordinary run
    at: int | None = None  # the model after so many edits, measured; or, with `export`, written
    collapse: str | None = None  # a task: after which batch is `drop` of it lost?
    drop: float = 0.5  # of score - chance at the start
    export: str | None = None  # a new folder


@dataclass(frozen=True)
class EvaluateSettings:
    """How the measuring is done; no number depends on it."""

    cache_gib: float = 2.0  # CPU memory for what editing cannot have changed; 0: it is computed at every checkpoint

    def __post_init__(self) -> None:
        if not (self.cache_gib >= 0 and math.isfinite(self.cache_gib)):
            raise BadInput(f"evaluate.cache_gib={self.cache_gib}; it must be at least 0 (0: nothing is kept)")


@dataclass(frozen=True)
class Experiment:
    """One run: everything typed and checked.  `names` are the chosen entries of the groups; `resolved` the whole."""

    settings: Settings
    model: ModelSource
    method: Method
    edits: EditSet
    constraint: Constraint
    tracker: TrackerSettings
    tasks: dict[str, Ability]
    replay: ReplaySettings = ReplaySettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    names: dict[str, str] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)  # the command's


def experiment(config: DictConfig, names: Mapping[str, str], overrides: Sequence[str] = ()) -> Experiment:
    """Raises BadInput, naming the key, what it was given and what is allowed."""
    plain = {key: config[key] for key in config if key not in (*GROUPS, "replay", "evaluate")}
    settings = _typed(Settings, OmegaConf.create(plain), "")
    built = {
        "model": _typed(ModelSource, config.model, "model"),
        "edits": _typed(EditSet, config.edits, "edits"),
        "tracker": _typed(TrackerSettings, config.tracker, "tracker"),
        "replay": _typed(ReplaySettings, config.replay, "replay"),
        "evaluate": _typed(EvaluateSettings, config.evaluate, "evaluate"),
        "method": build(config.method, "method"),
        "constraint": build(config.constraint, "constraint"),
    }
    tasks = {str(name): build(node, f"task.{name}") for name, node in (config.get("task") or {}).items()}
    _check(settings, built["method"])
    _check_replay(built["replay"], settings)
    resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    return Experiment(settings=settings, tasks=tasks, names=dict(names), resolved=resolved, overrides=list(overrides),
                      **built)  # fmt: skip


def as_it_ran(config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """`config` with all that belongs to the run in `replay.run` as that run stored it; how it is measured stays.

    Raises BadInput where there is no run, or one of the command's `overrides` says otherwise about it.
    """
    folder = Path(str(config.replay.run))
    for name in ("config.yaml", "edits.jsonl"):
        if not (folder / name).is_file():
            raise BadInput(f"replay.run={folder} is no run directory: {folder / name} is not there; give the folder of "
                           "a run that made edits (runs/<method>-<model>-<hash>)")  # fmt: skip
    given = [override.lstrip("+~").partition("=")[0].partition("@")[0] for override in overrides]
    for key in given:
        if key not in OF_A_REPLAY and key.split(".")[0] not in OF_A_REPLAY:
            raise BadInput(f"{key} is given, but in a replay it is the run's own ({folder / 'config.yaml'}); leave it "
                           f"out.  Allowed beside replay.run: {', '.join(OF_A_REPLAY)}")  # fmt: skip
    stored = _stored_config(folder / "config.yaml")
    ours = {str(key): stored[key] for key in stored if key not in OF_A_REPLAY}
    if "model.source" in given:
        ours["model"].source = config.model.source
    ours["model"].trust_remote_code = config.model.trust_remote_code  # this command's to allow, not a folder's
    with open_dict(config):
        for key, value in ours.items():
            config[key] = value
    return config


def _stored_config(path: Path) -> DictConfig:
    try:
        stored = OmegaConf.load(path)
        lost = [key for key in ("model", "method", "constraint", "batch_size", "setting", "seed", "dtype")
                if key not in stored]  # fmt: skip
    except (OSError, ValueError, TypeError, YAMLError, OmegaConfBaseException) as problem:
        raise BadInput(f"{path} cannot be read ({' '.join(str(problem).split())}); restore it") from None
    if lost:
        raise BadInput(f"{path} is damaged: {', '.join(lost)} not in it; restore it")
    return cast(DictConfig, stored)


def build(node: DictConfig, key: str) -> Any:
    """The dataclass that `_target_` names, filled from the rest of the node; unknown keys and wrong types refused."""
    target = node.get("_target_")
    if not isinstance(target, str) or not target.startswith("afteredit."):
        raise BadInput(f"{key}._target_ is {target!r}; it must name a class of this project (afteredit.…)")
    module, _, name = target.rpartition(".")
    try:
        cls: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as problem:
        raise BadInput(f"{key}._target_={target} cannot be imported: {problem}") from None
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise BadInput(f"{key}._target_={target} is no dataclass; it must name a method, constraint or ability")
    rest = {k: node._get_node(k) for k in node if k != "_target_"}
    return _typed(cls, OmegaConf.create(rest, parent=cast(Any, node._get_parent())), key)


def _typed(cls: type, node: DictConfig, key: str) -> Any:
    dot = f"{key}." if key else ""
    known = [f.name for f in dataclasses.fields(cls)]
    for given in map(str, node):
        if given not in known:
            raise BadInput(unknown_key(f"{dot}{given}", [f"{dot}{k}" for k in known]))
    try:
        values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values))
    except OmegaConfBaseException as problem:
        bad = f"{dot}{problem.full_key}" if problem.full_key else key
        types = {f.name: f.type for f in dataclasses.fields(cls)}
        wanted = types.get(str(problem.full_key).split(".")[0].split("[")[0], "")
        message = str(problem).strip().splitlines()[0]
        raise BadInput(f"{bad}: {message}" + (f"; allowed: {wanted}" if wanted else "")) from None


def unknown_key(given: str, known: list[str], what: str = "key") -> str:
    close = get_close_matches(given, known, n=1)
    guess = f"; did you mean {close[0]}?" if close else "."
    return f"unknown {what} {given}{guess} Allowed: {', '.join(sorted(known))}"


def _check(settings: Settings, method: Method) -> None:
    for name in ("n_edits", "batch_size", "eval_every", "held_out_tokens"):
        if getattr(settings, name) < 1:
            raise BadInput(f"{name}={getattr(settings, name)}; it must be at least 1")
    if not settings.collapse_perplexity > 1:
        raise BadInput(f"collapse_perplexity={settings.collapse_perplexity}; it is a multiple of the unedited model's "
                       "perplexity and must be above 1")  # fmt: skip
    if settings.limit is not None and settings.limit < 1:
        raise BadInput(f"limit={settings.limit}; it must be at least 1, or null for all rows")
    if settings.eval_every % settings.batch_size:
        raise BadInput(f"eval_every={settings.eval_every} is not a multiple of batch_size={settings.batch_size}; "
                       "a checkpoint lies between batches")  # fmt: skip
    part = settings.n_edits % settings.batch_size
    if part:  # a last batch that is cut short could not be made whole when n_edits is raised
        whole = [n for n in (settings.n_edits - part, settings.n_edits - part + settings.batch_size) if n]
        raise BadInput(f"n_edits={settings.n_edits} is not a multiple of batch_size={settings.batch_size}; set n_edits="
                       f"{' or '.join(map(str, whole))}, or another batch_size")  # fmt: skip
    most = getattr(method, "max_batch", None)
    if most is not None and settings.batch_size > most:
        raise BadInput(f"batch_size={settings.batch_size}, but this method writes at most {most} fact at a time; set "
                       f"batch_size={most}")  # fmt: skip


def _check_replay(replay: ReplaySettings, settings: Settings) -> None:
    asked = {key: getattr(replay, key) for key in ("at", "collapse", "export") if getattr(replay, key) is not None}
    if replay.run is None:
        if asked:
            key, value = next(iter(asked.items()))
            raise BadInput(f"replay.{key}={value} says nothing without replay.run=<run directory>")
        return
    if set(asked) not in ({"at"}, {"collapse"}, {"at", "export"}):
        given = " and ".join(f"replay.{key}" for key in asked) or "neither"
        raise BadInput(f"replay.run with {given}; allowed: replay.at=<n edits>, replay.at=<n edits> with "
                       "replay.export=<new folder>, or replay.collapse=<task>")  # fmt: skip
    if not 0 < replay.drop < 1:
        raise BadInput(f"replay.drop={replay.drop}; it is the share that is lost, between 0 and 1 (0.5: half)")
    if replay.collapse is not None and settings.setting is Setting.single:
        raise BadInput(f"replay.collapse={replay.collapse}, but in {replay.run} (setting=single) each batch edits the "
                       "unedited model, so nothing adds up to a collapse; use replay.at")  # fmt: skip

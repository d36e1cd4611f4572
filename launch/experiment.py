"""The types of one experiment: every key of conf/ as a typed value, with what it decides said beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

from afteredit.edit.constraint import Constraint
from afteredit.edit.edit_set import EditSet
from afteredit.edit.method import Method
from afteredit.edit.request import EditRequest
from afteredit.edit.speed import Speed
from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.settings import MeasureSettings
from afteredit.model.loading.model_source import ModelSource
from afteredit.record.settings import RecordSettings, TrackerSettings
from afteredit.store.errors import BadInput
from afteredit.store.field_roles import MEASUREMENT, NOTHING, SPEED, WEIGHTS, decides


class Setting(Enum):
    """Which weights an edit starts from."""

    sequential = "sequential"  # every edit builds on the ones before
    single = "single"  # every batch edits the unedited model; results are means over the models measured


class Dtype(Enum):
    """The data type of the weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


@dataclass(frozen=True)
class Settings(MeasureSettings, RecordSettings):
    """The top-level keys.  Each wing is handed this object under the type of its own part."""

    batch_size: int = field(metadata=decides(WEIGHTS))
    setting: Setting = field(metadata=decides(WEIGHTS))
    seed: int = field(metadata=decides(WEIGHTS))
    dtype: Dtype = field(metadata=decides(WEIGHTS))
    own_code: list[str] = field(metadata=decides(NOTHING))  # packages of the user's own: their source is hashed
    device: str = field(metadata=decides(SPEED))  # auto, cpu, cuda, cuda:1; its kind (cpu, cuda) is in the run's name

    @property
    def single(self) -> bool:
        """Tells whether every batch edits the unedited model."""
        return self.setting is Setting.single


class ExportFormat(Enum):
    """What `replay.export` writes."""

    model = "model"  # the whole model
    adapter = "adapter"  # what changed, as a LoRA adapter


class Rounding(Enum):
    """To how many bits the linear weights of a model are rounded before it is measured."""

    int8 = 8
    int4 = 4


@dataclass(frozen=True)
class ReplaySettings:
    """Going back in the run in the directory `run`: one of `at`, `collapse` and `pending` is given with it."""

    run: str | None = None  # null: an ordinary run
    at: int | None = None  # the model after so many edits is measured, or with `export` written
    collapse: str | None = None  # a task, or retained: the batch by which `drop` of it is lost is searched
    pending: bool = False  # every checkpoint that the run has not measured is
    lease_s: float = 60.0  # seconds without a sign of life after which another process that measures counts as dead
    drop: float = 0.5  # the lost share of (score - chance) of the unedited model
    # with `at` or `collapse`: every model is measured with its linear weights rounded
    after: Rounding | None = field(default=None, metadata=decides(MEASUREMENT))
    chat: bool = False  # with `at`: prompts are answered by the unedited model and by that one
    export: str | None = None  # a new folder
    format: ExportFormat = ExportFormat.model
    rank: int | None = None  # of each matrix of an adapter; null: that of the edits' factors together
    dtype: Dtype | None = None  # of an exported model; null: the run's
    push: str | None = None  # hub id that the exported folder is sent to


class Locate(Enum):
    """What is asked about a model's blocks in the place of a run."""

    none = "none"  # nothing: an ordinary run
    trace = "trace"  # where facts reach its answer
    tune = "tune"  # and which blocks and other keys write best


TUNED = ("rome", "memit")  # methods that locate=tune knows


@dataclass(frozen=True)
class LocateSettings:
    """Finding the blocks to edit in a model; the keys of conf/locate/*.yaml say more."""

    what: Locate = Locate.none
    facts: int = 50  # facts that the model knows
    samples: int = 10  # draws of noise for each fact
    noise: float = 3.0  # in standard deviations of the embeddings of subject tokens
    window: int | None = None  # blocks whose outputs are put back together; null: in proportion to the paper's
    out: str = "."  # folder that is written to
    name: str | None = None  # of the files; null: the model's
    methods: list[str] = field(default_factory=lambda: list(TUNED))  # that are tuned
    rows: int = 16  # training rows that they are tried on

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in TUNED]
        if unknown or not self.methods:
            raise BadInput(f"locate.methods={self.methods}; allowed: {', '.join(TUNED)}, one of them or more")
        for name in ("facts", "samples", "window", "rows"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise BadInput(f"locate.{name}={given}; it must be at least 1")
        if not (self.noise > 0 and math.isfinite(self.noise)):
            raise BadInput(f"locate.noise={self.noise}; it must be above 0 (3: as in the paper)")


class PlannedBy(Enum):
    """From what the cost of a run is estimated, if that is asked."""

    none = "none"  # the run is made
    machine = "machine"  # from measurements on this machine
    given = "given"  # from figures of another machine


@dataclass(frozen=True)
class PlanSettings:
    """The keys of conf/plan."""

    by: PlannedBy = PlannedBy.none
    tflops: float | None = None  # rate of the products of matrices, in 10^12 operations a second
    gib: float | None = None  # of the device's memory

    def __post_init__(self) -> None:
        for name, value in (("tflops", self.tflops), ("gib", self.gib)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise BadInput(f"plan.{name}={value}; it must be above 0")


@dataclass(frozen=True)
class SpeedSettings(Speed):
    """How the computing is done.  A run keeps the values that it began with unless a later command names others."""

    cache_gib: float = field(default=2.0, metadata=decides(SPEED))  # CPU memory for blocks that editing cannot change

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.cache_gib >= 0 and math.isfinite(self.cache_gib)):
            raise BadInput(f"speed.cache_gib={self.cache_gib}; it must be at least 0 (0: nothing is kept)")


@dataclass(frozen=True)
class Experiment:
    """One run, typed and checked."""

    settings: Settings
    model: ModelSource
    method: Method
    edits: EditSet
    constraint: Constraint
    tracker: TrackerSettings = field(metadata=decides(NOTHING))
    tasks: dict[str, Ability] = field(metadata=decides(MEASUREMENT))
    replay: ReplaySettings = field(default=ReplaySettings(), metadata=decides(NOTHING))
    locate: LocateSettings = field(default=LocateSettings(), metadata=decides(NOTHING))
    speed: SpeedSettings = field(default=SpeedSettings(), metadata=decides(SPEED))
    plan: PlanSettings = field(default=PlanSettings(), metadata=decides(NOTHING))
    names: dict[str, str] = field(default_factory=dict)  # the chosen file of each group in conf/
    resolved: dict[str, Any] = field(default_factory=dict)  # the whole config as plain data
    overrides: list[str] = field(default_factory=list)  # those of the command

    @cached_property
    def training(self) -> list[EditRequest]:
        """The facts of the training split; read once."""
        return self.edits.training(self.settings.data)

"""Opens what an experiment names: its facts, its model, its run directory and what measures the model."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.edit.constraint import Unconstrained, view_file
from afteredit.edit.edit_set import OnBadRow
from afteredit.edit.method import Given, Prepared
from afteredit.edit.request import EditRequest, refuse_conflicts, without_split_rows
from afteredit.evaluate.abilities.build import (
    build_tasks,
    check_files,
    code_of,
    rows_sha256,
    with_chance,
)
from afteredit.evaluate.abilities.lm_eval_tasks import harness_abilities
from afteredit.evaluate.inference.held_out import held_out, held_out_text
from afteredit.launch.experiment import Experiment, SpeedSettings
from afteredit.launch.stored_config import named_speed_keys
from afteredit.store.atomic_files import make_folder
from afteredit.store.code_version import measuring_version, plugin_code
from afteredit.store.errors import NO_ROOM, BadInput
from afteredit.store.field_roles import MEASUREMENT, WEIGHTS, values_by_role
from afteredit.store.progress.work import working
from afteredit.store.user_cache import content_hash

if TYPE_CHECKING:
    from afteredit.edit.editor import Editor
    from afteredit.evaluate.measure import Measure
    from afteredit.model.lm import LM
    from afteredit.record.run_directory import RunDirectory
    from afteredit.record.terminal import PlainConsole


log = logging.getLogger(__name__)


def read_edits(x: Experiment) -> tuple[list[EditRequest], str]:
    """Returns all facts of the edit set in order, and the SHA-256 of the set's rows.

    Raises BadInput, before a model is loaded, where none can be at its source, where there are too few facts, where
    those of one batch conflict, or where something that the measurement needs is not there.
    """
    x.model.check()
    requests, sha256 = x.edits.read(x.settings.data, x.settings.seed)
    _batches(x, requests, refuse=x.edits.on_bad_row is OnBadRow.stop)  # else the model decides which facts these are
    check_files(x.tasks, x.settings)
    return requests, sha256


def _batches(x: Experiment, requests: list[EditRequest], *, refuse: bool = True) -> list[list[EditRequest]]:
    """Returns the batches to be written.  Raises BadInput where there are too few facts, or with `refuse` where those
    of one batch conflict."""
    if len(requests) < x.settings.n_edits:
        raise BadInput(f"n_edits={x.settings.n_edits}, but edits={x.edits.name} holds {len(requests)} usable rows; "
                       f"set n_edits={len(requests)} or give more rows")  # fmt: skip
    size = x.settings.batch_size
    batches = [requests[i : i + size] for i in range(0, x.settings.n_edits, size)]
    for batch in batches if refuse else ():
        refuse_conflicts(batch)
    return batches


def load_model(x: Experiment, console: PlainConsole) -> LM:
    """Returns the model, loaded on the device that is asked for.  Raises BadInput where either cannot be had."""
    device = chosen_device(x.settings.device)
    console.log(f"loading model {x.model.name} …")
    with working(f"loading model {x.model.name}"):
        return x.model.load(device, x.settings.dtype.value, x.edits.separator.value)


def usable_facts(
    x: Experiment, lm: LM, requests: list[EditRequest]
) -> tuple[list[EditRequest], list[list[EditRequest]]]:
    """Returns the facts that this model can be given, and the batches to be written.

    Raises BadInput where a planned edit cannot be made, or a fact that the unedited model is measured on cannot be
    asked; where bad rows are skipped, those that are at fault themselves are left out instead.
    """
    from afteredit.edit.preflight import refuse_uneditable, without_bad_rows
    from afteredit.record.run_directory import N_FIRST_FACTS

    n_edits = x.settings.n_edits
    if x.edits.on_bad_row is OnBadRow.skip:
        requests = without_bad_rows(lm, x.method, requests, max(n_edits, N_FIRST_FACTS))
    batches = _batches(x, requests)
    refuse_uneditable(lm, x.method, requests[:n_edits], requests[n_edits:N_FIRST_FACTS])
    if x.settings.single:
        batches, split = without_split_rows(batches)
        if split:
            log.warning("setting=single: what follows from %d rows (%s) is not asked: their facts stand in several "
                        "batches, so that no model holds them all", len(split), ", ".join(split[:5]))  # fmt: skip
    return requests, batches


def decides_weights(x: Experiment, lm: LM, edits_sha256: str) -> dict[str, Any]:
    """Returns all that decides the weights after an edit, as plain data; it names the run directory."""
    changes_updates = type(x.constraint).constrain is not Unconstrained.constrain
    return {
        "model": lm.fingerprint, "device": lm.device.type, "method": values_by_role(x.method, WEIGHTS),
        "content": x.method.content(Given(x.settings.seed, lambda: x.training)),
        "constraint": values_by_role(x.constraint, WEIGHTS) if changes_updates else None,
        "plugins": plugin_code(type(x.method), type(x.constraint) if changes_updates else None),
        "requests": edits_sha256, "edits": values_by_role(x.edits, WEIGHTS),
        "settings": values_by_role(x.settings, WEIGHTS),
    }  # fmt: skip


def decides_measurement(x: Experiment) -> dict[str, Any]:
    """Returns all that decides what is measured of given weights, as plain data; it names the results file."""
    shows_other_weights = type(x.constraint).view is not Unconstrained.view
    tasks = with_chance({**x.tasks, **harness_abilities(x.settings)}, x.settings)
    return {
        "tasks": {name: values_by_role(task, MEASUREMENT, default=MEASUREMENT) for name, task in tasks.items()},
        "rows": rows_sha256(tasks, x.settings.data),
        "plugins": plugin_code(*map(code_of, tasks.values()), type(x.constraint) if shows_other_weights else None),
        "held_out": hashlib.sha256(held_out_text(x.settings).encode()).hexdigest(),
        "settings": values_by_role(x.settings, MEASUREMENT),
        "view": values_by_role(x.constraint, WEIGHTS) if shows_other_weights else None,
        **({"after": x.replay.after.name} if x.replay.after else {}),
    }  # fmt: skip


def _run_folder(runs: str, label: str, weights: Mapping[str, Any]) -> Path:
    """Returns the folder of the run whose weights these values decide, and makes it where it is not there yet.

    `label`: method and model, the readable part of its name.  Raises BadInput where it cannot be made.
    """
    from afteredit.record.older_versions import name_older_runs

    folder = Path(runs) / f"{label}-{content_hash(weights)[:8]}"
    try:
        if not folder.is_dir():
            name_older_runs(folder, label)
        make_folder(folder)
    except OSError as problem:
        raise BadInput(f"runs={runs}: the run directory cannot be made there: {problem}"
                       f"{'; make room' if problem.errno in NO_ROOM else ''}") from None  # fmt: skip
    return folder


def open_run(x: Experiment, lm: LM, edits_sha256: str) -> RunDirectory:
    """Returns the run directory of the experiment, made where it is not there yet.

    Raises BadInput where the run cannot be continued here.
    """
    label = f"{x.names['method']}-{x.names['model']}"
    run = open_folder(x, _run_folder(x.settings.runs, label, decides_weights(x, lm, edits_sha256)))
    try:
        with run.in_use():
            run.environment.keep(lm.device, run.journal.n_edits, x.settings.resume)
            run.environment.note("model", lm.fingerprint_parts)
            run.environment.note("weights", lm.stored_as)
            run.environment.note("facts", edits_sha256)
            run.environment.note("names", x.names)
    except BadInput:
        run.close()
        raise
    return run


def keep_first_facts(
    run: RunDirectory, requests: Sequence[EditRequest], batches: Sequence[Sequence[EditRequest]], console: PlainConsole
) -> None:
    """Stores the facts that the unedited model is measured on; logs where `batches` leave the run nothing to do.

    From here on the console knows the run by its name.
    """
    from afteredit.record.terminal import bold, so_many_edits

    console.label, finished = run.folder.name, run.is_finished(batches)
    run.keep_first_facts(requests)
    if finished:
        n_edits = run.collapsed_at if run.collapsed_at is not None else run.settings.n_edits
        console.log(bold("finished already", f": {so_many_edits(n_edits)}; raise n_edits to go on"))


def open_folder(x: Experiment, folder: Path, *, read_only: bool = False) -> RunDirectory:
    """Returns the run directory in `folder` as it is, with the results file of the experiment's measurement."""
    from afteredit.record.run_directory import RunDirectory

    return RunDirectory(folder, x.settings, decides_measurement(x), measuring_version(view_file(x.constraint)),
                        single=x.settings.single, read_only=read_only)  # fmt: skip


def keep_speed(x: Experiment, run: RunDirectory) -> SpeedSettings:
    """Returns the speed keys that the run goes on with: its own, but for those that this command names."""
    named = named_speed_keys(x)
    with run.in_use():
        return SpeedSettings(**run.environment.keep_speed(asdict(x.speed), named, run.journal.n_edits))


def prepare(x: Experiment, lm: LM) -> Prepared:
    """Returns the constants of the experiment's method for the unedited model.  Raises BadInput."""
    from afteredit.edit.preflight import learnable, refuse_unlearnable

    checked = learnable if x.edits.on_bad_row is OnBadRow.skip else refuse_unlearnable
    with working("preparing the method's constants"):
        return x.method.prepare(lm, Given(x.settings.seed, lambda: checked(lm, x.training)))


def prepare_editor(x: Experiment, lm: LM, run: RunDirectory, batches: Sequence[Sequence[EditRequest]],
                   speed: SpeedSettings) -> Editor:  # fmt: skip
    """Returns the editor of a run, with the method's constants and the run's own context prefixes.

    Raises BadInput where the model or the constants are not those that the run was begun with.
    """
    from afteredit.edit.editor import Editor
    from afteredit.edit.preflight import refuse_long_prefixes

    lm.weights.keep_base(x.method.edited(lm))
    run.refuse_other_model(lm.weights.sha256(), x.model.source)
    prepared = run.with_contexts(prepare(x, lm))
    planned = [request for batch in batches for request in batch]
    refuse_long_prefixes(lm, planned, prepared.contexts)
    return Editor(lm, x.method, x.constraint, prepared, planned=planned, single=x.settings.single,
                  speed=speed)  # fmt: skip


def build_measure(x: Experiment, lm: LM, first_facts: Sequence[EditRequest], speed: SpeedSettings,
                  progress: Callable[[str], None]) -> Measure:  # fmt: skip
    """Returns what measures the model; reads the abilities' rows and the held-out text."""
    from afteredit.evaluate.measure import Measure
    from afteredit.evaluate.rounded_weights import rounding_of

    with working("preparing the abilities"):
        tasks = build_tasks(x.tasks, x.settings)
    return Measure(lm, tasks, held_out(lm, x.settings), first_facts, x.settings.seed, view=x.constraint.view,
                   rounding=rounding_of(lm, x.replay.after and x.replay.after.value), progress=progress,
                   cache_gib=speed.cache_gib, shared=True, change_shares=x.settings.change_shares)  # fmt: skip


def chosen_device(name: str) -> str:
    import torch

    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    cuda = ["cuda", *(f"cuda:{index}" for index in range(n_cuda))] if n_cuda else []
    allowed = ["auto", "cpu", *cuda]  # no mps: it has no float64, in which edits are solved
    if name not in allowed:
        raise BadInput(f"device={name} is not available on this machine; allowed here: {', '.join(allowed)}")
    return name

"""Edit a language model, fact after fact, and measure what it has left: python run.py method=rome model=smollm2

config → requests → method.update → Update (constrained) → applied and journalled → abilities scored → tracked.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.edit.method import Given
from afteredit.edit.request import EditRequest
from afteredit.launch.command_line import start
from afteredit.launch.console import new_console
from afteredit.launch.endings import Interrupted, Interruption
from afteredit.launch.experiment import Experiment
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from afteredit.evaluate.measure import Measure
    from afteredit.model.lm import LM
    from afteredit.record.recorder import Watch
    from afteredit.record.run_directory import RunDirectory
    from afteredit.record.tracker import Tracker


def edit_in_sequence(
    lm: LM, x: Experiment, batches: Sequence[Sequence[EditRequest]], run: RunDirectory, measure: Measure, watch: Watch
) -> int:
    """Applies `batches` in order; measures before the first and after every `eval_every` edits.

    What the journal holds is applied again instead of computed; checkpoints that have no row yet are measured.
    Ends early where the model has collapsed and on_collapse=stop; returns the number of batches it came to.  Raises
    Interrupted between edits and measurements.
    """
    from afteredit.edit.editor import Editor

    recent: list[dict[str, Any]] = []  # what was measured right after each edit since the last checkpoint
    planned = [request for batch in batches for request in batch]
    single = x.settings.single
    editor = Editor(lm, x.method, x.constraint, run.prepared, planned=planned, single=single, speed=x.speed)

    def checkpoint(last: bool) -> None:
        nonlocal recent
        n_edits, sha256 = editor.n_edits, editor.weights_sha256()
        if not run.results.has(n_edits):
            measured = measure.checkpoint(editor.carried, last=last).with_immediate(recent)
            run.add_checkpoint(n_edits, measured.row, measured.samples, sha256)
        run.compare_weights(n_edits, sha256)
        watch.checkpoint(run.results.row(n_edits))
        recent = []

    checkpoint(last=False)
    for index, batch in enumerate(batches):
        editor.begin(batch)
        new = index >= run.journal.n_batches
        started = time.perf_counter()
        if new:
            watch.doing(f"editing: {batch[0].subject}")
            update = editor.write(batch)
        else:
            watch.doing(f"edit {run.journal.records[index]['n_edits']}, from the journal")
            update = run.journal.update(index, batch)
        editor.apply(batch, update)
        if new:
            edited = time.perf_counter()
            immediate = measure.immediate(batch)
            seen = {"immediate": immediate.samples, "generated": immediate.texts}
            timed = {"edit_s": edited - started, "immediate_s": immediate.seconds}
            run.journal.append(batch, update, editor.n_edits, {**timed, **seen})
        record = run.journal.records[index]
        watch.edit(record, len(batch))
        recent += record["immediate"]
        last = index == len(batches) - 1 or run.stops_at(editor.n_edits)
        if last or editor.n_edits % x.settings.eval_every == 0:
            checkpoint(last)
        if run.stops_at(editor.n_edits):
            return index + 1
    return len(batches)


def run_experiment(x: Experiment) -> Path:
    """One experiment from config to pictures; returns its run directory.  The same call continues or finishes it."""
    console = new_console()
    with Interruption(at_once=True):  # the edits themselves have one of their own, that waits for a whole one
        try:
            if x.replay.run is None:
                return _experiment(x, console)
            from afteredit.commands.replay import replay

            return replay(x, lambda: _load(x, console), console)
        except Interrupted:
            console.log("[bold]stopped[/bold]; what is made is kept, and the same command goes on from there")
            raise


def _experiment(x: Experiment, console: Console) -> Path:
    from afteredit.evaluate.abilities.build import check_files

    requests, edits_sha256 = x.edits.read(x.settings.data, x.settings.seed)
    if len(requests) < x.settings.n_edits:
        raise BadInput(f"n_edits={x.settings.n_edits}, but edits={x.edits.name} holds {len(requests)} usable rows; "
                       f"set n_edits={len(requests)} or give more rows")  # fmt: skip
    batches = _batches(requests[: x.settings.n_edits], x.settings.batch_size)
    check_files(x.tasks, x.settings)
    lm = _load(x, console)
    from afteredit.edit.preflight import refuse_uneditable
    from afteredit.record.run_directory import RunDirectory

    refuse_uneditable(lm, x.method, requests[: x.settings.n_edits])
    with RunDirectory.of(x, lm, edits_sha256) as run:
        finished = run.is_finished(batches)
        run.keep_first_facts(requests)
        if finished:
            n_edits = run.collapsed_at if run.collapsed_at is not None else x.settings.n_edits
            console.log(f"[bold]finished already[/bold]: {n_edits} edits; raise n_edits to go on")
        return _run(x, lm, batches, run, console)


def _run(x: Experiment, lm: LM, batches: list[list[EditRequest]], run: RunDirectory, console: Console) -> Path:
    from afteredit.evaluate.abilities.build import build_tasks
    from afteredit.evaluate.inference.held_out import held_out
    from afteredit.evaluate.measure import Measure
    from afteredit.record.recorder import Watch
    from afteredit.record.terminal import Display

    console.log(f"run directory {run.folder}")
    console.log("preparing the method's constants (cached) and the abilities")
    lm.weights.keep_base(x.method.edited(lm))
    run.refuse_other_model(lm.weights.sha256())
    given = Given(x.settings.seed, lambda: x.edits.training(x.settings.data))
    run.prepared = run.with_contexts(x.method.prepare(lm, given))
    measure_parts = build_tasks(x.tasks, x.settings), held_out(lm, x.settings), run.first_facts, x.settings.seed
    tracker = run.tracker()
    if tracker.ids:
        console.print(f"look     wandb leet {tracker.ids['folder']}", highlight=False, soft_wrap=True)
    n_checkpoints = 1 + -(-x.settings.n_edits // x.settings.eval_every)
    try:
        with Display(console, x.settings.n_edits, n_checkpoints) as display, Interruption() as interruption:
            watch = Watch(display, tracker, interruption, run.results)
            measure = Measure(lm, *measure_parts, view=x.constraint.view, cache_gib=x.speed.cache_gib, shared=True,
                              progress=lambda what: watch.doing(f"measuring: {what}"))  # fmt: skip
            n_batches = edit_in_sequence(lm, x, batches, run, measure, watch)
            watch.beyond(run.journal.records[n_batches:])
        _end(x, run, tracker, console)
    except Interrupted:
        console.log(f"[bold]stopped[/bold] after {run.journal.n_edits} edits, all of them kept in {run.folder}")
        tracker.preempt()
        raise
    except BaseException:
        tracker.fail()
        raise
    return run.folder


def _end(x: Experiment, run: RunDirectory, tracker: Tracker, console: Console) -> None:
    """Of a whole run: the picture, W&B's summary and files, the tables."""
    from afteredit.analysis.tables.run_end import at_end

    chance = {name: ability.chance for name, ability in run.abilities.items()}
    results = run.results.up_to(x.settings.n_edits)
    batch = x.settings.batch_size if x.settings.single else None
    picture, summary, tables = at_end(results, chance, run.folder, single=batch, collapsed=run.collapsed)
    if run.collapsed_at is not None:
        console.print(f"[bold red]collapsed[/bold red] at {run.collapsed_at} edits: NaN in an update, or perplexity "
                      f"past {x.settings.collapse_perplexity:g} times the unedited model's")  # fmt: skip
    tracker.finish(summary, run.journal.records)
    console.print(*tables)
    console.print(f"curves   {picture}\nresults  {run.results.path}", highlight=False, soft_wrap=True)
    for line in run.commands_to_look_further(tracker):
        console.print(line, highlight=False, soft_wrap=True)


def _load(x: Experiment, console: Console) -> LM:
    console.log(f"loading model {x.model.name} …")
    return x.model.load(_device(x.settings.device), x.settings.dtype.value)


def _batches(requests: list[EditRequest], size: int) -> list[list[EditRequest]]:
    from afteredit.edit.request import refuse_conflicts

    batches = [requests[i : i + size] for i in range(0, len(requests), size)]
    for batch in batches:
        refuse_conflicts(batch)
    return batches


def _device(asked: str) -> str:
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{index}" for index in range(n_cuda))] if n_cuda else []
    allowed = ["auto", "cpu", *cuda]  # no mps: it has no float64, in which edits are solved
    if asked not in allowed:
        raise BadInput(f"device={asked} is not available on this machine; allowed here: {', '.join(allowed)}")
    return asked


def main(argv: Sequence[str] | None = None, run: Callable[[Experiment], Any] = run_experiment) -> int:
    """`python run.py key=value …`; flags (-m, --cfg, --help) go to Hydra's own command line."""
    return start(sys.argv[1:] if argv is None else list(argv), run)


if __name__ == "__main__":
    code = main()
    gc.freeze()  # otherwise the interpreter spends a second of its exit looking through all that imports have made
    sys.exit(code)

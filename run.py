"""Edits a language model, fact after fact, and measures what it has left: python run.py method=rome model=smollm2
The order of an experiment is: compose, load, prepare, edit and measure, record, end.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while modules are imported
    gc.set_threshold(10_000)  # imports make objects by the million, none of them garbage: a sixth of a start
from afteredit.commands.dispatch import other_command  # noqa: E402
from afteredit.launch.console import new_console  # noqa: E402
from afteredit.launch.experiment import Experiment  # noqa: E402
from afteredit.launch.start import start  # noqa: E402
from afteredit.store.interruption import Interrupted, Interruption  # noqa: E402

if TYPE_CHECKING:
    from afteredit.edit.editor import Editor
    from afteredit.edit.request import EditRequest
    from afteredit.evaluate.measure import Measure
    from afteredit.model.lm import LM
    from afteredit.record.journal import Journal
    from afteredit.record.recorder import Recorder
    from afteredit.record.run_directory import RunDirectory
    from afteredit.record.terminal import PlainConsole


def edit_and_measure(editor: Editor, batches: Sequence[Sequence[EditRequest]], journal: Journal, measure: Measure,
                     record: Recorder, due: Callable[[int, int], bool]) -> None:  # fmt: skip
    """Applies `batches` in order; measures before the first, after the last and wherever it is `due`.

    Updates that the journal holds are applied again instead of computed; what has no row yet is measured.  Ends early
    where the model has collapsed and on_collapse=stop.  Raises Interrupted between edits and measurements.
    """

    def checkpoint(last: bool) -> None:
        n_edits, sha256 = editor.n_edits, editor.weights_sha256()
        if record.has_checkpoint(n_edits):
            record.compare_weights(n_edits, sha256)
        elif not record.leaves_pending(n_edits, sha256):
            record.checkpoint(n_edits, sha256, measure.checkpoint(editor.carried, last=last))

    checkpoint(last=not batches)
    for index, batch in enumerate(batches):
        editor.begin(batch)
        written = index < journal.n_batches
        update = journal.update(index) if written else editor.write(batch)
        editor.apply(batch, update)
        if not written:
            journal.append(batch, update)
        if not record.has_edit(index):
            record.edit(index, measure.immediate(batch))
        stops = record.stops(editor.n_edits)
        last = stops or index == len(batches) - 1
        if last or due(editor.n_edits, len(batch)):
            checkpoint(last)
        if stops or record.stops(editor.n_edits):  # a collapse may be seen only by this checkpoint
            break


def run_experiment(x: Experiment) -> Path:
    """Runs one experiment from config to pictures; returns its run directory.  The same call continues or ends it."""
    console = new_console(x)
    with Interruption(at_once=True):  # the edits have an interruption of their own, which waits for a whole edit
        try:
            command = other_command(x)
            return command(x, console) if command else _experiment(x, console)
        except Interrupted:
            console.log("stopped; the same command goes on after the last edit, checkpoint or piece kept")
            raise


def _experiment(x: Experiment, console: PlainConsole) -> Path:
    from afteredit.launch.opening import keep_first_facts, load_model, open_run, read_edits, usable_facts

    rows, edits_sha256 = read_edits(x)
    lm = load_model(x, console)
    requests, batches = usable_facts(x, lm, rows)
    with open_run(x, lm, edits_sha256) as run:
        keep_first_facts(run, requests, batches, console)
        return _run(x, lm, batches, run, console)


def _run(x: Experiment, lm: LM, batches: list[list[EditRequest]], run: RunDirectory, console: PlainConsole) -> Path:
    from afteredit.commands.pending import end_run
    from afteredit.launch.opening import build_measure, keep_speed, prepare_editor
    from afteredit.launch.stored_config import as_command, as_yaml, for_tracking
    from afteredit.record.display.run_display import Display
    from afteredit.record.recorder import Recorder

    console.log(f"run directory {run.folder}")
    speed, interruption = keep_speed(x, run), Interruption()
    editor = prepare_editor(x, lm, run, batches, speed)
    record = Recorder(run, Display(console, batches, x.settings.due), interruption.check)
    measure = build_measure(x, lm, run.first_facts, speed, record.measuring)
    record.keep_command(as_yaml(x), as_command(x.overrides))
    with record.tracked(x.tracker, for_tracking(x)):
        with record.display, interruption:
            edit_and_measure(editor, batches, run.journal, measure, record, x.settings.due)
        end_run(run, record)
    return run.folder


def main(argv: Sequence[str] | None = None, run: Callable[[Experiment], Any] = run_experiment) -> int:
    """Runs `python run.py key=value …` and returns the exit code; flags (-m, --cfg) are Hydra's."""
    return start(sys.argv[1:] if argv is None else list(argv), run)


if __name__ == "__main__":
    code = main()
    gc.freeze()  # otherwise the interpreter spends a second of its exit looking through all that imports have made
    sys.exit(code)

"""Measures 20 edits of a fresh model, and 20 after 900 made-up ones that fill the state and the journal:
python -m afteredit.bench.filled [key=value …]

It runs on SmolLM2 (or the overrides' model) and the embedded facts, with the recipe (experiment=least_harm) and with
ultraedit, 20 facts in one batch, from the search to the line on the disk.  The two are measured in turns, and the
faster time of each is taken.  A made-up update has the tensors of a real one, each entry times a random factor, but
moves the weights by next to nothing, so that the searches after it take the steps that they take on a fresh model.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from afteredit.bench.machine import seconds
from afteredit.bench.table import PATH, results_option, write_rows
from afteredit.edit.editor import Editor
from afteredit.edit.method import Given, Prepared
from afteredit.edit.request import EditRequest
from afteredit.edit.update import Change, Update
from afteredit.launch.command_line import compose
from afteredit.launch.experiment import Experiment
from afteredit.model.lm import LM
from afteredit.record.journal import Journal

TIMED, MADE_UP, TURNS = 20, 900, 2
TINY = 1e-9
METHODS = {"the recipe": ["experiment=least_harm", "method.pilot_edits=10"],
           "ultraedit": ["experiment=limits", "method=ultraedit"]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of a run: model, device or dtype")
    parser.add_argument("--made-up", type=int, default=MADE_UP, help="edits before the 20 that are timed")
    results_option(parser)
    arguments = parser.parse_args()
    if arguments.overrides and arguments.results == PATH:
        parser.error("the repository's table is of the defaults; with overrides give --results=<another file>")
    for name, keys in METHODS.items():
        x = compose([*keys, "edits=facts", "data=mini", "task=none", *arguments.overrides])
        write_rows([{"name": f"{TIMED} edits, {name}", **measure(x, arguments.made_up)}], arguments.results)


def measure(x: Experiment, n_made_up: int) -> dict[str, Any]:
    """Returns the seconds of the timed edits on a fresh model and after the made-up ones."""
    requests, _ = x.edits.read(x.settings.data, x.settings.seed)
    lm = x.model.load("cpu" if x.settings.device == "auto" else x.settings.device, x.settings.dtype.value)
    lm.weights.keep_base(x.method.edited(lm))
    prepared = x.method.prepare(lm, Given(x.settings.seed, lambda: x.training))
    fresh, filled = [], []
    for _ in range(TURNS):
        fresh.append(edit_seconds(x, lm, prepared, requests[:TIMED], 0))
        filled.append(edit_seconds(x, lm, prepared, requests[:TIMED], n_made_up))
    return {"n_filled": n_made_up, "fresh_s": min(fresh), "filled_s": min(filled),
            "filled_growth": min(filled) / min(fresh)}  # fmt: skip


def edit_seconds(x: Experiment, lm: LM, prepared: Prepared, batch: Sequence[EditRequest], n_made_up: int) -> float:
    """Returns the seconds that `batch` takes on the unedited weights, written, kept on the disk and applied."""
    lm.weights.restore()
    editor = Editor(lm, x.method, x.constraint, prepared, planned=batch)
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))

        def write(facts: Sequence[EditRequest], update: Update) -> None:
            journal.append(facts, update)
            editor.apply(facts, update)

        if n_made_up:
            torch.manual_seed(0)
            real = editor.write(batch[:1])
            for i in range(n_made_up):
                write([replace(batch[0], id=f"made-up-{i}")], made_up(real))
        taken, _ = seconds(lambda: write(batch, editor.write(batch)))
        journal.close()
    lm.weights.restore()
    return taken


def made_up(real: Update) -> Update:
    """Returns an update of the same shapes whose entries are random multiples, and whose changes are tiny."""
    return Update({name: _tiny(change) for name, change in real.changes.items()},
                  {name: _varied(tensor) for name, tensor in real.adds.items()}, real.diagnostics)  # fmt: skip


def _tiny(change: Change) -> Change:
    first, *rest = change.tensors().items()
    return type(change)(**{first[0]: _varied(first[1]) * TINY, **{name: _varied(tensor) for name, tensor in rest}})


def _varied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor * torch.randn(tensor.shape).exp().to(tensor)


if __name__ == "__main__":
    main()

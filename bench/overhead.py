"""Peak memory over the model's own size, and the share of a run that is neither editing nor measuring (start, journal,
tracking, pictures): python -m afteredit.bench.overhead [key=value …]

Runs `python run.py` as a process of its own, the demo's settings unless told otherwise, tracked offline.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from afteredit.bench.table import write_rows
from afteredit.command_line import CONF, compose
from afteredit.edit.journal import Lines

DEMO = ["n_edits=20", "eval_every=5", "limit=24", "held_out_tokens=1024"]


def main() -> None:
    overrides = [*DEMO, *sys.argv[1:], "tracker.mode=offline"]
    with tempfile.TemporaryDirectory() as runs:
        started = time.perf_counter()
        subprocess.run([sys.executable, str(CONF.parent / "run.py"), *overrides, f"runs={runs}"], check=True)
        wall_s = time.perf_counter() - started
        (run,) = Path(runs).iterdir()
        (results,) = run.glob("results-*.jsonl")
        edits = Lines(run / "edits.jsonl").records
        rows = Lines(results).records
    edit_s = sum(record["edit_s"] for record in edits)
    eval_s = sum(row["time/eval_s"] for row in rows) + sum(record["immediate_s"] for record in edits)
    lm = compose(overrides).model.load("cpu", "float32")
    model_gib = sum(p.numel() * p.element_size() for p in lm.model.parameters()) / 2**30
    peak_gib = max(row["memory/peak_gib"] for row in rows)
    write_rows([{
        "name": "a whole run", "wall_s": wall_s, "edit_s": edit_s, "eval_s": eval_s,
        "neither_s": wall_s - edit_s - eval_s, "neither_share": 1 - (edit_s + eval_s) / wall_s,
        "peak_gib": peak_gib, "model_gib": model_gib, "peak_over_model": peak_gib / model_gib,
    }])  # fmt: skip


if __name__ == "__main__":
    main()

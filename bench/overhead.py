"""Measures peak memory, and the share of a run that is neither editing nor measuring (start, journal, tracking,
pictures): python -m afteredit.bench.overhead [key=value …]

Runs `python run.py` in a process of its own, with the demo's settings unless told otherwise, tracked offline.  gptj.py
estimates the same share for GPT-J, from the seconds that writing one of its edits takes on this disk.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from afteredit.bench.gptj import FACTOR_BYTES, MASTER_BYTES, Assumed, gptj_share
from afteredit.bench.machine import seconds
from afteredit.bench.table import results_option, write_rows
from afteredit.launch.command_line import CONF, compose
from afteredit.store.atomic_files import write_atomically
from afteredit.store.checked_lines import Lines

DEMO = ["n_edits=20", "eval_every=5", "limit=24", "held_out_tokens=1024"]
JOURNALLED = 20  # edits whose bytes are written to time one
LINE_BYTES = 5000  # of an edit in edits.jsonl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    results_option(parser)
    arguments = parser.parse_args()
    overrides = [*DEMO, *arguments.overrides, "tracker.mode=offline"]
    with tempfile.TemporaryDirectory() as runs:
        started = time.perf_counter()
        subprocess.run([sys.executable, str(CONF.parent / "run.py"), *overrides, f"runs={runs}"], check=True)
        wall_s = time.perf_counter() - started
        (run,) = Path(runs).iterdir()
        (results,) = run.glob("results-*.jsonl")
        (immediate,) = run.glob("immediate-*.jsonl")
        edits = Lines(run / "edits.jsonl").records
        rows = Lines(results).records
        immediate_s = sum(record["immediate_s"] for record in Lines(immediate).records)
    edit_s = sum(record["edit_s"] for record in edits)
    eval_s = sum(row["time/eval_s"] for row in rows) + immediate_s
    lm = compose(overrides).model.load("cpu", "float32")
    model_gib = sum(p.numel() * p.element_size() for p in lm.model.parameters()) / 2**30
    peak_gib = max(row["memory/peak_gib"] for row in rows)
    with tempfile.TemporaryDirectory(dir=arguments.results.parent) as folder:  # elsewhere may be memory
        journal_s = seconds_of_an_edit(Path(folder))
    neither_s, assumed = wall_s - edit_s - eval_s, Assumed()
    hash_s = MASTER_BYTES * seconds_to_hash_a_byte()
    write_rows([
        {"name": f"a whole run of {edits[-1]['n_edits']} edits", "wall_s": wall_s, "edit_s": edit_s, "eval_s": eval_s,
         "neither_s": neither_s, "neither_share": neither_s / wall_s, "peak_gib": peak_gib, "model_gib": model_gib,
         "peak_over_model": peak_gib / model_gib},
        {"name": "a run on GPT-J, by arithmetic", **gptj_share(journal_s, hash_s, neither_s, assumed),
         "assumed": asdict(assumed)},
    ], arguments.results)  # fmt: skip


def seconds_to_hash_a_byte() -> float:
    content = os.urandom(2**26)
    return seconds(lambda: hashlib.sha256(content).digest())[0] / len(content)


def seconds_of_an_edit(folder: Path) -> float:
    """Returns the seconds to bring the bytes of one of GPT-J's edits, and its line, to the disk."""
    lines, content = Lines(folder / "edits.jsonl"), os.urandom(FACTOR_BYTES)

    def journal() -> None:
        for index in range(JOURNALLED):
            write_atomically(folder / f"{index}.safetensors", content)
            lines.append({"request": "x" * LINE_BYTES})

    return seconds(journal)[0] / JOURNALLED


if __name__ == "__main__":
    main()

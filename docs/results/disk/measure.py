"""What an edit takes on the disk, by method, from actual run directories on the real SmolLM2.

    python docs/results/disk/measure.py FOLDER          (FOLDER gets the runs)

Two edits each.  Steps and contexts are cut to what still makes a file: they decide numbers in it, not how many.  (KN's
are as many as it finds neurons.)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FEW = ["method.value_steps=2"]
METHODS = {
    "rome": [*FEW, "method.contexts_short=0", "method.contexts_long=0"],
    "memit": [*FEW, "method.contexts=0"],
    "memit_seq": [*FEW, "method.contexts=0"],
    "alphaedit": [*FEW, "method.contexts=0"],
    "kn": ["method.steps=2", "method.contexts=0"],
    "ft": ["method.steps=2"],
}

for name, keys in METHODS.items():
    runs = Path(sys.argv[1]) / name
    command = [sys.executable, "run.py", f"method={name}", *keys, "n_edits=2", "eval_every=2", "task=none",
               "held_out_tokens=32", "tracker=none", f"runs={runs}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-600:]}")
    (folder,) = runs.iterdir()
    updates = [path.stat().st_size for path in sorted((folder / "updates").iterdir())]
    line = (folder / "edits.jsonl").stat().st_size / len(updates)
    print(f"| {name} | {updates} | {line:.0f} |", flush=True)

"""How long does a wrong command take to be refused?  python docs/results/kills/wrong_config.py [REPEATS]"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = ("nope=1", "method=rom", "method.layer=low", "method.value_lr=-1", "eval_every=6 batch_size=4 method=memit",
            "n_edits=300", "data={folder}")  # fmt: skip


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Wall, and CPU of the process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "run.py", *arguments], capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


with tempfile.TemporaryDirectory() as folder:
    bad_row = '{"id": "r1", "relation": "x", "subject": "Peru", "prompt": "{} is in", "target_new": ""}\n'
    Path(folder, "facts.jsonl").write_text(bad_row)
    for command in COMMANDS:
        taken = [seconds(command.format(folder=folder).split()) for _ in range(int(sys.argv[1]) if sys.argv[1:] else 5)]
        wall, cpu = zip(*taken, strict=True)
        print(f"| `{command}` | {statistics.median(wall):.2f} | {max(wall):.2f} | {statistics.median(cpu):.2f} |")

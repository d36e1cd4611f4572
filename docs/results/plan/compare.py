"""Holds plans against the runs that they are of: seconds and memory, on the machine that it is started on.

python docs/results/plan/compare.py [--memory] [NAME …] [QWEN=<file.gguf>]

Each run is planned, then made twice (constants are in the cache the second time), and a line of JSON says what was
planned and what it took.  Seconds mean something on an idle machine alone; `--memory` makes each run once.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from afteredit.commands.plan.plan import planned
from afteredit.launch.command_line import compose
from afteredit.store.checked_lines import Lines

ROOT = Path(__file__).resolve().parents[3]
CASES = {  # none was used to fit the estimate
    "rome": ["model=smollm2", "n_edits=4", "eval_every=2", "task=[nli,closed_qa]", "limit=8"],
    "memit-batch": [
        "model=smollm2",
        "method=memit",
        "n_edits=8",
        "batch_size=4",
        "eval_every=4",
        "task=[sentiment,open_qa]",
        "limit=16",
    ],
    "alphaedit": ["model=smollm2", "method=alphaedit", "n_edits=2", "eval_every=1", "task=none"],
    "ft-qwen": [
        "model=qwen2.5-coder-0.5b",
        "method=ft",
        "n_edits=4",
        "batch_size=2",
        "eval_every=2",
        "task=[summarization]",
        "limit=4",
    ],
    "rome-qwen": ["model=qwen2.5-coder-0.5b", "n_edits=2", "eval_every=2", "task=[nli]", "limit=8"],
}


def main() -> None:
    options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    memory_alone = "--memory" in sys.argv
    named = [word for word in sys.argv[1:] if word in CASES] or list(CASES)
    for name in named:
        overrides = [*CASES[name], "tracker=none", "device=cpu"]
        if "qwen" in CASES[name][0]:
            overrides.append(f"model.source={options['QWEN']}")
        says = in_a_process_of_its_own(overrides)
        for _ in range(1 if memory_alone else 2):
            took = run(overrides)
        print(json.dumps({"run": name, "planned": says, "took": took, "overrides": CASES[name]}), flush=True)


def in_a_process_of_its_own(overrides: list[str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--plan", *overrides]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def plan_alone(overrides: list[str]) -> None:
    os.environ["TQDM_DISABLE"] = "1"
    says = planned(compose([*overrides, "plan=machine"]))
    n_later = max(1, len(says.checkpoints) - 2)
    print(
        json.dumps(
            {
                "gib": says.held.peak("cpu") / 2**30,
                "always": says.held.always,
                "phases": says.held.phases,
                "update_s": says.update.expected,
                "immediate_s": says.immediate.expected,
                "first_s": total(says.unedited),
                "later_s": total(says.later),
                "last_s": total(says.last),
                "whole_s": [says.whole.low, says.whole.expected, says.whole.high],
                "n_later": n_later,
            }
        )
    )


def total(parts: dict) -> float:
    return sum(part.expected for part in parts.values())


def run(overrides: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as runs:
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, ROOT / "run.py", *overrides, f"runs={runs}"], check=True, stdout=subprocess.DEVNULL
        )
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        (folder,) = Path(runs).iterdir()
        (results,), (immediate,) = folder.glob("results-*.jsonl"), folder.glob("immediate-*.jsonl")
        rows, edits = Lines(results, read_only=True).records, Lines(folder / "edits.jsonl", read_only=True).records
        seconds = [row["time/eval_s"] for row in rows]
        return {
            "gib": rows[-1]["memory/peak_gib"],
            "whole_s": wall,
            "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "update_s": sum(edit["edit_s"] for edit in edits) / len(edits),
            "immediate_s": sum(r["immediate_s"] for r in Lines(immediate, read_only=True).records) / len(edits),
            "first_s": seconds[0],
            "later_s": sum(seconds[1:-1]) / max(1, len(seconds) - 2),
            "last_s": seconds[-1],
        }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plan"]:
        plan_alone(sys.argv[2:])
    else:
        main()

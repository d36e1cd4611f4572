"""Where one run's seconds went, as a JSON line: python docs/results/full-size/share.py RUN_DIRECTORY BEGAN ENDED"""

import json
import statistics
import sys
from pathlib import Path

from afteredit.store.checked_lines import Lines


def main() -> None:
    folder, wall_s = Path(sys.argv[1]), float(sys.argv[3]) - float(sys.argv[2])
    edits = Lines(folder / "edits.jsonl", read_only=True).records
    rows = [row for path in folder.glob("results-*.jsonl") for row in Lines(path, read_only=True).records]
    editing_s = sum(record["edit_s"] for record in edits)
    measuring_s = sum(row["time/eval_s"] for row in rows) + sum(record["immediate_s"] for record in edits)
    print(json.dumps({
        "run": folder.name, "n_edits": edits[-1]["n_edits"], "wall_s": wall_s, "editing_s": editing_s,
        "measuring_s": measuring_s, "neither_share": 1 - (editing_s + measuring_s) / wall_s,
        "median_edit_s": statistics.median(record["edit_s"] for record in edits),
        "median_immediate_s": statistics.median(record["immediate_s"] for record in edits),
        "checkpoints_s": [row["time/eval_s"] for row in rows], "peak_gib": max(row["memory/peak_gib"] for row in rows),
    }))  # fmt: skip


if __name__ == "__main__":
    main()

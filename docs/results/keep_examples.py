"""Keeps what the study and the limits stand on: config, rows, scores by example; no weights and no texts of facts.

python docs/results/keep_examples.py FOLDER_OF_ONE_RUN_DIRECTORY FOLDER
"""

import json
import shutil
import sys
from pathlib import Path

from afteredit.store.checked_lines import Lines


def main() -> None:
    (run,) = (path.parent for path in Path(sys.argv[1]).glob("*/config.yaml"))
    folder = Path(f"{sys.argv[1]}.kept")  # moved to its place when it is whole
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "samples").mkdir(parents=True)
    for pattern in ("config.yaml", "environment.json", "results-*.jsonl", "immediate-*.jsonl", "samples/*.parquet"):
        for path in run.glob(pattern):
            shutil.copy(path, folder / path.relative_to(run))
    kept = Lines(folder / "edits.jsonl")
    for line in (run / "edits.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        del record["check"]
        record["requests"] = [{"id": request["id"]} for request in record["requests"]]
        kept.append(record)
    place = Path(sys.argv[2])
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.move(folder, place / run.name)


if __name__ == "__main__":
    main()

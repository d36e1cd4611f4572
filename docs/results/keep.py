"""Keeps what is quoted of a run: resolved config and results rows, no weights, no path of the machine it ran on.

python docs/results/keep.py RUN_DIRECTORY FOLDER
"""

import shutil
import sys
from pathlib import Path

from omegaconf import OmegaConf

from afteredit.store.checked_lines import Lines


def main() -> None:
    run, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    config = OmegaConf.load(run / "config.yaml")
    if config.data not in ("mini", "hub"):
        config.data = "<folder of the real rows>"
    config.runs = "runs"
    OmegaConf.save(config, folder / "config.yaml")
    (results,) = run.glob("results-*.jsonl")
    shutil.copy(results, folder / "results.jsonl")
    (folder / "edits.jsonl").unlink(missing_ok=True)
    kept = Lines(folder / "edits.jsonl")
    for record in Lines(run / "edits.jsonl", read_only=True).records:
        ids = [{"id": request["id"]} for request in record["requests"]]
        kept.append({"requests": ids, **{key: record[key] for key in ("n_edits", "edit_s", "diagnostics")}})
    if (run / "curves.png").exists():
        shutil.copy(run / "curves.png", folder)


if __name__ == "__main__":
    main()

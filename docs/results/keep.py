"""Keeps what is quoted of a run: resolved config and results rows, no weights, no path of the machine it ran on.

python docs/results/keep.py RUN_DIRECTORY FOLDER
"""

import json
import shutil
import sys
from pathlib import Path

from omegaconf import OmegaConf


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
    with open(folder / "edits.jsonl", "w", encoding="utf-8") as out:
        for line in (run / "edits.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            kept = {key: record[key] for key in ("n_edits", "edit_s", "diagnostics")}
            kept["requests"] = [request["id"] for request in record["requests"]]
            print(json.dumps(kept, ensure_ascii=False), file=out)
    if (run / "curves.png").exists():
        shutil.copy(run / "curves.png", folder)


if __name__ == "__main__":
    main()

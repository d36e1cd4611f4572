"""Keeps what the study and the limits stand on: config, rows, every example's score and what the model said.

Left out are the weights and the texts of facts.  Questions and right answers stay where they are this project's own
(data=mini).  Other people's rows may not be copied: of them stay the id, the score and the model's answer.

python docs/results/keep_examples.py FOLDER_OF_ONE_RUN_DIRECTORY FOLDER
"""

import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq

from afteredit.store.checked_lines import Lines, read_config
from afteredit.store.shared_texts import COLUMNS, FILE, read_texts


def main() -> None:
    (run,) = (path.parent for path in Path(sys.argv[1]).glob("*/config.yaml"))
    folder = Path(f"{sys.argv[1]}.kept")  # moved to its place when it is whole
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "samples").mkdir(parents=True)
    for pattern in ("config.yaml", "environment.json", "results-*.jsonl", "samples/*.parquet"):
        for path in run.glob(pattern):
            shutil.copy(path, folder / path.relative_to(run))
    keep_texts(run, folder)
    for path in (run / "edits.jsonl", *run.glob("immediate-*.jsonl")):
        kept = Lines(folder / path.name)
        for record in Lines(path, read_only=True).records:
            for fact in record.get("requests", []):
                for name in fact.keys() - {"id"}:
                    del fact[name]
            for text in record.get("generated", []):
                text.pop("prompt", None)
            kept.append(record)
    place = Path(sys.argv[2])
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.move(folder, place / run.name)


def keep_texts(run: Path, folder: Path) -> None:
    """Writes the texts to which the kept examples refer, with null in the place of those that may not be copied."""
    config, (texts, faults) = read_config(run / "config.yaml"), read_texts(run / "samples")
    if faults:
        sys.exit("\n".join(faults))
    own = set(config["task"]) if config["data"] == "mini" else set()
    free: set[str | None] = set()
    for path in folder.glob("samples/*.parquet"):
        for sample in pq.read_table(path).to_pylist():
            free |= {sample.get(name) for name in COLUMNS if name == "answer" or sample["name"] in own}
    if texts:
        Lines(folder / "samples" / FILE).append(
            {"texts": {name: texts[name] if name in free else None for name in texts}}
        )


if __name__ == "__main__":
    main()

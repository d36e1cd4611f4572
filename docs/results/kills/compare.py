"""Two run directories of the same experiment, timings and memory aside: python compare.py RUN OTHER"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def lines(path: Path, *timed: str) -> list[dict]:
    """Records by the number of edits; their checksums are over timings too."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [{k: v for k, v in record.items() if k != "check" and not k.startswith(timed)} for record in records]
    return sorted(kept, key=lambda record: record["n_edits"])


def left(folder: Path) -> dict:
    (results,) = folder.glob("results-*.jsonl")
    rows = lines(results, "time/", "memory/")
    files = {
        kind: {p.name: p.read_bytes() for p in folder.glob(kind)} for kind in ("updates/*.safetensors", "samples/*")
    }
    return {"weights": [row["weights_sha256"] for row in rows], "rows": rows,
            "edits": lines(folder / "edits.jsonl", "edit_s", "immediate_s"), **files}  # fmt: skip


one, other = (left(Path(folder)) for folder in sys.argv[1:3])
print(json.dumps({what: one[what] == other[what] for what in one} | {"n_rows": len(one["rows"]),
                 "n_edits": one["rows"][-1]["n_edits"], "last weights": one["weights"][-1][:16]}))  # fmt: skip
sys.exit(0 if one == other else 1)

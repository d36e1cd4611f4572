"""README's table of methods, from the last row of every run kept here: python docs/results/methods/table.py"""

import json
from pathlib import Path

ORDER = ("rome", "memit", "memit_seq", "alphaedit", "ft", "kn", "mend")
WAYS = ("prob", "forced", "generated")


def main() -> None:
    print("| method | rows | efficacy prob / forced / generated | paraphrase prob / forced / generated | "
          "neighbourhood prob / forced / generated |")  # fmt: skip
    print("|---|---|---|---|---|")
    for method in ORDER:
        path = Path(__file__).parent / method / "results.jsonl"
        if not path.exists():
            continue
        row = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
        cells = [method, str(row["n_edits"])]
        for metric in ("efficacy", "paraphrase", "neighbourhood"):
            cells.append(" / ".join(f"{row[f'editing/immediate/{way}/{metric}']:.3f}" for way in WAYS))
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

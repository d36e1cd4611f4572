"""Prints the table of docs/results/rounded: what rounded models keep of edits and of abilities.

python docs/results/rounded/table.py RUN_DIRECTORY …
"""

import sys
from pathlib import Path

from afteredit.store.checked_lines import Lines, read_checked

EDITS = {
    "new likelier than true": "editing/retained/prob/efficacy",
    "says the new answer": "editing/retained/generated/efficacy",
    "in other words": "editing/retained/prob/paraphrase",
    "neighbours unmoved": "editing/retained/prob/neighbourhood",
}
ABILITIES = {name: f"ability/{name}" for name in ("dialogue", "summarization", "ner", "sentiment")}
COLUMNS = {**EDITS, **ABILITIES, "retained": "ability/retained", "perplexity": "drift/perplexity"}
ORDER = ["as it is", "int8", "int4"]


def main() -> None:
    print("|", " | ".join(["method", "weights", "edits", *COLUMNS]), "|")
    print("|---" * (len(COLUMNS) + 3) + "|")
    for run in map(Path, sys.argv[1:]):
        method = run.name.split("-")[0]
        rows = {
            (evaluation.get("after", "as it is"), row["n_edits"]): row
            for name, evaluation in read_checked(run / "environment.json")["evaluations"].items()
            for row in Lines(run / f"results-{name}.jsonl", read_only=True).records
        }
        for weights, n_edits in sorted(rows, key=lambda key: (ORDER.index(key[0]), key[1])):
            row = rows[weights, n_edits]
            numbers = [
                f"{row[column]:.1f}" if "perp" in column else f"{row[column]:.2f}" for column in COLUMNS.values()
            ]
            print("|", " | ".join([method, weights, str(n_edits), *numbers]), "|")


if __name__ == "__main__":
    main()

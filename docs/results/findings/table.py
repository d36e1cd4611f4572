"""The tables of docs/findings.md, from what is kept here: python docs/results/findings/table.py"""

import json
from pathlib import Path

VARIANTS = (
    "rome",
    "rome_asymmetric",
    "rome_identity",
    "rome_published",
    "rome_rect",
    "memit",
    "memit_seq",
    "alphaedit",
    "kn",
)
METRICS = {
    "drift/perplexity": ("Perplexity of held-out text", ".1f"),
    "ability/ner": ("Named entities (micro-F1)", ".3f"),
    "ability/summarization": ("Summarization (ROUGE)", ".3f"),
    "ability/sentiment": ("Sentiment (accuracy; chance 0.50)", ".2f"),
    "ability/dialogue": ("Dialogue (accuracy; chance 0.25)", ".2f"),
    "editing/retained/prob/efficacy": ("Edits that still hold (prob efficacy, all edits so far up to 100)", ".2f"),
    "editing/retained/prob/neighbourhood": ("Neighbours unchanged (prob)", ".2f"),
}


def main() -> None:
    runs = {}
    for variant in VARIANTS:
        path = Path(__file__).parent / variant / "results.jsonl"
        if path.exists():
            rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            runs[variant] = {row["n_edits"]: row for row in rows}
    checkpoints = sorted({n for rows in runs.values() for n in rows})
    for metric, (title, form) in METRICS.items():
        print(f"**{title}**\n\n| edits | " + " | ".join(map(str, checkpoints)) + " |")
        print("|---" * (1 + len(checkpoints)) + "|")
        for variant, rows in runs.items():
            cells = [format(rows[n][metric], form) if n in rows else "" for n in checkpoints]
            print(f"| `{variant}` | " + " | ".join(cells) + " |")
        print()


if __name__ == "__main__":
    main()

"""Writes bench/results.json, which holds one named row for each thing measured, and the tables of docs/speed.md.

Every script replaces its own rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from afteredit.store.atomic_files import write_atomically, write_json

PATH = Path(__file__).resolve().parent / "results.json"
PAGE = PATH.parents[1] / "docs" / "speed.md"
BEGIN, END = "<!-- bench: written by `make bench` -->", "<!-- /bench -->"
COLUMNS = ("name", "ours_s", "baseline_s", "speedup", "bound_speedup", "gflops")  # of every row; null: none
# A row says, beside its times, each sentence whose every number it has.
SENTENCES = (
    "a whole edit, keys and solving included: {whole_edit_s:.2f} s",
    "offsets differ from the plain path's by at most {largest_relative_deviation:.1e} of their norm, in float32",
    "log-likelihoods differ by at most {worst_nats_per_token:.1e} nats per token",
    "of {n} answers {answers_that_differ} differ, {unexplained_differences} of them further than by a near tie",
    "{tokens_per_s:.0f} tokens/s, full passes {full_pass_tokens_per_s:.0f}",
    "{few_per_dimension:.0f} tokens per key dimension: relative error {relative_error_of_few:.2f} against the "
    "{many_per_dimension:.0f} that follow them",
    "of {n_edits} edits one of the last hundred takes {edit_growth:.2f} times one of the first hundred",
    "by edit asked about, checkpoints from {late_from} on take {checkpoint_growth:.2f} times those up to {early_to}",
    "the last, which asks about all, {last_checkpoint_s:.1f} s",
    "after {n_filled} made-up edits they take {filled_s:.1f} s, on a fresh model {fresh_s:.1f} s: {filled_growth:.2f} "
    "times as long",
    "{neither_share:.1%} of {wall_s:.0f} s are neither editing nor measuring",
    "peak memory {peak_gib:.2f} GiB, {peak_over_model:.1f} times the model's own",
    "by arithmetic, not measured: {arithmetic_share:.1%} of {arithmetic_s:.0f} s are neither editing nor measuring; "
    "under 3 % with {rows_from_which_under_bar:.0f} rows evaluated or more",
)


def results_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=PATH, help="another file, which leaves docs/speed.md as it is")


def read_rows(path: Path = PATH) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path = PATH, page: Path | None = None) -> None:
    """Writes each row in the place of the row of its name, or at the end; then the tables into `page`, which is
    docs/speed.md for the repository's own `path`.  Raises ValueError where the page lacks the two marks."""
    names = {row["name"]: dict.fromkeys(COLUMNS) | dict(row) for row in rows}
    earlier = [names.pop(row["name"], row) for row in read_rows(path)]
    write_json(path, [*earlier, *names.values()])
    if page is None and path == PATH:
        page = PAGE
    if page is not None:
        text = with_tables(page.read_text(encoding="utf-8"), read_rows(path))
        write_atomically(page, text.encode())


def with_tables(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns `text` with the tables of `rows` between its marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page must hold {BEGIN} and, after it, {END}")
    return f"{before}{BEGIN}\n{speeds(rows)}\n{sentences(rows)}{END}{after}"


def speeds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of the rows that have a baseline: what was taken, and how far from the bound that is."""
    lines = ["| | ours | baseline | faster | bound | GFLOP/s of the machine's |", "|---|---|---|---|---|---|"]
    for row in rows:
        if row["baseline_s"] is None:
            continue
        bound = "" if row["bound_speedup"] is None else f"{row['bound_speedup']:.1f} ×"
        rate = "" if row["gflops"] is None else f"{row['gflops']:.0f} of {row['machine_gflops']:.0f}"
        lines.append(f"| {row['name']} | {row['ours_s']:.2f} s | {row['baseline_s']:.2f} s | "
                     f"**{row['speedup']:.1f} ×** | {bound} | {rate} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def sentences(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table of what else the rows say: errors, growth, shares, memory."""
    lines = ["| | also measured |", "|---|---|"]
    for row in rows:
        said = [sentence.format_map(row) for sentence in SENTENCES if fields(sentence) <= row.keys()]
        if said:
            lines.append(f"| {row['name']} | {'; '.join(said)} |")
    return "\n".join(lines) + "\n"


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name}

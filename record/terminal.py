"""What a person sees while a run goes on: a line per checkpoint, and a bar with the time left."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Display:
    """`n_edits` edits and `n_checkpoints` checkpoints are to come; their seconds so far foretell the rest."""

    def __init__(self, console: Console, n_edits: int, n_checkpoints: int):
        self.console = console
        self._left = {"edit": n_edits, "checkpoint": n_checkpoints}
        self._seconds: dict[str, list[float]] = {"edit": [], "checkpoint": []}
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(),
            TextColumn("{task.completed}/{task.total} edits"),
            TimeElapsedColumn(), TextColumn("{task.fields[left]}"), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=n_edits, left="")

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def doing(self, what: str) -> None:
        self._bar.update(self._task, description=what)

    def edited(self, record: Mapping[str, Any], n_new: int, success: str) -> None:
        self._count("edit", n_new, record["edit_s"] / max(n_new, 1))
        names = escape(", ".join(f"{r['subject']} → {r['target_new']}" for r in record["requests"][:3]))
        self._bar.update(self._task, completed=record["n_edits"])
        self.console.log(f"edit {record['n_edits']}: {names}  {success}  {record['edit_s']:.1f} s", highlight=False)

    def measured(self, row: Mapping[str, Any]) -> None:
        self._count("checkpoint", 1, row["time/eval_s"])
        scores = [f"{k.removeprefix('ability/')} {v:.2f}" for k, v in row.items() if _is_headline(k)]
        perplexity = row.get("drift/perplexity", float("nan"))
        self.console.log(
            f"[bold]after {row['n_edits']} edits[/bold]: {', '.join(scores)}; perplexity {perplexity:.1f}  "
            f"{row['time/eval_s']:.0f} s",
            highlight=False,
        )

    def _count(self, kind: str, n: int, seconds: float) -> None:
        self._left[kind] = max(0, self._left[kind] - n)
        self._seconds[kind].append(seconds)
        known = {k: s for k, s in self._seconds.items() if s}
        left = sum(self._left[k] * sum(s) / len(s) for k, s in known.items())
        if all(known.get(k) or not self._left[k] for k in self._left):
            self._bar.update(self._task, left=f"{timedelta(seconds=round(left))} left")


def _is_headline(key: str) -> bool:
    return key.startswith("ability/") and key.count("/") == 1

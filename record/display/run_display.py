"""A run in the terminal: a line for every edit and checkpoint, in columns explained once, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from statistics import mean
from textwrap import fill
from typing import Any

from rich.text import Text

from afteredit.edit.request import EditRequest
from afteredit.record.display.live_view import spell
from afteredit.record.terminal import PlainConsole, bold, visible
from afteredit.store.line_shapes import abilities_of
from afteredit.store.progress.work import Work, share_done, under_way, working

WAYS = ("prob", "forced", "generated")
OF_EDITS = (
    "of each edit: 1 where it took, or the share of a batch that did: the new answer is likelier than the true one "
    "(prob), each of its tokens is the likeliest (forced), free text says it (generated); s: seconds"
)
OF_CHECKPOINTS = (
    "after so many edits: what is retained of the abilities in the mean (1: all), the perplexity of ordinary text, the "
    "share of the edits that free text still says (effic.), and the scores of "
)


class Display:
    """Shows the progress of `batches`, measured wherever it is `due`; a context manager, in which the time left is
    known from the first checkpoint's first parts on."""

    def __init__(
        self, console: PlainConsole, batches: Sequence[Sequence[EditRequest]], due: Callable[[int, int], bool]
    ):
        self.console = console
        sizes = [len(batch) for batch in batches]
        starts = [0, *accumulate(sizes)]
        self._subjects = {start: batch[0].subject for start, batch in zip(starts, batches, strict=False)}
        ends = list(accumulate(sizes))
        n_checkpoints = 1 + sum(due(n, size) or n == ends[-1] for n, size in zip(ends, sizes, strict=True))
        self._left = {"edit": sum(sizes), "checkpoint": n_checkpoints}
        self._seconds: dict[str, list[float]] = {"edit": [], "checkpoint": []}
        self._kind, self._since = "checkpoint", time.monotonic()  # what is under way
        self._explained: set[str] = set()
        self._digits = len(str(sum(sizes)))
        self._work, self._block = Work("edits"), working("edits", sum(sizes))

    def __enter__(self) -> Display:
        self._work = self._block.__enter__()
        self._work.left = self._time_left
        return self

    def __exit__(self, *problem: Any) -> None:
        self._block.__exit__(*problem)

    def measuring(self) -> None:
        """Says that a checkpoint is being measured."""
        if self._kind != "checkpoint":
            self._kind, self._since, self._work.part = "checkpoint", time.monotonic(), ""

    def next_edit(self, n_edits: int, *, stored: bool) -> None:
        """Shows which edit follows after so many edits, and whether its update is `stored` already."""
        if n_edits in self._subjects:
            self._kind, self._since = "edit", time.monotonic()
            self._work.part = f"{'again ' * stored}{self._subjects[n_edits]}"

    def edited(self, record: Mapping[str, Any], success: Mapping[str, float], seconds: float) -> None:
        """Prints the line of a batch: a record of the journal, the means of its immediate success, and the seconds of
        writing and measuring it."""
        n_new = len(record["requests"])
        self._count("edit", n_new, seconds / max(n_new, 1))
        self._work.done = record["n_edits"]
        shown = [success.get(f"edit/immediate/{way}/efficacy") for way in WAYS]
        names = ", ".join(f"{r['subject']} → {r['target_new']}" for r in record["requests"][:3])
        if "edit" not in self._explained:
            self._explain("edit", OF_EDITS, self._edit_line("", "subject → new answer", [*WAYS, "s"]))
        cells = ["-" if value is None else f"{round(value, 2):g}" for value in shown]
        self.console.log(self._edit_line(str(record["n_edits"]), names, [*cells, f"{record['edit_s']:.1f}"]))

    def _edit_line(self, n_edits: str, names: str, cells: Sequence[str]) -> str:
        start = f"edit {n_edits:>{self._digits}}  "
        end = "".join(f"{cell:>{width}}" for cell, width in zip(cells, (6, 8, 11, 8), strict=True))
        text = Text(visible(names))
        text.truncate(max(8, self.console.log_width - len(start + end)), overflow="ellipsis", pad=True)
        return start + text.plain + end

    def measured(self, row: Mapping[str, Any]) -> None:
        """Prints the line of a checkpoint: a row of the results."""
        spared = 0.0 if row["n_edits"] else self._work.spared  # later ones find nothing in the cache
        self._count("checkpoint", 1, row["time/eval_s"] + spared)
        names = abilities_of(row)
        if "checkpoint" not in self._explained:
            heading = self._checkpoint_line("", ["retained", "perpl.", "effic.", *map(_short, names)], "s")
            self._explain("checkpoint", f"{OF_CHECKPOINTS}{', '.join(names) or 'no ability'}; s: seconds", heading)
        keys = ["ability/retained", "drift/perplexity", "editing/retained/generated/efficacy"]
        cells = [_number(row.get(key), f".{digits}f") for key, digits in zip(keys, (2, 1, 2), strict=True)]
        cells += [_number(row[f"ability/{name}"], ".2f") for name in names]
        line = self._checkpoint_line(str(row["n_edits"]), cells, f"{row['time/eval_s']:.0f}")
        self.console.log(bold(line[: 6 + self._digits], line[6 + self._digits :]))
        if "collapse" in row and "collapse" not in self._explained:  # those after it are collapsed too
            self._explained.add("collapse")
            self.console.log(bold("collapsed", f": {row['collapse']}", style="bold red"))

    def left_pending(self, n_edits: int) -> None:
        """Says that a checkpoint is left to other processes; this one measures none."""
        self._left["checkpoint"] = 0
        self.console.log(f"after {n_edits:>{self._digits}}  left to be measured")

    def _checkpoint_line(self, n_edits: str, cells: Sequence[str], seconds: str) -> str:
        """Returns a line that leaves out the last abilities where the terminal is too narrow for them."""
        start, end = f"after {n_edits:>{self._digits}}", f"{seconds:>6}"
        widths = [10, 8, 8, *[6] * (len(cells) - 3)]
        room = self.console.log_width - len(start + end)
        n_fit = len(cells) if sum(widths) <= room else max(3, 3 + (room - 26 - 2) // 6)
        texts = [f"{cell:>{width}}" for cell, width in zip(cells[:n_fit], widths, strict=False)]
        return start + "".join(texts) + " …" * (n_fit < len(cells)) + end

    def _explain(self, kind: str, text: str, heading: str) -> None:
        self._explained.add(kind)
        self.console.log(Text(fill(text, self.console.log_width), style="dim"))
        self.console.log(bold(heading))

    def _count(self, kind: str, n: int, seconds: float) -> None:
        self._left[kind] = max(0, self._left[kind] - n)
        self._seconds[kind].append(seconds)
        self._since = time.monotonic()

    def _time_left(self) -> str:
        """Returns the time left in words: by the edits so far, and by the checkpoints after the first, which may have
        found much in the cache.  One that takes longer than those before it is judged by what is done of it."""
        expected = {kind: mean(s[1:] or s if kind == "checkpoint" else s) for kind, s in self._seconds.items() if s}
        spent, share = time.monotonic() - self._since, share_done(under_way()[1:])
        if "checkpoint" not in expected:
            spent += self._work.spared
            expected |= {"checkpoint": spent / share} if share else {}
        if not expected:
            return ""
        total = sum(self._left[kind] * seconds for kind, seconds in expected.items())
        unknown = [kind for kind, n in self._left.items() if n and kind not in expected]
        alone = {"edit": " of measuring", "checkpoint": " of editing"}[unknown[0]] if unknown else ""
        usual = expected.get(self._kind, 0.0)
        rest = max(0.0, usual - spent)
        if self._kind == "checkpoint" and share and not rest:
            rest = spent * (1 / share - 1)
        if not any(self._left.values()):
            return ""
        return f"about {spell(total - usual + rest)}{alone} left"


def _short(name: str) -> str:
    return name.removeprefix("paper_")[:5].rstrip("_")


def _number(value: float | None, form: str) -> str:
    text = "-" if value is None else f"{value:{form}}"
    return text if len(text) <= 7 else f"{value:.1e}"

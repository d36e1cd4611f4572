"""Lets a person talk to a run's model: every prompt is answered by the unedited and by the edited model, side by side.

Each answer is greedy text, in the run's own prompt mode and after its start token, as in every measurement.  It appears
token by token, the unedited model's first: one model is in memory, and the matrices that edits change are exchanged.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import takewhile
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table

from afteredit.commands.rebuild import RebuiltRun
from afteredit.model.decoding import continue_rows, greedy
from afteredit.record.terminal import print_error, so_many_edits, visible
from afteredit.store.errors import BadInput, Interrupted
from afteredit.store.interruption import Interruption
from afteredit.store.rows.normal_text import normal_form

if TYPE_CHECKING:
    from rich.console import Console

    from afteredit.model.lm import LM

N_TOKENS = 100  # of an answer


def chat(rebuilt: RebuiltRun, n_edits: int) -> None:
    """Answers every line of the standard input until it ends (Ctrl-D) or Ctrl-C comes.  Measures and stores nothing."""
    rebuilt.rebuild(n_edits)
    lm, view, console = rebuilt.lm, rebuilt.x.constraint.view, rebuilt.console
    edited, names = lm.weights.copies(), ("unedited", f"after {so_many_edits(n_edits)}")
    try:
        with Interruption(at_once=True):
            for prompt in _prompts(console):
                try:
                    context = _context(lm, prompt)
                    show_in = _side_by_side if console.is_terminal else _below_each_other
                    for which, show in show_in(console, names):
                        lm.weights.put_back(edited) if which else lm.weights.restore()
                        with lm.weights.seen_through(view) if which else nullcontext():
                            _answer(lm, context, show)
                except BadInput as problem:  # a prompt that the model cannot read
                    print_error(problem)
    except Interrupted:
        console.print()


def _prompts(console: Console) -> Iterator[str]:
    """Yields the lines that are not empty; those that nobody types here are shown."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if sys.stdin.isatty():
        import readline  # noqa: F401  gives `input` its line editing and history

        console.print(f"type what the model is to continue; up to {N_TOKENS} tokens answer it; Ctrl-D ends")
    while True:
        try:
            prompt = normal_form(input("> " if sys.stdin.isatty() else ""))
        except EOFError:
            return
        if prompt and not sys.stdin.isatty():
            console.print(f"> {prompt}", highlight=False, soft_wrap=True)
        if prompt:
            yield prompt


def _context(lm: LM, prompt: str) -> tuple[int, ...]:
    """Returns the token ids of a prompt.  Raises BadInput where the model cannot read it."""
    context = lm.tokens.question_ids(prompt)
    if lm.max_tokens is not None and len(context) > lm.max_tokens:
        raise BadInput(f"the prompt has {len(context)} tokens, and the model reads {lm.max_tokens}; give a shorter one")
    return context


def _answer(lm: LM, context: Sequence[int], show: Callable[[str], None]) -> None:
    """Shows what the model as it is now writes after a context."""
    special = lm.tokens.special_ids

    def show_ids(ids: list[int], rest: str = "\ufffd") -> None:
        # the last letter may still lack some of its bytes
        show(lm.tokenizer.decode(list(takewhile(lambda token: token not in special, ids))).rstrip(rest).strip())

    def done(_row: int, ids: list[int]) -> bool:
        show_ids(ids)
        return ids[-1] in special

    (ids,) = continue_rows(lm, [context], N_TOKENS, greedy, done)
    show_ids(ids, rest="")


def _side_by_side(console: Console, names: tuple[str, str]) -> Iterator[tuple[int, Callable[[str], None]]]:
    """Yields each model with what shows its answer, in two columns of a terminal."""
    texts = ["", ""]

    def table() -> Table:
        columns = Table(expand=True)
        for name in names:
            columns.add_column(name, ratio=1, overflow="fold")
        columns.add_row(*map(visible, texts))
        return columns

    with Live(table(), console=console, vertical_overflow="visible") as live:
        for which in range(2):

            def show(text: str, which: int = which) -> None:
                texts[which] = text
                live.update(table())

            yield which, show


def _below_each_other(console: Console, names: tuple[str, str]) -> Iterator[tuple[int, Callable[[str], None]]]:
    """Yields the same for a file or a pipe: one line for each model, which grows as it answers."""
    for which, name in enumerate(names):
        console.file.write(f"{name + ':':<{max(map(len, names)) + 2}}")
        line = written = ""

        def show(text: str) -> None:
            nonlocal line, written
            line = visible(" ".join(text.split()))
            if line.startswith(written):  # some tokenizers take a space out once the next letter is known
                console.file.write(line[len(written) :])
                console.file.flush()
                written = line

        yield which, show
        console.file.write("\n" if line == written else f"\n{line}\n")

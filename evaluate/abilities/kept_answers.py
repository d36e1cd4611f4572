"""Keeps the answers of a measurement piece by piece, so that a stopped one goes on after them, to the bit."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from afteredit.evaluate.inference.answered import Answered, TokenScores
from afteredit.store.progress.kept_progress import KeptProgress


class KeptAnswers:
    """The answers of one measurement's calls, in the order in which every measurement makes them."""

    def __init__(self, progress: KeptProgress):
        self._progress, self._calls = progress, list[Answered]()
        kept = progress.found()
        self._found = json.loads(kept.read_text(encoding="utf-8")) if kept else []

    def next_call(self) -> Answered:
        """Returns what a stopped measurement had answered in the call that comes now."""
        entries = self._found[len(self._calls)] if len(self._calls) < len(self._found) else []
        call = Answered(changed=self._keep)
        for entry in entries:
            context = tuple(entry["context"])
            call.contexts.add(context)
            if entry["ids"] is not None:
                call.ids[context] = entry["ids"]
            for continuation, log_p, argmax_ids in entry["scores"]:
                call.scores[context, tuple(continuation)] = TokenScores(tuple(log_p), tuple(argmax_ids))
        self._calls.append(call)
        return call

    def _keep(self) -> None:
        if self._progress.is_due():
            self._progress.keep(partial(_write, [_entries(call) for call in self._calls]))


def _entries(call: Answered) -> list[dict[str, Any]]:
    scores: dict[Any, list[Any]] = {context: [] for context in call.contexts}
    for (context, continuation), found in call.scores.items():
        scores[context].append([continuation, found.log_p, found.argmax_ids])
    return [{"context": context, "ids": call.ids.get(context), "scores": scores[context]} for context in call.contexts]


def _write(calls: list[list[dict[str, Any]]], path: Path) -> None:
    path.write_text(json.dumps(calls), encoding="utf-8")

"""Where the facts to write come from: any JSON-lines file (or hub data set) and a map of its columns."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

from afteredit.edit.request import EditRequest, conflicts, same_fact
from afteredit.store.errors import BadInput
from afteredit.store.json_rows import EMBEDDED, Missing, has, hub_rows, look_up, paths, read_json_lines

log = logging.getLogger(__name__)

REQUIRED = ("subject", "prompt", "target_new")  # of every row; any other column may be missing or null in a row
PLURAL = ("paraphrases", "neighbourhood", "neighbourhood_answers", "portability", "portability_answers",
          "generation_prompts")  # fmt: skip
MAY_BE_BLANK = ("neighbourhood_answers", "portability_answers")  # where they are unknown


class Order(Enum):
    file = "file"
    shuffled = "shuffled"  # by the run's seed: what differs between the seeds of a sweep


@dataclass(frozen=True)
class EditSet:
    """Rows of `file` (looked up by the `data` switch), read into EditRequests through `columns`.

    `columns` maps a field of EditRequest to a dotted path in the row (`requested_rewrite.target_new.str`,
    `answers.0`).  A prompt without `{}` gets it where the subject stands.
    """

    name: str
    file: str
    columns: dict[str, str]
    train: str = ""  # file of the training split, for methods that learn to edit; looked up as `file` is
    train_columns: dict[str, str] = field(default_factory=dict)  # where they differ from `columns`
    hub: str = ""  # hub data set, or address of a JSON file, that holds the same rows, for data=hub
    hub_split: str = "train"
    hub_columns: dict[str, str] = field(default_factory=dict)  # those of `columns` that are called otherwise there
    order: Order = Order.file
    drop_unchanged: bool = False  # leave out rows whose new target is their true one, instead of refusing them
    distinct: bool = False  # of rows about one fact, the first only; rows that say the same again stay

    def __post_init__(self) -> None:
        known = [f.name for f in fields(EditRequest)]
        maps = {"columns": self.columns, "train_columns": self.train_columns, "hub_columns": self.hub_columns}
        for key, columns in maps.items():
            for given in (name for name in columns if name not in known):
                close = get_close_matches(given, known, n=1)
                guess = f"; did you mean edits.{key}.{close[0]}?" if close else "."
                raise BadInput(f"unknown key edits.{key}.{given}{guess} Allowed: {', '.join(known)}")

    def read(self, data: str, seed: int) -> tuple[list[EditRequest], str]:
        """All requests in the order they are applied, and the SHA-256 of their rows.  Raises BadInput, naming file,
        line and field, before any edit is made."""
        requests, digest = self._read(data)
        if self.order is Order.shuffled:
            random.Random(seed).shuffle(requests)
        return requests, digest

    def _read(self, data: str, beside: str = "") -> tuple[list[EditRequest], str]:
        """In file order.  `beside`: of a training split, the file of the evaluation rows."""
        where, rows = self._rows(data, beside)
        key = "edits.train_columns" if beside and self.train_columns else "edits.columns"
        of_these = replace(self, columns=self.columns | self.hub_columns) if where == self.hub else self
        of_these._refuse_wrong_columns([row for _, row in rows], where, key)
        usable: list[tuple[EditRequest, Any]] = []
        seen = set()
        for line, row in rows:
            request = of_these._request(row, f"{where}:{line}", line, key)
            if request is None:
                continue
            if request.id in seen:
                raise BadInput(f"{where}:{line}: id {request.id!r} stands twice; ids must be unique")
            seen.add(request.id)
            usable.append((request, row))
        if not usable:
            raise BadInput(f"edits={self.name}: {where} holds no usable rows; put one JSON object on each line")
        if self.distinct:
            left_out = {request.id for _, request in conflicts(request for request, _ in usable)}
            if left_out:  # a warning: the log is shown only once a model is loaded
                log.warning("edits=%s: %d of %d rows left out: each gives the fact of an earlier row another target "
                            "(edits.distinct)", self.name, len(left_out), len(usable))  # fmt: skip
            usable = [(request, row) for request, row in usable if request.id not in left_out]
        digest = hashlib.sha256()
        for _, row in usable:
            digest.update(json.dumps(row, sort_keys=True).encode())
        return [request for request, _ in usable], digest.hexdigest()

    def training(self, data: str) -> list[EditRequest]:
        """The rows of the training split, in file order.  Raises BadInput where there is none, or where it holds facts
        of the evaluation rows: what learned them must not be measured by them."""
        if not self.train:
            raise BadInput(f"edits={self.name} has no training split, which this method must learn from; give "
                           "edits.train=<JSON-lines file, in the folder data=…> or use another edit set")  # fmt: skip
        split = replace(self, name=f"{self.name} (training split)", file=self.train, hub="", distinct=False,
                        columns=self.train_columns or self.columns)  # fmt: skip
        training = split._read(data, beside=self.file)[0]
        evaluation: dict[str, list[EditRequest]] = defaultdict(list)
        for request in replace(self, distinct=False)._read(data)[0]:  # rows left out are about facts that are measured
            evaluation[request.subject.casefold()].append(request)
        shared = [request for request in training
                  if any(other.prompt == request.prompt or same_fact(other, request)
                         for other in evaluation[request.subject.casefold()])]  # fmt: skip
        if shared:
            where, _ = split._rows(data)
            named = ", ".join(f"{request.id} ({request.question!r})" for request in shared[:5])
            raise BadInput(f"edits={self.name}: {len(shared)} rows of the training split {where} are facts of the "
                           f"evaluation rows ({self.file}) too: {named}{', …' if len(shared) > 5 else ''}; take them "
                           "out of the training split, or give another file (edits.train)")  # fmt: skip
        return training

    def _rows(self, data: str, beside: str = "") -> tuple[str, list[tuple[int, Any]]]:
        embedded = EMBEDDED / self.file
        if data not in ("mini", "hub"):
            if not Path(data).is_dir():
                raise BadInput(f"data={data}: no such folder; allowed: mini, hub, or a folder of JSON-lines files")
            path = Path(data) / self.file
            if path.is_file():
                return str(path), list(read_json_lines(path))
        if embedded.is_file():
            return str(embedded), list(read_json_lines(embedded))
        if data == "hub" and self.hub:
            return self.hub, list(enumerate(hub_rows(self.hub, split=self.hub_split), start=1))
        looked = Path(data) / self.file if data not in ("mini", "hub") else embedded
        needed = ", ".join(self.columns.get(name, name) for name in REQUIRED)
        optional = ", ".join(dict.fromkeys(path for name, path in self.columns.items() if name not in REQUIRED))
        no_hub = "data=hub, but no hub data set is known for these rows; " if data == "hub" else ""
        raise BadInput(
            f"edits={self.name}: no rows found: {no_hub}looked for {looked}"
            f"; give data=<folder that holds {self.file}{f' and {beside}' if beside else ''}>"
            + (f" or edits.train=<full path of {self.file}>" if beside else "")
            + (f" or data=hub (data set {self.hub})" if self.hub else "")
            + f"; its rows have {needed}"
            + (f" and, where known, {optional}" if optional else "")
            + " (a dot leads into an object or a list)"
        )

    def _refuse_wrong_columns(self, rows: list[Any], where: str, key: str) -> None:
        """Raises BadInput where no row has a column of the map.  A required one is refused with its row instead."""
        wrong = [name for name, path in self.columns.items() if not any(has(row, path) for row in rows)]
        if wrong and not set(wrong) & set(REQUIRED):
            named = ", ".join(f"{self.columns[name]} ({key}.{name})" for name in wrong)
            found = ", ".join(dict.fromkeys(path for row in rows for path in paths(row)))
            without = " ".join(f"~{key}.{name}" for name in wrong)
            raise BadInput(f"edits={self.name}: no row of {where} has {named}; its columns: {found}; give the right "
                           f"name, or take what these rows do not have out of the map: {without}")  # fmt: skip

    def _request(self, row: Any, place: str, line: int, key: str) -> EditRequest | None:
        if not isinstance(row, Mapping):
            raise BadInput(f"{place}: a row must be a JSON object, got {type(row).__name__}")
        values: dict[str, Any] = {}
        for name, path in self.columns.items():
            try:
                value = look_up(row, path)
            except BadInput as problem:
                if isinstance(problem, Missing) and name not in REQUIRED:
                    continue
                remedy = f"put it there, or name its column in {key}.{name}"
                raise BadInput(f"{place}: field {name}: {problem}; {remedy}") from None
            if name in PLURAL and value is not None:
                value = _texts(value, f"{place}: field {path}", name in MAY_BE_BLANK)
            if value is not None:  # null is as good as missing
                values[name] = value
        for name in REQUIRED:
            if not isinstance(values.get(name), str):
                path = self.columns.get(name, name)
                raise BadInput(f"{place}: field {path} is {values.get(name)!r}; it must be a text; put it there, or "
                               f"name its column in {key}.{name}")  # fmt: skip
        true = values.get("target_true")
        if isinstance(true, str) and not true.strip():
            raise BadInput(f"{place}: field {self.columns['target_true']} is {true!r}; it must be a text that is not "
                           "empty, or null")  # fmt: skip
        if not isinstance(values.get("id", ""), str | int) or isinstance(values.get("id"), bool):
            raise BadInput(f"{place}: field {self.columns['id']} is {values['id']!r}; an id must be a text or a number")
        values["id"] = str(values["id"]) if "id" in values else f"{self.name}-{line}"
        if self.drop_unchanged and isinstance(true, str) and values["target_new"].strip() == true.strip():
            log.info("%s: left out: the new target %r is the true answer", place, values["target_new"])
            return None
        if "{}" not in values["prompt"]:
            subject = values["subject"]
            if not subject or subject not in values["prompt"]:
                raise BadInput(
                    f"{place}: the subject {subject!r} does not stand in the prompt {values['prompt']!r}; "
                    "write it there, or {} in its place"
                )
            values["prompt"] = values["prompt"].replace(subject, "{}", 1)
        self._pair(values, place)
        try:
            return EditRequest(**values)
        except BadInput as problem:
            raise BadInput(f"{place}: {problem}") from None

    def _pair(self, values: dict[str, Any], place: str) -> None:
        """Changes the row's `values`: prompts that are missing need no answers."""
        for prompts, answers in (("neighbourhood", "neighbourhood_answers"), ("portability", "portability_answers")):
            if prompts in self.columns and prompts not in values:
                values.pop(answers, None)
            elif values.get(prompts) and answers in self.columns and answers not in values:
                raise BadInput(f"{place}: {prompts} without {self.columns[answers]}; give one answer each, \"\" where "
                               "it is unknown")  # fmt: skip
        given = values.get("neighbourhood_answers", ())
        if len(given) == 1:  # CounterFact: every neighbour's answer is the row's true target
            values["neighbourhood_answers"] = given * len(values.get("neighbourhood", ()))


def _texts(value: Any, place: str, may_be_blank: bool) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"{place} is {value!r}; it must be a text or a list of texts")
    if not may_be_blank and not all(text.strip() for text in texts):
        raise BadInput(f"{place} is {value!r}; a prompt must not be empty: leave it out of the list")
    return tuple(texts)

"""EditSet: the facts to write, from any file of rows or hub data set, and a map of its columns."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import Enum
from pathlib import Path

from afteredit.edit.read_facts import REQUIRED, BadRows, FactReader
from afteredit.edit.request import FACT_FIELDS, EditRequest, by_row, conflicts
from afteredit.edit.subject_place import SubjectPlace
from afteredit.edit.typed_facts import FORM, typed_facts
from afteredit.edit.usual_columns import found_columns, in_words
from afteredit.store.errors import BadInput
from afteredit.store.field_roles import NOTHING, WEIGHTS, decides
from afteredit.store.rows.json_rows import BY_PANDAS, is_whole_table
from afteredit.store.rows.normal_text import spelling
from afteredit.store.rows.row import Row
from afteredit.store.rows.row_files import (
    EMBEDDED,
    how_to_fill,
    hub_rows,
    read_rows,
    refuse_no_file,
    refuse_no_folder,
    similar_files,
)
from afteredit.store.rows.text_files import why_no_file

log = logging.getLogger(__name__)
READ = decides(WEIGHTS, by_content=True)  # decides which facts are read: a run's name holds these


class Order(Enum):
    file = "file"
    shuffled = "shuffled"  # by the run's seed: another order for each seed of a sweep


class Separator(Enum):
    """What stands between a prompt and its answer, in edits and in measurements."""

    auto = "auto"  # nothing in a chat and after scripts that put no spaces between words, else a space
    space = "space"
    none = "none"


class OnBadRow(Enum):
    stop = "stop"
    skip = "skip"  # rows that cannot be read, or that the model or method cannot take, are left out and named


@dataclass(frozen=True)
class EditSet:
    """Rows of `file` (looked up by the `data` switch), read into EditRequests through `columns`.

    `columns` maps a field of EditRequest to a dotted path in the row (`requested_rewrite.target_new.str`, `answers.0`,
    and `locality.*.loc` for what stands in each item of a list).  A prompt without `{}` gets it where the subject
    stands.  A run's name holds the requests' SHA-256.
    """

    name: str = field(metadata=decides(NOTHING))
    file: str = field(metadata=READ)
    # where it lacks subject, prompt or target_new, what it lacks is found by its usual names
    columns: dict[str, str] = field(metadata=READ)
    in_data_folder: bool = field(default=True, metadata=READ)  # else `file` and `train` begin where the command runs
    # file of the training split, for methods that learn to edit; looked up as `file` is
    train: str = field(default="", metadata=READ)
    train_columns: dict[str, str] = field(default_factory=dict, metadata=READ)  # where they differ from `columns`
    train_on_bad_row: OnBadRow | None = field(default=None, metadata=READ)  # where it differs from `on_bad_row`
    # hub data set, or address of a JSON file, that holds the same rows, for data=hub
    hub: str = field(default="", metadata=READ)
    hub_split: str = field(default="train", metadata=READ)
    # those of `columns` that have another name there
    hub_columns: dict[str, str] = field(default_factory=dict, metadata=READ)
    order: Order = field(default=Order.file, metadata=decides(WEIGHTS))
    separator: Separator = field(default=Separator.auto, metadata=decides(WEIGHTS))
    # leave out rows whose new target is their true one, instead of refusing them
    drop_unchanged: bool = field(default=False, metadata=READ)
    # of rows about one fact, take the first only; rows that say the same again stay
    distinct: bool = field(default=False, metadata=READ)
    on_bad_row: OnBadRow = field(default=OnBadRow.stop, metadata=READ)
    subject_place: SubjectPlace = field(default=SubjectPlace.only, metadata=READ)
    # the column whose list holds the facts of a row that has several; each is read as if the row held it alone, and
    # they stay together and in order
    facts_in: str = field(default="", metadata=READ)
    # facts typed on the command line, in the place of rows; the next three belong to one that is alone
    fact: list[str] = field(default_factory=list, metadata=READ)
    fact_true: str | None = field(default=None, metadata=READ)
    fact_paraphrases: list[str] = field(default_factory=list, metadata=READ)
    fact_neighbourhood: list[str] = field(default_factory=list, metadata=READ)

    def __post_init__(self) -> None:
        self._typed()
        if self.fact and self.file and self.name == "my":
            raise BadInput(f"edits.fact and edits.file={self.file} are both given, and a run writes the facts of one; "
                           "leave one out, or put the fact into the file")  # fmt: skip
        known = [name for name in FACT_FIELDS if name != "row"]
        maps = {"columns": self.columns, "train_columns": self.train_columns, "hub_columns": self.hub_columns}
        for key, columns in maps.items():
            for given in (name for name in columns if name not in known):
                close = get_close_matches(given, known, n=1)
                guess = f"; did you mean edits.{key}.{close[0]}?" if close else "."
                raise BadInput(f"unknown key edits.{key}.{given}{guess} Allowed: {', '.join(known)}")

    def read(self, data: str, seed: int) -> tuple[list[EditRequest], str]:
        """Returns all requests in the order they are applied, and their SHA-256.

        Raises BadInput, naming file, line and field, before any edit is made.
        """
        requests, _, digest = self._in_file_order(data)
        n_without = sum(request.target_true is None for request in requests)
        if n_without and self.fact:
            log.info("no true answer is given (edits.fact_true), so nothing compares the new one with it: there is no "
                     "prob/efficacy and no prob/paraphrase")  # fmt: skip
        elif n_without:
            log.info("edits=%s: %d of %d facts have no true answer; what compares the new target with it leaves them "
                     "out (prob/efficacy, prob/paraphrase)", self.name, n_without, len(requests))  # fmt: skip
        rows = by_row(requests)
        if self.order is Order.shuffled:
            random.Random(seed).shuffle(rows)
        return [request for row in rows for request in row], digest

    def training(self, data: str) -> list[EditRequest]:
        """Returns the facts of the training split, in file order, without those about a subject of this edit set: a
        method must not be measured by facts that it learned from.  The log counts what is left out.

        Raises BadInput where there is no training split, or where nothing of it is left.
        """
        if not self.train:
            raise BadInput(f"edits={self.name} has no training split, which this method must learn from; give "
                           "edits.train=<file of rows, in the folder data=…> or use another edit set")  # fmt: skip
        split = replace(self, name=f"{self.name} (training split)", file=self.train, hub="", distinct=False, fact=[],
                        fact_true=None, fact_paraphrases=[], fact_neighbourhood=[],
                        columns=self.train_columns or self.columns,
                        on_bad_row=self.train_on_bad_row or self.on_bad_row,
                        facts_in="" if self.train_columns else self.facts_in)  # fmt: skip
        training, source, _ = split._in_file_order(data, evaluation_file=self.file)
        evaluation, *_ = replace(self, distinct=False)._in_file_order(data)  # all facts that may be measured
        subjects = {spelling(request.subject) for request in evaluation}
        others = [request for request in training if spelling(request.subject) not in subjects]
        n_left_out = len(training) - len(others)
        if not others:
            raise BadInput(f"edits={self.name}: all {n_left_out} facts of the training split {source} are about "
                           f"subjects of the facts to be written ({self.file}), which no method may learn from; give "
                           "another file (edits.train)")  # fmt: skip
        if n_left_out:
            log.info("edits=%s: %d of %d training facts left out: their subjects are among those of the facts to be "
                     "written", self.name, n_left_out, len(training))  # fmt: skip
        return others

    def _in_file_order(self, data: str, evaluation_file: str = "") -> tuple[list[EditRequest], str, str]:
        """Returns the requests, their source and their SHA-256.  `evaluation_file`: given for a training split."""
        source, requests = ("edits.fact", self._typed()) if self.fact else self._read(data, evaluation_file)
        if self.distinct:
            requests = self._without_conflicts(requests)
        content = json.dumps([request.content for request in requests], sort_keys=True)
        return requests, source, hashlib.sha256(content.encode()).hexdigest()

    def _typed(self) -> list[EditRequest]:
        """Returns the facts of the command line.  Raises BadInput."""
        return typed_facts(self.fact, self.fact_true, self.fact_paraphrases, self.fact_neighbourhood)

    def _read(self, data: str, evaluation_file: str) -> tuple[str, list[EditRequest]]:
        """Returns where the rows come from, and the requests that they hold."""
        bad = BadRows(self.name, skip=self.on_bad_row is OnBadRow.skip)
        source, rows = self._rows(data, bad, evaluation_file)
        if len(rows) == 1 and not self.facts_in and is_whole_table(rows[0].value):
            raise BadInput(f"edits={self.name}: {source} holds one JSON object of columns "
                           f"({', '.join(rows[0].value)}); give one object for each row{BY_PANDAS}")  # fmt: skip
        columns = self.columns | self.hub_columns if source == self.hub else self.columns
        key = "edits.train_columns" if evaluation_file and self.train_columns else "edits.columns"
        if rows and not set(REQUIRED) <= set(columns):
            columns = found_columns([row.value for row in rows], columns, source)
            log.info("edits=%s: read from %s: %s", self.name, source, in_words(columns))
        reader = FactReader(self.name, source, columns, key, self.drop_unchanged, self.subject_place, self.facts_in)
        requests = reader.read(rows, bad)
        bad.log()
        if not requests:
            raise BadInput(f"edits={self.name}: {source} holds no usable rows{bad.counted}; {how_to_fill(source)}")
        return source, requests

    def _without_conflicts(self, requests: Sequence[EditRequest]) -> list[EditRequest]:
        """Returns the requests without the rows that give the fact of an earlier one another target."""
        left_out = {request.id for _, request in conflicts(requests)}
        rows = by_row(requests)
        kept = [row for row in rows if not any(request.id in left_out for request in row)]
        if left_out:
            log.warning("edits=%s: %d of %d rows left out: each gives the fact of an earlier row another target "
                        "(edits.distinct)", self.name, len(rows) - len(kept), len(rows))  # fmt: skip
        return [request for row in kept for request in row]

    def _rows(self, data: str, bad: BadRows, evaluation_file: str = "") -> tuple[str, list[Row]]:
        """Returns where the rows come from, and the rows.  Raises BadInput where there are none.

        Nothing takes the place of a user's file; data=hub takes embedded rows only where there are no others.
        """
        refuse_no_folder(data)
        if data == "hub" and self.hub and not Path(self.file).is_absolute():
            return self.hub, list(hub_rows(self.hub, split=self.hub_split))
        if not self.file:
            raise BadInput(f"edits={self.name} names no rows; give edits.file=<file of rows>, or a fact: {FORM}")
        path = self._folder(data) / self.file
        refuse_no_file(path)
        if why_no_file(path):
            raise BadInput(self._no_rows(data, evaluation_file))
        return str(path), list(read_rows(path, bad.refuse))

    def _folder(self, data: str) -> Path:
        if not self.in_data_folder:
            return Path()
        return EMBEDDED if data in ("mini", "hub") else Path(data)

    def _no_rows(self, data: str, evaluation_file: str) -> str:
        """Returns the message that says where rows were looked for, and how to give them."""
        place = self._folder(data) / self.file
        embedded = EMBEDDED / self.file
        needed = ", ".join(self.columns.get(name, name) for name in REQUIRED)
        optional = ", ".join(dict.fromkeys(path for name, path in self.columns.items() if name not in REQUIRED))
        no_hub = "data=hub, but no hub data set is known for these rows; " if data == "hub" else ""
        folder = f"folder that holds {self.file}{f' and {evaluation_file}' if evaluation_file else ''}"
        return (
            f"edits={self.name}: no rows found: {no_hub}looked for {place.absolute()}{similar_files(place)}; give "
            + (f"data=<{folder}> or " if self.in_data_folder else "")
            + f"edits.{'train' if evaluation_file else 'file'}=<full path of {self.file}>"
            + (f" ({embedded} are the embedded rows)" if embedded.is_file() else "")
            + (f" or data=hub (data set {self.hub})" if self.hub else "")
            + f"; its rows have {needed}"
            + (f" and, where known, {optional}" if optional else "")
            + " (a dot leads into an object or a list)"
        )

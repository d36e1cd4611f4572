"""Reads rows of any shape into EditRequests, through a map of their columns; a bad row is refused by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from afteredit.edit.request import EditRequest, without_portability
from afteredit.edit.subject_place import SubjectPlace, with_braces
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import shown, spelling
from afteredit.store.rows.row import Missing, Row, has, look_up, paths

log = logging.getLogger(__name__)

REQUIRED = ("subject", "prompt", "target_new")  # in every row; any other column may be missing or null in a row
LISTS = ("paraphrases", "neighbourhood", "neighbourhood_answers", "portability", "portability_answers",
         "generation_prompts")  # fmt: skip
ALIASES = "portability_aliases"
MAY_BE_EMPTY = ("neighbourhood_answers", "portability_answers")  # where they are unknown
MOST_NAMED = 10  # bad rows named in a warning


@dataclass
class BadRows:
    """Stops at the first bad row, or skips bad rows, counts and names them."""

    edits: str  # the name of the edit set
    skip: bool
    problems: list[BadInput] = field(default_factory=list)

    def refuse(self, problem: BadInput) -> None:
        """Raises the problem with one more remedy, or keeps it where bad rows are skipped."""
        if not self.skip:
            raise BadInput(f"{problem} (++edits.on_bad_row=skip leaves bad rows out)")
        self.problems.append(problem)

    @property
    def counted(self) -> str:
        """Returns words for the number of rows that were skipped; none where there are none."""
        return f" ({len(self.problems)} bad rows skipped)" if self.problems else ""

    def log(self) -> None:
        """Warns of the rows that were skipped; the first are named with what is wrong with them."""
        if self.problems:
            named = "; ".join(map(str, self.problems[:MOST_NAMED]))
            more = len(self.problems) - MOST_NAMED
            log.warning("edits=%s: %d bad rows skipped (edits.on_bad_row=skip): %s%s", self.edits, len(self.problems),
                        named, f"; and {more} more" if more > 0 else "")  # fmt: skip


@dataclass(frozen=True)
class FactReader:
    """Reads the rows of one source.  `columns` maps fields of EditRequest to dotted paths in a row; `columns_key` is
    the config key that holds this map.  `facts_in`: the column whose list holds the facts of a row that has several."""

    edits: str  # the name of the edit set
    source: str  # file or data set that the rows come from
    columns: Mapping[str, str]
    columns_key: str
    drop_unchanged: bool
    subject_place: SubjectPlace = SubjectPlace.only
    facts_in: str = ""
    _unchanged: list[str] = field(default_factory=list, init=False)  # rows that are left out, and their targets

    def read(self, rows: Sequence[Row], bad: BadRows) -> list[EditRequest]:
        """Returns the requests of all usable rows; the other rows go to `bad`.

        Raises BadInput where no row has a column of the map.
        """
        facts_by_row: list[list[Row]] = []
        for row in rows:
            try:
                facts_by_row.append(self._facts(row))
            except BadInput as problem:
                bad.refuse(problem)
        self._refuse_missing_columns([fact.value for facts in facts_by_row for fact in facts])
        requests: dict[str, EditRequest] = {}
        for facts in facts_by_row:
            try:
                found = self._requests(facts)
                for request in found:
                    if request.id in requests:
                        raise BadInput(f"{facts[0].place}: id {request.id!r} stands twice; ids must be unique")
            except BadInput as problem:
                bad.refuse(problem)
            else:
                requests |= {request.id: request for request in found}
        if self._unchanged:
            log.info("edits=%s: %d rows left out, whose new target is the true answer (edits.drop_unchanged): %s%s",
                     self.edits, len(self._unchanged), "; ".join(self._unchanged[:3]),
                     "; …" if len(self._unchanged) > 3 else "")  # fmt: skip
        return list(requests.values())

    def _facts(self, row: Row) -> list[Row]:
        """Returns one row for each fact of the row, as if the row held this fact alone."""
        if not self.facts_in:
            return [row]
        facts = row.value.get(self.facts_in) if isinstance(row.value, Mapping) else None
        if not isinstance(facts, list) or not facts:
            raise BadInput(f"{row.place}: field {self.facts_in} is {shown(facts)}; it must be a list of the row's "
                           "facts; name the column that holds one in edits.facts_in, or set edits.facts_in='' where a "
                           "row is one fact")  # fmt: skip
        return [Row(row.number, f"{row.place}, fact {i}", {**row.value, self.facts_in: fact})
                for i, fact in enumerate(facts, 1)]  # fmt: skip

    def _requests(self, facts: Sequence[Row]) -> list[EditRequest]:
        """Returns the requests of one row.  What follows from its facts is asked once the last of them is written."""
        requests = []
        for i, fact in enumerate(facts, 1):
            values = self._values(fact)
            if self.facts_in:
                values |= {"row": values["id"], "id": f"{values['id']}-{i}"}
            if self.drop_unchanged and _is_unchanged(values):
                self._unchanged.append(f"{fact.place}: {shown(values['target_new'])}")
            else:
                requests.append(self._request(values, fact.place))
        return [*map(without_portability, requests[:-1]), *requests[-1:]]

    def _refuse_missing_columns(self, rows: Sequence[Any]) -> None:
        """Raises BadInput where no row has a column of the map.  A required one is refused with its row instead."""
        missing = [name for name, path in self.columns.items() if not any(has(row, path) for row in rows)]
        if missing and not set(missing) & set(REQUIRED):
            key = self.columns_key
            named = ", ".join(f"{self.columns[name]} ({key}.{name})" for name in missing)
            known = ", ".join(dict.fromkeys(path for row in rows for path in paths(row)))
            without = " ".join(f"~{key}.{name}" for name in missing)
            raise BadInput(f"edits={self.edits}: no row of {self.source} has {named}; its columns: {known}; give the "
                           f"right name, or take what these rows do not have out of the map: {without}")  # fmt: skip

    def _values(self, row: Row) -> dict[str, Any]:
        """Returns the values of EditRequest's fields that the row has; a null counts as missing."""
        place = row.place
        if not isinstance(row.value, Mapping):
            raise BadInput(f"{place}: a row must be a JSON object, got {type(row.value).__name__}")
        values: dict[str, Any] = {}
        for name, path in self.columns.items():
            try:
                value = look_up(row.value, path)
            except BadInput as problem:
                if isinstance(problem, Missing) and name not in REQUIRED:
                    continue
                remedy = f"put it there, or name its column in {self.columns_key}.{name}"
                raise BadInput(f"{place}: field {name}: {problem}; {remedy}") from None
            if name in LISTS and value is not None:
                value = _texts(value, f"{place}: field {path}", name in MAY_BE_EMPTY)
            if name == ALIASES and value is not None:
                value = _aliases(value, f"{place}: field {path}")
            if value is not None:
                values[name] = value
        self._check_types(values, place)
        values["id"] = self._id(values["id"], place) if "id" in values else f"{self.edits}-{row.number}"
        return values

    def _id(self, value: Any, place: str) -> str:
        if isinstance(value, float) and value.is_integer():  # pandas writes whole numbers so
            value = int(value)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise BadInput(
                f"{place}: field {self.columns['id']} is {shown(value)}; an id must be a text or a whole number"
            )
        return str(value)

    def _check_types(self, values: Mapping[str, Any], place: str) -> None:
        for name in REQUIRED:
            if not isinstance(values.get(name), str):
                path = self.columns.get(name, name)
                raise BadInput(f"{place}: field {path} is {shown(values.get(name))}; it must be a text; put it there, "
                               f"or name its column in {self.columns_key}.{name}")  # fmt: skip
        true = values.get("target_true")
        if isinstance(true, str) and not true.strip():
            raise BadInput(f"{place}: field {self.columns['target_true']} is {true!r}; it must be a text that is not "
                           "empty, or null")  # fmt: skip

    def _request(self, values: dict[str, Any], place: str) -> EditRequest:
        try:
            prompt = with_braces(values["subject"], values["prompt"], self.subject_place)
            return EditRequest(**{**values, "prompt": prompt, **self._answers(values), "place": place})
        except BadInput as problem:
            raise BadInput(f"{place}: {problem}") from None

    def _answers(self, values: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
        """Returns the answers of the row's neighbourhood and portability prompts; without prompts there are none.

        One answer, or one list of aliases, is that of all prompts.
        """
        answers: dict[str, tuple[Any, ...]] = {ALIASES: values.get(ALIASES, ()) if values.get("portability") else ()}
        for prompts, name in (("neighbourhood", "neighbourhood_answers"), ("portability", "portability_answers")):
            answers[name] = values.get(name, ())
            if prompts in self.columns and prompts not in values:
                answers[name] = ()
            elif values.get(prompts) and name in self.columns and name not in values:
                raise BadInput(f"{prompts} without {self.columns[name]}; give one answer each, \"\" where it "
                               "is unknown")  # fmt: skip
            elif name not in self.columns:  # unknown
                answers[name] = ("",) * len(values.get(prompts, ()))
        for name, texts in answers.items():
            if len(texts) == 1:  # CounterFact: every neighbour's answer is the row's true target
                answers[name] = texts * len(values.get(name.split("_")[0], ()))
        return answers


def _is_unchanged(values: Mapping[str, Any]) -> bool:
    true = values.get("target_true")
    return isinstance(true, str) and spelling(values["target_new"]) == spelling(true)


def _texts(value: Any, place: str, may_be_empty: bool) -> tuple[str, ...]:
    if isinstance(value, str) and value[:1] + value[-1:] == "[]":
        raise BadInput(f'{place} is {shown(value)}, which looks like a list; write it as JSON, ["…", "…"]')
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"{place} is {shown(value)}; it must be a text or a list of texts")
    if not may_be_empty and not all(texts):
        raise BadInput(f"{place} is {shown(value)}; a prompt must not be empty: leave it out of the list")
    return tuple(texts)


def _aliases(value: Any, place: str) -> tuple[tuple[str, ...], ...]:
    """Returns the lists of aliases, without empty ones; a list of texts is one list for all prompts."""
    lists = value if isinstance(value, list) and any(isinstance(item, list) for item in value) else [value]
    return tuple(tuple(filter(None, _texts(texts, place, may_be_empty=True))) for texts in lists)

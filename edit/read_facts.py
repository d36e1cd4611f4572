"""Reads rows of any shape into EditRequests, through a map of their columns; a bad row is refused by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afteredit.edit.request import EditRequest
from afteredit.store.errors import BadInput
from afteredit.store.json_rows import Missing, has, look_up, paths

log = logging.getLogger(__name__)

REQUIRED = ("subject", "prompt", "target_new")  # in every row; any other column may be missing or null in a row
LISTS = ("paraphrases", "neighbourhood", "neighbourhood_answers", "portability", "portability_answers",
         "generation_prompts")  # fmt: skip
MAY_BE_EMPTY = ("neighbourhood_answers", "portability_answers")  # where they are unknown


@dataclass(frozen=True)
class FactReader:
    """Reads the rows of one source.  `columns` maps fields of EditRequest to dotted paths in a row; `columns_key` is
    the config key that holds this map."""

    edits: str  # the name of the edit set
    source: str  # file or data set that the rows come from
    columns: Mapping[str, str]
    columns_key: str
    drop_unchanged: bool

    def read(self, rows: Sequence[tuple[int, Any]]) -> list[tuple[EditRequest, Any]]:
        """Returns each usable row's request with the row, from numbered rows.

        Raises BadInput, naming source, line and field, where a row cannot be used.
        """
        self._refuse_missing_columns([row for _, row in rows])
        usable: list[tuple[EditRequest, Any]] = []
        ids = set()
        for line, row in rows:
            place = f"{self.source}:{line}"
            values = self._values(row, place, line)
            if self.drop_unchanged and _is_unchanged(values):
                log.info("%s: left out: the new target %r is the true answer", place, values["target_new"])
                continue
            request = self._request(values, place)
            if request.id in ids:
                raise BadInput(f"{place}: id {request.id!r} stands twice; ids must be unique")
            ids.add(request.id)
            usable.append((request, row))
        return usable

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

    def _values(self, row: Any, place: str, line: int) -> dict[str, Any]:
        """Returns the values of EditRequest's fields that the row has; a null counts as missing."""
        if not isinstance(row, Mapping):
            raise BadInput(f"{place}: a row must be a JSON object, got {type(row).__name__}")
        values: dict[str, Any] = {}
        for name, path in self.columns.items():
            try:
                value = look_up(row, path)
            except BadInput as problem:
                if isinstance(problem, Missing) and name not in REQUIRED:
                    continue
                remedy = f"put it there, or name its column in {self.columns_key}.{name}"
                raise BadInput(f"{place}: field {name}: {problem}; {remedy}") from None
            if name in LISTS and value is not None:
                value = _texts(value, f"{place}: field {path}", name in MAY_BE_EMPTY)
            if value is not None:
                values[name] = value
        self._check_types(values, place)
        values["id"] = str(values["id"]) if "id" in values else f"{self.edits}-{line}"
        return values

    def _check_types(self, values: Mapping[str, Any], place: str) -> None:
        for name in REQUIRED:
            if not isinstance(values.get(name), str):
                path = self.columns.get(name, name)
                raise BadInput(f"{place}: field {path} is {values.get(name)!r}; it must be a text; put it there, or "
                               f"name its column in {self.columns_key}.{name}")  # fmt: skip
        true = values.get("target_true")
        if isinstance(true, str) and not true.strip():
            raise BadInput(f"{place}: field {self.columns['target_true']} is {true!r}; it must be a text that is not "
                           "empty, or null")  # fmt: skip
        if not isinstance(values.get("id", ""), str | int) or isinstance(values.get("id"), bool):
            raise BadInput(f"{place}: field {self.columns['id']} is {values['id']!r}; an id must be a text or a number")

    def _request(self, values: dict[str, Any], place: str) -> EditRequest:
        pairs = {"prompt": _with_braces(values["subject"], values["prompt"], place), **self._answers(values, place)}
        try:
            return EditRequest(**{**values, **pairs})
        except BadInput as problem:
            raise BadInput(f"{place}: {problem}") from None

    def _answers(self, values: Mapping[str, Any], place: str) -> dict[str, tuple[str, ...]]:
        """Returns the answers of the row's neighbourhood and portability prompts; without prompts there are none."""
        answers: dict[str, tuple[str, ...]] = {}
        for prompts, name in (("neighbourhood", "neighbourhood_answers"), ("portability", "portability_answers")):
            answers[name] = values.get(name, ())
            if prompts in self.columns and prompts not in values:
                answers[name] = ()
            elif values.get(prompts) and name in self.columns and name not in values:
                raise BadInput(f"{place}: {prompts} without {self.columns[name]}; give one answer each, \"\" where it "
                               "is unknown")  # fmt: skip
        if len(answers["neighbourhood_answers"]) == 1:  # CounterFact: every neighbour's answer is the row's true target
            answers["neighbourhood_answers"] *= len(values.get("neighbourhood", ()))
        return answers


def _is_unchanged(values: Mapping[str, Any]) -> bool:
    true = values.get("target_true")
    return isinstance(true, str) and bool(values["target_new"].strip() == true.strip())


def _with_braces(subject: str, prompt: str, place: str) -> str:
    """Returns the prompt with {} where the subject stands."""
    if "{}" in prompt:
        return prompt
    if not subject or subject not in prompt:
        raise BadInput(f"{place}: the subject {subject!r} does not stand in the prompt {prompt!r}; write it there, or "
                       "{} in its place")  # fmt: skip
    return prompt.replace(subject, "{}", 1)


def _texts(value: Any, place: str, may_be_empty: bool) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"{place} is {value!r}; it must be a text or a list of texts")
    if not may_be_empty and not all(text.strip() for text in texts):
        raise BadInput(f"{place} is {value!r}; a prompt must not be empty: leave it out of the list")
    return tuple(texts)

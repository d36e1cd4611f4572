"""EditRequest: one fact to write, checked as it is made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from typing import Any

from afteredit.edit.subject_place import filled
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import normal_form, shown, spelling

PROMPTS = ("paraphrases", "neighbourhood", "portability", "generation_prompts")  # beside the fact's own
PLACEHOLDER = re.compile(  # what other tools write for {}; not the \hat{x} of a formula
    r"(?<![A-Za-z0-9_}])\{\s*(?:subject|subj|entity|head|x|s|0)\s*\}|\{\s+\}|\{\{+\s*\w*\s*\}+\}"
    r"|\[(?:x|subject|subj|entity)\]|<(?:subject|entity)>"
    r"|(?<!\S)%s(?![^\s.,;:?!'’])",
    re.I,
)
EXTRA_TOKENS = 3  # generated beyond an answer's own: a text may be cut into other tokens, and must show the word's end


@dataclass(frozen=True)
class EditRequest:
    """`subject`'s fact, asked by `prompt` (with `{}` where the subject stands), becomes `target_new`.

    `neighbourhood` prompts are about other subjects; their answers (one each, empty where unknown) must not change.
    `portability_aliases`: for each portability prompt the other names of its answer; empty where there are none.
    `row`: the row that holds the fact together with others, which are written before it or after it; None for a row of
    its own.  `place`: where the fact was read, for messages; it is no part of the fact, nor of `content`.
    Whoever makes a request, its texts stand in their normal form, and {} in its other prompts gives way to the subject.
    Raises BadInput for a fact that cannot be edited or measured.
    """

    id: str
    subject: str
    prompt: str
    target_new: str
    target_true: str | None = None
    relation: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbourhood: tuple[str, ...] = ()
    neighbourhood_answers: tuple[str, ...] = ()
    portability: tuple[str, ...] = ()
    portability_answers: tuple[str, ...] = ()
    portability_aliases: tuple[tuple[str, ...], ...] = ()
    generation_prompts: tuple[str, ...] = ()
    row: str | None = None
    place: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, value in self.content.items():
            object.__setattr__(self, name, _normal(value))
        self._check_types()
        for name in PROMPTS:
            self._refuse_placeholders(name, getattr(self, name))
            object.__setattr__(self, name, tuple(filled(self.subject, text) for text in getattr(self, name)))
        self._refuse_placeholders("prompt", [self.prompt])
        if self.prompt.count("{}") != 1:
            raise BadInput(f"prompt is {shown(self.prompt)}; it must hold {{}} exactly once, where the subject stands")
        if self.target_true is not None and spelling(self.target_true) == spelling(self.target_new):
            both = " and ".join(dict.fromkeys((shown(self.target_new), shown(self.target_true))))
            raise BadInput(f"target_new and target_true are both {both}; an edit must change the answer; "
                           "++edits.drop_unchanged=true leaves such rows out")  # fmt: skip
        for prompts, answers in (("neighbourhood", "neighbourhood_answers"), ("portability", "portability_answers")):
            n_prompts, n_answers = len(getattr(self, prompts)), len(getattr(self, answers))
            if n_prompts != n_answers:
                raise BadInput(f"{prompts} has {n_prompts} prompts but {n_answers} answers; give one answer each, "
                               "\"\" where it is unknown")  # fmt: skip
        if self.portability_aliases and len(self.portability_aliases) != len(self.portability):
            raise BadInput(f"portability has {len(self.portability)} prompts but {len(self.portability_aliases)} lists "
                           "of aliases; give one list each, or one list of texts for all")  # fmt: skip

    def _refuse_placeholders(self, name: str, texts: Iterable[str]) -> None:
        """Raises BadInput where a text holds, in place of {}, what other tools write for it."""
        for text in texts:
            found = PLACEHOLDER.search(text.replace(self.subject, "…"))
            if found:
                raise BadInput(f"{name} holds {shown(text)}, which would be asked as it stands; write {{}} for "
                               f"{found[0]}, where the subject stands")  # fmt: skip

    def _check_types(self) -> None:
        """Raises BadInput where a field holds what it must not, or an empty text where there must be one."""
        for name in ("id", "subject", "prompt", "target_new"):
            given = getattr(self, name)
            if not isinstance(given, str) or not given:
                raise BadInput(f"{name} is {shown(given)}; it must be a text that is not empty")
        for name, wanted in (("target_true", "a text that is not empty"), ("relation", "a text")):
            given = getattr(self, name)
            if not isinstance(given, str | None) or (given == "" and name == "target_true"):
                raise BadInput(f"{name} is {shown(given)}; it must be {wanted}, or null")
        for name in (*PROMPTS, "neighbourhood_answers", "portability_answers"):
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise BadInput(f"{name} is {shown(texts)}; it must be a list of texts")
            if name in PROMPTS and not all(texts):
                raise BadInput(f"{name} is {shown(texts)}; a prompt must not be empty: leave it out of the list")

    @property
    def content(self) -> dict[str, Any]:
        """Returns the fact as plain data: what is hashed and stored of it."""
        return {name: getattr(self, name) for name in FACT_FIELDS}

    @property
    def named(self) -> str:
        """Returns what messages call the fact: its id, and where it was read."""
        return f"{self.id} ({self.place})" if self.place else self.id

    @property
    def question(self) -> str:
        """Returns the prompt with the subject in its place."""
        return self.prompt.replace("{}", self.subject)

    @property
    def subject_start(self) -> int:
        """Returns the character index of the subject in `question`."""
        return self.prompt.index("{}")


FACT_FIELDS = tuple(f.name for f in fields(EditRequest) if f.name != "place")


def _normal(value: Any) -> Any:
    """Returns a field's value with its texts in normal form, and tuples for lists."""
    if isinstance(value, list | tuple):
        return tuple(map(_normal, value))
    return normal_form(value) if isinstance(value, str) else value


def without_portability(request: EditRequest) -> EditRequest:
    """Returns the request without the questions about what follows from its fact."""
    return replace(request, portability=(), portability_answers=(), portability_aliases=())


def by_row(requests: Iterable[EditRequest]) -> list[list[EditRequest]]:
    """Returns the requests in their order, those of one row together."""
    return [list(group) for _, group in groupby(requests, key=lambda r: (r.row, r.id if r.row is None else None))]


def without_split_rows(batches: Sequence[Sequence[EditRequest]]) -> tuple[list[list[EditRequest]], list[str]]:
    """Returns the batches without the portability questions of rows whose facts stand in several of them, and the names
    of these rows: no single batch makes their answers true."""
    sizes = Counter(request.row for batch in batches for request in batch)
    split, kept = [], []
    for batch in batches:
        here = Counter(request.row for request in batch)
        cut = {row for row in here if row is not None and here[row] < sizes[row]}
        split += [request.row for request in batch if request.row in cut and request.portability]
        kept.append([without_portability(request) if request.row in cut else request for request in batch])
    return kept, split


def same_fact(request: EditRequest, other: EditRequest) -> bool:
    """Returns whether both are about one fact, however it is spelled: they ask the same text, wherever the subject
    stands, or are about one subject with the same relation or, where one has no relation, the same true answer."""
    if spelling(request.question) == spelling(other.question):
        return True
    if spelling(request.subject) != spelling(other.subject):
        return False
    if request.relation and other.relation:
        return spelling(request.relation) == spelling(other.relation)
    true, other_true = (spelling(r.target_true or "") for r in (request, other))
    return true == other_true != ""


def conflicts(requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, EditRequest]]:
    """Yields every request that gives the fact of an earlier one another target, as (earlier, request).

    A request that conflicts makes no conflict for the ones after it.
    """
    accepted: dict[str, list[EditRequest]] = {}  # by subject and by what is asked, one of which one fact shares
    for request in requests:
        places = dict.fromkeys((spelling(request.subject), spelling(request.question)))
        others = (other for place in places for other in accepted.get(place, ())
                  if spelling(other.target_new) != spelling(request.target_new))  # fmt: skip
        other = next((other for other in others if same_fact(other, request)), None)
        if other is None:
            for place in places:
                accepted.setdefault(place, []).append(request)
        else:
            yield other, request


def refuse_conflicts(requests: Sequence[EditRequest]) -> None:
    """Raises BadInput where two requests of one batch give one fact different targets."""
    for other, request in conflicts(requests):
        raise BadInput(
            f"edits {other.named} and {request.named} of one batch conflict: one fact of {shown(request.subject)} "
            f"cannot become both {shown(other.target_new)} and {shown(request.target_new)}; use a smaller batch_size, "
            "remove one, set ++edits.distinct=true (of such rows the first only) or, if they are two facts that are "
            "asked for in other words, give both a relation"
        )

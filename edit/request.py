"""EditRequest: one fact to write, checked as it is made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from afteredit.store.errors import BadInput


@dataclass(frozen=True)
class EditRequest:
    """`subject`'s fact, asked by `prompt` (with `{}` where the subject stands), becomes `target_new`.

    `neighbourhood` prompts are about other subjects; their answers (one each, empty where unknown) must not change.
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
    generation_prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("id", "subject", "prompt", "target_new"):
            given = getattr(self, field)
            if not isinstance(given, str) or not given.strip():
                raise BadInput(f"{field} is {given!r}; it must be a text that is not empty")
        for field, may_be in (("target_true", str | None), ("relation", str | None)):
            if not isinstance(getattr(self, field), may_be):
                raise BadInput(f"{field} is {getattr(self, field)!r}; it must be a text, or null")
        if self.prompt.count("{}") != 1:
            raise BadInput(f"prompt is {self.prompt!r}; it must hold {{}} exactly once, where the subject stands")
        if self.target_true is not None and self.target_true.strip() == self.target_new.strip():
            raise BadInput(f"target_new and target_true are both {self.target_new!r}; an edit must change the answer")
        for prompts, answers in (("neighbourhood", "neighbourhood_answers"), ("portability", "portability_answers")):
            n_prompts, n_answers = len(getattr(self, prompts)), len(getattr(self, answers))
            if n_prompts != n_answers:
                raise BadInput(f"{prompts} has {n_prompts} prompts but {n_answers} answers; give one answer each, "
                               "\"\" where it is unknown")  # fmt: skip

    @property
    def question(self) -> str:
        """Returns the prompt with the subject in its place."""
        return self.prompt.replace("{}", self.subject)

    @property
    def subject_start(self) -> int:
        """Returns the character index of the subject in `question`."""
        return self.prompt.index("{}")


def same_fact(request: EditRequest, other: EditRequest) -> bool:
    """Returns whether both are about one fact of one subject: the same relation or, where a request has no relation,
    the same prompt or true answer."""
    if request.subject.casefold() != other.subject.casefold():
        return False
    if request.relation and other.relation:
        return request.relation == other.relation
    true, other_true = ((r.target_true or "").strip() for r in (request, other))
    return request.prompt == other.prompt or true == other_true != ""


def conflicts(requests: Iterable[EditRequest]) -> Iterator[tuple[EditRequest, EditRequest]]:
    """Yields every request that gives the fact of an earlier one another target, as (earlier, request).

    A request that conflicts makes no conflict for the ones after it.
    """
    accepted: dict[str, list[EditRequest]] = {}
    for request in requests:
        earlier = accepted.setdefault(request.subject.casefold(), [])
        others = (other for other in earlier if other.target_new.strip() != request.target_new.strip())
        other = next((other for other in others if same_fact(other, request)), None)
        if other is None:
            earlier.append(request)
        else:
            yield other, request


def refuse_conflicts(requests: Sequence[EditRequest]) -> None:
    """Raises BadInput where two requests of one batch give one fact different targets."""
    for other, request in conflicts(requests):
        raise BadInput(
            f"edits {other.id} and {request.id} of one batch conflict: one fact of {request.subject!r} cannot become "
            f"both {other.target_new!r} and {request.target_new!r}; use a smaller batch_size, remove one, set "
            "++edits.distinct=true (of such rows the first only) or, if they are two facts, give both a relation"
        )

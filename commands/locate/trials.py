"""Tries configurations of a method on training rows, each row written into the unedited model, and keeps every result.

The score of a configuration is efficacy × paraphrase × neighbourhood, divided by perplexity in multiples of the
unedited model's where that has grown.  Each of the three is the mean over the rows of two criteria together: `prob`,
which is often met by all configurations, and `generated`, which few meet (evaluate/metrics/editing_success.py).  One
that the rows do not have (no paraphrases) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.editor import Editor
from afteredit.edit.method import Given, Method, Prepared
from afteredit.edit.request import EditRequest
from afteredit.evaluate.inference.held_out import held_out, held_out_text
from afteredit.evaluate.metrics.drift import drift
from afteredit.evaluate.metrics.editing_success import respond, success_scores
from afteredit.launch.experiment import Experiment
from afteredit.store.code_version import editing_version, measuring_version
from afteredit.store.field_roles import WEIGHTS, values_by_role
from afteredit.store.progress.kept_progress import KeptResults
from afteredit.store.progress.work import working
from afteredit.store.user_cache import cache_key, content_hash

if TYPE_CHECKING:
    from afteredit.model.lm import LM

FORMAT = 1  # raised when something else is measured of the same edit
PARTS = ("efficacy", "paraphrase", "neighbourhood")
CRITERIA = ("prob", "generated")
PERPLEXITY_EVERY = 4  # rows; of the others it is not asked


def kept_trials(x: Experiment, lm: LM) -> KeptResults:
    """Returns the results of earlier trials on this model, whose file is named by all that decides them beside method
    and row."""
    decides = {"model": lm.fingerprint, "device": lm.device.type, "seed": x.settings.seed,
               "separator": lm.tokens.separator, "text": held_out_text(x.settings),
               "tokens": x.settings.held_out_tokens, "code": [editing_version(), measuring_version()]}  # fmt: skip
    return KeptResults(f"trials/{cache_key(FORMAT, decides)}.json")


@dataclass
class Trials:
    """Tries methods on `rows` of one model, without a constraint; `unedited` holds that model's perplexity.

    `kept`: see `kept_trials`.
    """

    x: Experiment
    lm: LM
    rows: Sequence[EditRequest]
    kept: KeptResults

    def __post_init__(self) -> None:
        self._windows = held_out(self.lm, self.x.settings)
        self._prepared: dict[str, Prepared] = {}  # of the method that was tried last
        self.unedited = self._kept(["unedited"], self._perplexity)

    def summary(self, method: Method, n_rows: int) -> dict[str, float]:
        """Returns the means over the first `n_rows` rows, and the `score`.  Raises BadInput where the method cannot
        edit this model."""
        name = content_hash([values_by_role(method, WEIGHTS), method.content(self._given)])
        found: list[dict[str, float]] = []
        with working("rows", len(self.rows[:n_rows])) as work:
            for work.done, request in enumerate(self.rows[:n_rows]):
                with_perplexity = work.done % PERPLEXITY_EVERY == 0
                measure = partial(self._edited, method, name, request, with_perplexity=with_perplexity)
                found.append(self._kept([name, request.content, with_perplexity], measure))
        means = {key: mean(row[key] for row in found if key in row) for key in sorted(set().union(*found))}
        return means | {"score": self.score(means)}

    @property
    def _given(self) -> Given:
        return Given(self.x.settings.seed, list)

    def score(self, found: dict[str, float]) -> float:
        """Returns the score of the means of a configuration, as the head of this file says."""
        score = 1.0
        for part in PARTS:
            values = [found[f"{way}/{part}"] for way in CRITERIA if f"{way}/{part}" in found]
            score *= sum(values) / len(values) if values else 1.0
        return score / max(1.0, found["perplexity"] / self.unedited["perplexity"])

    def _kept(self, key: list[Any], measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        found: dict[str, float] = self.kept.of(content_hash(key), measure)
        return found

    def _perplexity(self) -> dict[str, float]:
        return {"perplexity": drift(self.lm, self._windows)["drift/perplexity"]}

    def _edited(self, method: Method, name: str, request: EditRequest, *, with_perplexity: bool) -> dict[str, float]:
        """Returns the success of one edit of the unedited model, by criterion and kind of prompt."""
        if name not in self._prepared:
            self._prepared = {name: method.prepare(self.lm, self._given)}
        before = respond(self.lm, [request])
        editor = Editor(self.lm, method, Unconstrained(), self._prepared[name], single=True, speed=self.x.speed)
        editor.begin([request])
        try:
            editor.apply([request], editor.write([request]))
            scores: dict[str, list[float]] = {}
            for row in success_scores(self.lm, respond(self.lm, [request]), before):
                scores.setdefault(row["name"], []).append(row["score"])
            means = {key: mean(values) for key, values in scores.items()}
            return means | (self._perplexity() if with_perplexity else {})
        finally:
            self.lm.weights.restore()

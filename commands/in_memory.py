"""Edits a model from Python: facts are written, the model is handed back, and the edits are undone.  Keeps no run."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from typing import Any

from torch import Tensor

from afteredit.edit.editor import Editor
from afteredit.edit.preflight import refuse_long_prefixes
from afteredit.edit.request import EditRequest
from afteredit.edit.typed_facts import typed_facts
from afteredit.evaluate.inference.generation import generate
from afteredit.launch.console import new_console
from afteredit.launch.experiment import Experiment
from afteredit.launch.opening import load_model, prepare, usable_facts
from afteredit.store.errors import BadInput
from afteredit.store.rows.normal_text import normal_form


class InMemory:
    """Holds one model, with the edits that were made since the last `undo`.

    The edits are those that a run of the same experiment makes.  `model` and `tokenizer` are Hugging Face's; the model
    is what metrics see: a constraint's view, where it has one.
    """

    def __init__(self, x: Experiment):
        """Loads the model of an experiment and prepares its method.  Raises BadInput."""
        if x.settings.single:
            raise BadInput("setting=single, but edits in memory add up; leave it out, and undo before each edit")
        self._x, self._lm = x, load_model(x, new_console(x))
        self.model, self.tokenizer = self._lm.model, self._lm.tokenizer
        self._lm.weights.keep_base(x.method.edited(self._lm))
        self._prepared = prepare(x, self._lm)
        self._raw: dict[str, Tensor] = {}  # of the matrices that the model holds as the constraint's view shows them
        self._editor = self._new_editor()

    @property
    def n_edits(self) -> int:
        """Returns how many facts the model holds."""
        return self._editor.n_edits

    def edit(self, *facts: str | EditRequest) -> Any:
        """Writes the facts beside those that the model holds, and returns the model.

        A text is a fact as `edits.fact` has it: "The capital of {Peru} is → Oslo".  Without facts, those of the
        experiment's edit set are written.  Raises BadInput, before any is, where one of them cannot be.
        """
        x, lm = self._x, self._lm
        if facts:
            requests = [fact if isinstance(fact, EditRequest) else typed_facts([fact], None, [], [])[0]
                        for fact in facts]  # fmt: skip
            x = replace(x, settings=replace(x.settings, n_edits=len(requests)))
        else:
            requests, _ = x.edits.read(x.settings.data, x.settings.seed)
        self._lm.weights.put_back(self._raw)
        try:
            _, batches = usable_facts(x, lm, requests)
            refuse_long_prefixes(lm, [request for batch in batches for request in batch], self._prepared.contexts)
            for batch in batches:
                self._editor.apply(batch, self._editor.write(batch))
        finally:
            self._raw = lm.weights.see_through(x.constraint.view)
        return self.model

    def undo(self) -> Any:
        """Takes all edits out again, and returns the model with the bits that it was loaded with."""
        self._lm.weights.restore()
        self._raw = {}
        self._editor = self._new_editor()
        return self.model

    def says(self, prompt: str, n_tokens: int = 10) -> str:
        """Returns the greedy text of up to so many tokens after a prompt, which is read as edits and metrics read it:
        in its normal form, with the model's start token or chat template.  Raises BadInput for an empty prompt, or one
        that leaves no room.
        """
        tokens, most, prompt = self._lm.tokens, self._lm.max_tokens, normal_form(prompt)
        question = tokens.question_ids(prompt)
        n_read = len(question) + n_tokens
        if not prompt or (most and n_read > most):
            raise BadInput(f"the prompt {prompt!r} is empty or too long: with {n_tokens} tokens of answer it has "
                           f"{n_read}, and the model reads {most}; give another")  # fmt: skip
        (ids,) = generate(self._lm, [question], n_tokens)
        return str(self.tokenizer.decode(list(takewhile(lambda token: token not in tokens.special_ids, ids))))

    def _new_editor(self) -> Editor:
        return Editor(self._lm, self._x.method, self._x.constraint, self._prepared, speed=self._x.speed)

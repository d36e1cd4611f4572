"""Measures one ability: lm-eval owns prompts, few-shot examples, filters, metrics and aggregation.

Its task and requests are built once per run; each checkpoint answers them anew (lm-eval's response cache stays off,
since it does not see weights).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.answer_scores import as_pairs
from afteredit.evaluate.abilities.lm_eval_tasks import make_task
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from afteredit.evaluate.abilities.kept_answers import KeptAnswers
    from afteredit.evaluate.abilities.lm_eval_model import LmEvalModel
    from afteredit.evaluate.inference.kept_blocks import KeptBlocks
    from afteredit.model.lm import LM

FEWSHOT_SEED = 1234  # lm-eval's own default
NO_ANSWER = ("", "[invalid]")  # what lm-eval's filters leave where they find no answer


@dataclass(frozen=True)
class ExampleScore:
    """Holds the score of one row, and what the model said.

    headline = Σ numerators / Σ denominators (these are 1 for a mean over rows).
    """

    doc_id: int
    numerator: float
    denominator: float
    gold_nll: float | None  # nats, mean per token of the gold answer
    unparseable: float | None
    ran_out: float | None = None  # 1: the generated answer did not end within the tokens that it may have; None where
    # no text ends it, so that it is meant to be so long
    cut: float = 0.0  # 1: the prompt was cut on the left, being longer than the model reads
    answer: str | None = None  # the text that was generated
    choice: int | None = None  # which of the choices the model takes
    log_likelihoods: list[float] | None = None  # nats, of every choice; of the text where that is what is scored


@dataclass(frozen=True)
class AbilityScores:
    """Holds an ability's metrics by the keys they are recorded under, and every example's scores."""

    row: dict[str, float]
    examples: list[ExampleScore]


class BuiltAbility:
    """An ability whose task stands ready."""

    def __init__(self, name: str, ability: Ability, data: str, limit: int | None):
        """Raises BadInput for a task that lm-eval cannot build, or rows that cannot be had."""
        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        self.name, self.ability = name, ability
        self.task = make_task(name, ability, data, limit)
        self.task.set_fewshot_seed(seed=FEWSHOT_SEED)
        self.limit = limit if isinstance(ability.lm_eval, str) else None  # our tasks hold no other rows

    def silent_score(self) -> float:
        """Returns the headline of a model that ends every answer at once."""
        if self.task.OUTPUT_TYPE != "generate_until":
            raise BadInput(f"task.{self.name}.chance=null, but its answers are not generated; give a number")
        silence = self.task.config.generation_kwargs.get("eos_text", "")
        scores = [self.task.process_results(doc, [silence])[self.ability.headline] for doc in self.task.eval_docs]
        return float(self.task.aggregation()[self.ability.headline](scores))

    def measure(
        self, lm: LM, kept_blocks: KeptBlocks | None = None, kept_answers: KeptAnswers | None = None
    ) -> AbilityScores:
        """Returns the scores of the model as it is now.  Goes on from `kept_answers`, and adds to them.

        Raises BadInput where the task has no metric of the headline's name.
        """
        from lm_eval.evaluator import evaluate

        from afteredit.evaluate.abilities.lm_eval_model import LmEvalModel

        chat = lm.tokens.prompt == "chat"
        model = LmEvalModel(lm, kept_blocks, partial(self._gold_answer, chat), kept_answers)
        for request in getattr(self.task, "_instances", None) or []:
            request.resps, request.filtered_resps = [], {}  # those of an earlier checkpoint
        results = evaluate(
            model, {self.name: self.task}, limit=self.limit, bootstrap_iters=0, log_samples=True,
            apply_chat_template=chat,
        )  # fmt: skip
        assert results is not None  # lm-eval returns None to all but the first of several processes
        self.task.build_all_requests = lambda **_: None  # the next checkpoint reuses these requests
        metrics = results["results"][self.name]
        answer_filter = self._headline_filter(metrics)
        gold_nll = self._gold_nll(model)
        samples = [sample for sample in results["samples"][self.name] if sample["filter"] == answer_filter]
        pairs = as_pairs([sample[self.ability.headline] for sample in samples])
        examples = [self._example(sample, pair, gold_nll.get(sample["doc_id"]), model)
                    for sample, pair in zip(samples, pairs, strict=True)]  # fmt: skip
        return AbilityScores(self._row(metrics, answer_filter, examples), examples)

    def questions(self) -> list[dict[str, str]]:
        """Returns, for each row, its `question` (without examples), the answer `wanted`, and its `choices` as JSON.

        What a task does not have is left out.
        """
        task, kind = self.task, self.task.OUTPUT_TYPE
        questions = []
        for doc in islice(task.eval_docs, self.limit) if kind != "loglikelihood_rolling" else ():
            texts = {"question": task.doc_to_text(doc), "wanted": task.doc_to_target(doc)}
            if kind == "multiple_choice":
                choices = [str(choice) for choice in task.doc_to_choice(doc)]
                texts |= {"wanted": _chosen(choices, self._right_choice(doc)), "choices": json.dumps(choices)}
            if isinstance(texts["wanted"], list):
                texts["wanted"] = " | ".join(map(str, texts["wanted"]))
            questions.append({name: text for name, text in texts.items() if isinstance(text, str)})
        return questions

    def _right_choice(self, doc: Any) -> Any:
        """Returns the right choice, or all of them, as lm-eval names it: by number.  Where the choices are contexts of
        one ending, as in WinoGrande, the ending is the target and the number stands in the question's place."""
        return self.task.doc_to_text(doc) if self.task.multiple_input else self.task.doc_to_target(doc)

    def _headline_filter(self, metrics: Mapping[str, Any]) -> str:
        """Returns the filter of the headline; lm-eval's keys are `metric,filter`."""
        keys = [key for key in metrics if key.split(",")[0] == self.ability.headline]
        if not keys:
            known = sorted({key.split(",")[0] for key in metrics if "," in key and "_stderr" not in key})
            raise BadInput(f"task={self.name}: headline {self.ability.headline!r} is none of its metrics: {known}")
        return keys[-1].split(",")[1]

    def _row(self, metrics: Mapping[str, Any], answer_filter: str, examples: list[ExampleScore]) -> dict[str, float]:
        """Returns the headline, the task's other metrics, and the shares and means of what examples hold."""
        row = {f"ability/{self.name}": float(metrics[f"{self.ability.headline},{answer_filter}"])}
        for other in self.ability.also:
            row[f"ability/{self.name}/{other}"] = float(metrics[f"{other},{answer_filter}"])
        for key in ("gold_nll", "unparseable", "ran_out", "cut"):
            values = [value for example in examples if (value := getattr(example, key)) is not None]
            if values and (key != "cut" or any(values)):
                row[f"ability/{self.name}/{key}"] = sum(values) / len(values)
        return row

    def _gold_answer(self, chat: bool, request: Any) -> str | None:
        """Returns the answer wanted to a request to generate, as it continues the context; None where it is empty."""
        gold = self.task.doc_to_target(request.doc)
        text = gold[0] if isinstance(gold, list) else str(gold)
        if not text.strip():
            return None
        return text.lstrip() if chat else self.task.config.target_delimiter + text  # nothing stands after a chat turn

    def _gold_nll(self, model: LmEvalModel) -> dict[int, float]:
        """Returns the NLL of the gold answer after the same context, by document."""
        instances_by_doc: dict[int, list[Any]] = {}
        for instance in self.task.instances:
            instances_by_doc.setdefault(instance.doc_id, []).append(instance)
        gold: dict[int, tuple[str, str]] = {}  # by document: context and gold answer
        for doc_id, instances in instances_by_doc.items():
            if self.task.OUTPUT_TYPE == "multiple_choice":
                target = self._right_choice(instances[0].doc)
                index = target[0] if isinstance(target, list) else target
                if isinstance(index, int) and 0 <= index < len(instances):
                    gold[doc_id] = instances[index].args
            elif self.task.OUTPUT_TYPE == "generate_until":
                answer = model.gold_answer(instances[0])
                if answer is not None:
                    gold[doc_id] = instances[0].args[0], answer
        nll_by_pair = model.mean_nll(list(gold.values()))
        return {doc_id: nll_by_pair[pair] for doc_id, pair in gold.items()}

    def _example(
        self, sample: Mapping[str, Any], pair: tuple[float, float], gold_nll: float | None, model: LmEvalModel
    ) -> ExampleScore:
        contexts = {arguments[0] for arguments in sample["arguments"]}
        unparseable = sample.get("unparseable")
        ran_out = None
        if self.task.OUTPUT_TYPE == "generate_until":
            if self.task.config.generation_kwargs.get("until"):
                ran_out = float(not contexts.isdisjoint(model.ran_out))
            if unparseable is None:
                answer = sample["filtered_resps"][0]
                answer = answer[0] if isinstance(answer, list) else answer
                unparseable = float(str(answer).strip() in NO_ANSWER)
        cut = float(not contexts.isdisjoint(model.cut))
        return ExampleScore(sample["doc_id"], *pair, gold_nll, unparseable, ran_out, cut, **self._said(sample))

    def _said(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the model said of a row: the text it generated, or its choice and all log-likelihoods."""
        responses = [responses[0] for responses in sample["resps"]]
        if self.task.OUTPUT_TYPE == "generate_until":
            return {"answer": str(responses[0])}
        values = [float(response[0] if isinstance(response, tuple) else response) for response in responses]
        if self.task.OUTPUT_TYPE != "multiple_choice":
            return {"log_likelihoods": values}
        choices = self.task.doc_to_choice(sample["doc"])
        values = values[: len(choices)]  # lm-eval's acc_mutual_info asks for others after them
        by_length = self.ability.headline == "acc_norm"  # lm-eval's, per character
        compared = [value / (len(choice) if by_length else 1) for value, choice in zip(values, choices, strict=True)]
        return {"choice": int(np.argmax(compared)), "log_likelihoods": values}


def _chosen(choices: Sequence[str], target: Any) -> Any:
    """Returns the texts of the right choices, which lm-eval names by number; what else it is given, as it is."""
    numbers = target if isinstance(target, list) else [target]
    if all(isinstance(number, int) and 0 <= number < len(choices) for number in numbers):
        return [choices[number] for number in numbers]
    return target

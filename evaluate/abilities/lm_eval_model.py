"""Answers lm-eval's requests with our LM, under lm-eval's own tokenisation and stopping rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from afteredit.evaluate.abilities.kept_answers import KeptAnswers
from afteredit.evaluate.inference.answered import Answered, TokenScores
from afteredit.evaluate.inference.batches import Ids
from afteredit.evaluate.inference.generation import score_and_generate
from afteredit.evaluate.inference.kept_blocks import KeptBlocks
from afteredit.evaluate.inference.likelihood import score
from afteredit.model.lm import LM
from afteredit.model.loading.chat_template import render
from afteredit.store.errors import BadInput

MAX_NEW_TOKENS = 256  # lm-eval's own default where a task names none
# In generation_kwargs: what decides an answer here, or nothing where none is sampled, and values that leave it greedy.
HEEDED = {"until", "max_gen_toks", "eos_text", "temperature", "top_p", "top_k"}
GREEDY = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0,
          "length_penalty": 1.0, "no_repeat_ngram_size": 0}  # fmt: skip
UNKNOWN_LENGTH = 2048  # tokens that a model is taken to read where its config does not say; lm-eval's own default


class LmEvalModel(TemplateLM):
    """Answers the requests of one ability at one checkpoint.

    The answer that `gold_answer` gives to a request to generate is scored in the pass that generates.  `mean_nll`
    returns what was scored.  `cut` holds the contexts that were too long for the model and were cut, on the left as
    lm-eval does; `ran_out` those whose answers did not end within the tokens that they may have.
    """

    def __init__(
        self,
        lm: LM,
        kept_blocks: KeptBlocks | None = None,
        gold_answer: Callable[[Instance], str | None] = lambda _request: None,
        kept_answers: KeptAnswers | None = None,
    ):
        super().__init__()
        self.lm, self.kept_blocks, self.gold_answer = lm, kept_blocks, gold_answer
        self.next_call = Answered if kept_answers is None else kept_answers.next_call
        self.tokenizer = lm.tokenizer
        self.cut: set[str] = set()
        self.ran_out: set[str] = set()
        self._mean_nll: dict[tuple[str, str], float] = {}  # by context and continuation

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        return self.lm.tokens.opening_ids()[0]

    @property
    def max_length(self) -> int:
        return self.lm.max_tokens or UNKNOWN_LENGTH

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return render(self.tokenizer, chat_history, self.lm.tokens.chat_date, add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Returns the ids of a text; our start token is the only special token ever added."""
        ids = self.lm.tokens.encode(string)
        return list(ids[len(self.lm.tokens.start_ids) :] if add_special_tokens is False else ids)

    def mean_nll(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Returns nats, mean per token, of every (context, continuation); pairs not scored yet are scored now."""
        missing = [pair for pair in pairs if pair not in self._mean_nll]
        self.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in missing])
        return {pair: self._mean_nll[pair] for pair in pairs}

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(list(requests), disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs: list[tuple[Ids, Ids]] = []
        for texts, given, continuation in requests:
            context = given if texts[0] else self.lm.tokens.opening_ids()  # lm-eval knows one token of it
            answer = tuple(continuation[: self.max_length])
            ids = (*context, *answer)[-(self.max_length + 1) :]  # the last of them is predicted, not read
            pairs.append((ids[: -len(answer)], answer))
            if len(context) + len(continuation) > len(ids):
                self.cut.add(texts[0])
        results = score(self.lm, pairs, self.kept_blocks, self.next_call())
        for (texts, given, continuation), scores in zip(requests, results, strict=True):
            self._remember(texts, scores, self._n_moved(texts[0], given, continuation))
        return [(sum(scores.log_p), scores.argmax_ids == pair[1]) for scores, pair in zip(results, pairs, strict=True)]

    def _remember(self, texts: tuple[str, str], scores: TokenScores, n_moved: int = 0) -> None:
        self._mean_nll[texts] = TokenScores(scores.log_p[n_moved:], scores.argmax_ids[n_moved:]).nll

    def _n_moved(self, context: str, given: Sequence[int], continuation: Sequence[int]) -> int:
        """Returns how many tokens at a continuation's begin are white space of the context alone.

        lm-eval moves what white space a context ends in, such as the line feed of a chat's template, to the answer.
        """
        if context == context.rstrip():
            return 0
        ids = self.tok_encode(context)
        n = len(ids) - len(given)
        return n if 0 < n < len(continuation) and ids == [*given, *continuation[:n]] else 0

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        totals, (*before, prefix) = [], self.lm.tokens.opening_ids()
        for request in requests:
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = get_rolling_token_windows(
                ids, prefix_token=prefix, max_seq_len=self.max_length - len(before), context_len=1
            )
            pairs = [(tuple(c), tuple(t)) for c, t in map(make_disjoint_window, windows)]
            pairs[:1] = [((*before, *context), text) for context, text in pairs[:1]]
            results = score(self.lm, pairs, self.kept_blocks, self.next_call())
            totals.append(sum(sum(scores.log_p) for scores in results))
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:
        indices_by_rule: dict[tuple[tuple[str, ...], int, str], list[int]] = {}
        for index, request in enumerate(requests):
            indices_by_rule.setdefault(self._stopping_rule(request), []).append(index)
        answers: dict[int, str] = {}
        for rule, indices in indices_by_rule.items():
            texts = self._generate([requests[i] for i in indices], *rule)
            answers.update(zip(indices, texts, strict=True))
        return [answers[i] for i in range(len(requests))]

    def _stopping_rule(self, request: Instance) -> tuple[tuple[str, ...], int, str]:
        """Returns the texts at which an answer ends, its greatest number of tokens, and its `eos_text`."""
        rule: Any = normalize_gen_kwargs(dict(request.args[1]), MAX_NEW_TOKENS)
        for key in sorted(rule.keys() - HEEDED):
            if key not in GREEDY or rule[key] != GREEDY[key]:
                raise BadInput(f"task={request.task_name} asks for answers with {key}: {rule[key]}; answers are "
                               f"greedy: take {key} out of its generation_kwargs")  # fmt: skip
        end_id = self.tokenizer.eos_token_id  # without one an answer ends by the task's own texts alone
        end = None if end_id is None else self.tokenizer.decode([end_id])
        stop_texts = handle_stop_sequences(list(rule["until"]), eos=end)
        # at most half of what the model reads, so that the question has the other half
        return tuple(stop_texts), min(rule["max_gen_toks"], self.max_length // 2), rule.get("eos_text", "")

    def _generate(
        self, requests: Sequence[Instance], stop_texts: tuple[str, ...], n_tokens: int, eos_text: str
    ) -> list[str]:
        """Returns the answers to requests with one stopping rule; `eos_text` stands where the model ended one itself.

        A gold answer is scored in the same pass where it reads the same context; elsewhere the context was cut.
        """
        contexts = [self._fitting(request.args[0], self.max_length - n_tokens) for request in requests]
        continuations: dict[Ids, dict[Ids, None]] = {}
        gold: dict[tuple[str, str], tuple[Ids, Ids]] = {}  # texts of context and answer: their ids
        for request, context in zip(requests, contexts, strict=True):
            to_score = continuations.setdefault(context, {})
            answer = self.gold_answer(request)
            if answer is not None:
                given, rest = self._encode_pair(request.args[0], answer)
                n_moved = self._n_moved(request.args[0], given, rest)
                before, continuation = (*given, *rest[:n_moved]), tuple(rest[n_moved:])
                if before == context and len(before) + len(continuation) <= self.max_length + 1:
                    to_score[continuation] = None
                    gold[request.args[0], answer] = context, continuation

        def is_complete(ids: list[int]) -> bool:
            text = self.tokenizer.decode(ids)
            return ids[-1] in self.lm.tokens.end_ids or any(stop in text for stop in stop_texts)

        scores, ids = score_and_generate(
            self.lm, continuations, n_tokens, is_complete, self.kept_blocks, self.next_call()
        )
        for texts, pair in gold.items():
            self._remember(texts, scores[pair])
        answers = []
        for request, context in zip(requests, contexts, strict=True):
            if not is_complete(ids[context]):
                self.ran_out.add(request.args[0])
            text = self._continued(context, ids[context])
            for stop in stop_texts:
                text = text.split(stop)[0]
            answers.append(text + eos_text * (ids[context][-1] in self.lm.tokens.end_ids))
        return answers

    def _continued(self, context: Ids, ids: list[int]) -> str:
        """Returns the text of `ids` after a context; at a text's begin, Llama 2's tokenizer would drop its space."""
        before, whole = (self.tokenizer.decode([*context[-1:], *new], skip_special_tokens=True) for new in ([], ids))
        if whole.startswith(before):
            return whole[len(before) :]
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _fitting(self, context: str, n_tokens: int) -> Ids:
        """Returns the last `n_tokens` ids of a context."""
        ids = self.tok_encode(context)
        if len(ids) > n_tokens:
            self.cut.add(context)
        return tuple(ids[-n_tokens:])

"""Our LM behind lm-eval: answers its requests, with lm-eval's own tokenisation and stopping rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from afteredit.evaluate.inference.batches import Ids
from afteredit.evaluate.inference.generation import score_and_generate
from afteredit.evaluate.inference.kept_blocks import BaseBlocks
from afteredit.evaluate.inference.likelihood import Scored, score
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput

MAX_NEW_TOKENS = 256  # lm-eval's own default where a task names none


class HarnessLM(TemplateLM):
    """`scored` keeps, of the last call, the summed log p and the number of tokens of every (context, continuation).

    `gold`: the answer wanted to a request to generate; scored in the pass that generates, as if asked for.
    """

    def __init__(self, lm: LM, base: BaseBlocks | None = None):
        super().__init__()
        self.lm, self.base = lm, base
        self.tokenizer = lm.tokenizer
        self.scored: dict[tuple[str, str], tuple[float, int]] = {}
        self.gold: Callable[[Instance], str | None] = lambda _request: None
        self._encode_pair = lru_cache(maxsize=None)(super()._encode_pair)

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        return self.lm.tokens.start_ids[0] if self.lm.tokens.start_ids else self.eot_token_id

    @property
    def max_length(self) -> int:
        return getattr(self.lm.model.config, "max_position_embeddings", 2048)

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            chat_history, tokenize=False, add_generation_prompt=add_generation_prompt
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Our start token is the only special token ever added."""
        ids = self.lm.tokens.encode(string)
        return list(ids[len(self.lm.tokens.start_ids) :] if add_special_tokens is False else ids)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(list(requests), disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs: list[tuple[Ids, Ids]] = []
        for _texts, context, continuation in requests:
            kept = (*context, *continuation)[-(self.max_length + 1) :]  # as lm-eval: cut on the left
            pairs.append((kept[: -len(continuation)], tuple(continuation)))
        results = score(self.lm, pairs, self.base)
        for (texts, *_ids), scored in zip(requests, results, strict=True):
            self._keep(texts, scored)
        return [(sum(scored.log_p), scored.said == pair[1]) for scored, pair in zip(results, pairs, strict=True)]

    def _keep(self, texts: tuple[str, str], scored: Scored) -> None:
        self.scored[texts] = (sum(scored.log_p), len(scored.log_p))

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        totals = []
        for request in requests:
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = get_rolling_token_windows(
                ids, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            pairs = [(tuple(c), tuple(t)) for c, t in map(make_disjoint_window, windows)]
            totals.append(sum(sum(scored.log_p) for scored in score(self.lm, pairs, self.base)))
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:
        by_rule: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for index, request in enumerate(requests):
            rule: Any = normalize_gen_kwargs(dict(request.args[1]), MAX_NEW_TOKENS)
            if rule.get("do_sample"):
                raise BadInput(f"task={request.task_name} asks for sampled answers (do_sample); only greedy generation "
                               "is supported; set do_sample: false in its generation_kwargs")  # fmt: skip
            if rule["max_gen_toks"] >= self.max_length:
                raise BadInput(f"task={request.task_name}: max_gen_toks={rule['max_gen_toks']} leaves no room for the "
                               f"question: the model reads {self.max_length} tokens in all; set it below that in the "
                               "task's generation_kwargs")  # fmt: skip
            until = handle_stop_sequences(list(rule["until"]), eos=self.tokenizer.decode([self.eot_token_id]))
            by_rule.setdefault((tuple(until), rule["max_gen_toks"]), []).append(index)
        answers: dict[int, str] = {}
        for (until, n_tokens), indices in by_rule.items():
            texts = self._generate([requests[i] for i in indices], until, n_tokens)
            answers.update(zip(indices, texts, strict=True))
        return [answers[i] for i in range(len(requests))]

    def _generate(self, requests: Sequence[Instance], until: tuple[str, ...], n_tokens: int) -> list[str]:
        """Of requests with one stopping rule; their gold answers are scored on the way where both read one context."""
        contexts = [tuple(self.tok_encode(request.args[0]))[-(self.max_length - n_tokens) :] for request in requests]
        wanted: dict[Ids, dict[Ids, None]] = {}
        gold: dict[tuple[str, str], tuple[Ids, Ids]] = {}
        for request, context in zip(requests, contexts, strict=True):
            own = wanted.setdefault(context, {})
            answer = self.gold(request)
            if answer is not None:
                before, continuation = map(tuple, self._encode_pair(request.args[0], answer))
                if before == context and len(before) + len(continuation) <= self.max_length + 1:
                    own[continuation] = None
                    gold[request.args[0], answer] = context, continuation

        def done(ids: list[int]) -> bool:
            text = self.tokenizer.decode(ids)
            return any(stop in text for stop in until)

        scores, ids = score_and_generate(self.lm, wanted, n_tokens, done, self.base)
        for texts, pair in gold.items():
            self._keep(texts, scores[pair])
        answers = []
        for context in contexts:
            text = self.tokenizer.decode(ids[context], skip_special_tokens=True)
            for stop in until:
                text = text.split(stop)[0]
            answers.append(text)
        return answers

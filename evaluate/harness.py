"""Our LM behind lm-eval: answers its requests, with lm-eval's own tokenisation and stopping rules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from afteredit.edit.lm import LM
from afteredit.evaluate.generation import generate
from afteredit.evaluate.likelihood import score

MAX_NEW_TOKENS = 256  # lm-eval's own default where a task names none


class HarnessLM(TemplateLM):
    """`scored` keeps, of the last call, the summed log p and the number of tokens of every (context, continuation)."""

    def __init__(self, lm: LM):
        super().__init__()
        self.lm = lm
        self.tokenizer = lm.tokenizer
        self.scored: dict[tuple[str, str], tuple[float, int]] = {}
        self._encode_pair = lru_cache(maxsize=None)(super()._encode_pair)

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        return self.lm.start_ids[0] if self.lm.start_ids else self.eot_token_id

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
        ids = self.lm.encode(string)
        return list(ids[len(self.lm.start_ids) :] if add_special_tokens is False else ids)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(list(requests), disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = []
        for _texts, context, continuation in requests:
            kept = (*context, *continuation)[-(self.max_length + 1) :]  # as lm-eval: cut on the left
            pairs.append((kept[: -len(continuation)], tuple(continuation)))
        results = score(self.lm, pairs)
        answers = []
        for (texts, _context, continuation), scored in zip(requests, results, strict=True):
            total = sum(scored.log_p)
            self.scored[texts] = (total, len(continuation))
            answers.append((total, scored.said == tuple(continuation)))
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        totals = []
        for request in requests:
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = get_rolling_token_windows(
                ids, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            pairs = [(tuple(c), tuple(t)) for c, t in map(make_disjoint_window, windows)]
            totals.append(sum(sum(scored.log_p) for scored in score(self.lm, pairs)))
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:
        answers: dict[int, str] = {}
        by_rule: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for index, request in enumerate(requests):
            rule: Any = normalize_gen_kwargs(dict(request.args[1]), MAX_NEW_TOKENS)
            if rule.get("do_sample"):
                raise ValueError("a task asks for sampled answers (do_sample); only greedy generation is supported")
            until = handle_stop_sequences(list(rule["until"]), eos=self.tokenizer.decode([self.eot_token_id]))
            by_rule.setdefault((tuple(until), rule["max_gen_toks"]), []).append(index)
        for (until, n_tokens), indices in by_rule.items():
            contexts = [tuple(self.tok_encode(requests[i].args[0]))[-(self.max_length - n_tokens) :] for i in indices]

            def done(ids: list[int], until: tuple[str, ...] = until) -> bool:
                text = self.tokenizer.decode(ids)
                return any(stop in text for stop in until)

            for index, ids in zip(indices, generate(self.lm, contexts, n_tokens, done), strict=True):
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                for stop in until:
                    text = text.split(stop)[0]
                answers[index] = text
        return [answers[i] for i in range(len(requests))]

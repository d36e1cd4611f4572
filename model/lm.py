"""LM: a model, its tokenizer and its anatomy.  The only place that knows who stores a matrix transposed.

Shapes, everywhere in this project: B rows, T tokens, P tokens of a shared prefix, D residual width, F MLP inner width,
V vocabulary, E edits, N sampled tokens.  Tensors end in their dimensions: `key_F`, `W_DF`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from afteredit.model.anatomy import find_anatomy, is_transposed, matrix_shape
from afteredit.model.loading.fingerprint import fingerprint
from afteredit.model.whole_rows import continues, forward_whole
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)


class Change(Protocol):
    """A change to one matrix W (D, F) that `LM.add` can add."""

    def dense(self, device: torch.device | str = "cpu") -> Tensor:
        """(D, F) float64, the same bits on every device."""


View = Callable[[Tensor, Tensor], Tensor]  # (W0, W) -> the matrix seen in the place of W, all (D, F)


class LM:
    """Parameters are frozen: an edit is applied by `apply`, undone by `restore`, and nothing else changes a weight."""

    def __init__(self, model: Any, tokenizer: Any, *, start_token: str | None = None, prompt: str = "plain"):
        """`start_token` is put in front of every text; None for models trained without one."""
        if not tokenizer.is_fast:
            raise BadInput(f"{type(tokenizer).__name__} is a slow tokenizer; subjects are located by the offsets that "
                           "only fast tokenizers give; install or convert to a fast one")  # fmt: skip
        if prompt == "chat" and not tokenizer.chat_template:
            raise BadInput("model.prompt=chat, but the tokenizer has no chat template; use model.prompt=plain")
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.anatomy = find_anatomy(model)
        self.prompt = prompt
        self.start_ids = [] if start_token is None else [self._token_id(start_token)]
        self.base: dict[str, Tensor] = {}  # W0 of every matrix an edit has touched, (D, F)
        self._masters: dict[str, Tensor] = {}  # float32 copies of edited matrices that the model holds in less
        self.encode = lru_cache(maxsize=None)(self._encode)  # the same prompts come back at every checkpoint
        self.answer_ids = lru_cache(maxsize=None)(self._answer_ids)
        self._said: set[str] = set()
        self._straight: dict[int, bool] = {}
        self._check_head()
        # Can rows be read on behind cached keys and values?  Where not, each is run whole and alone, at every step.
        self.reads_on_from_cache = self.device.type == "meta" or continues(self)
        if not self.reads_on_from_cache:
            self.log_once("it cannot be read on behind cached keys and values: every row is run whole and alone")
        self.fingerprint = fingerprint(model, tokenizer, self.start_ids, prompt)

    @property
    def tokens(self) -> LM:
        return self

    @property
    def weights(self) -> LM:
        return self

    @property
    def capabilities(self) -> LM:
        return self

    # ---- text

    def _token_id(self, token: str) -> int:
        token_id = self.tokenizer.get_vocab().get(token)
        if token_id is None:
            known = sorted(token.content for token in self.tokenizer.added_tokens_decoder.values())[:20]
            raise BadInput(f"model.start_token={token!r} is no token of this tokenizer; special tokens it has: {known}")
        return token_id

    def _encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, start token in front.  Ids that the tokenizer itself would add are left out."""
        return tuple(self._started(self.tokenizer(text, add_special_tokens=False).input_ids))

    def _started(self, ids: list[int]) -> list[int]:
        """The start token once: some chat templates write it themselves."""
        return ids if ids[: len(self.start_ids)] == self.start_ids else [*self.start_ids, *ids]

    def in_prompt_mode(self, question: str) -> tuple[str, int]:
        """The text that asks `question` (itself, or a chat turn), and where in it the question starts."""
        if self.prompt == "plain":
            return question, 0
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        if question not in text:
            raise BadInput(f"the chat template changes the prompt {question!r}; use model.prompt=plain for it")
        return text, text.rindex(question)

    def question_ids(self, question: str) -> tuple[int, ...]:
        """Token ids of `question` in this model's prompt mode."""
        return self.encode(self.in_prompt_mode(question)[0])

    def locate(self, question: str, start: int, length: int) -> tuple[list[int], int]:
        """Ids of `question` in prompt mode, and `subject_last`: the index of the last token that overlaps the
        subject, characters [start, start + length) of the question."""
        text, shift = self.in_prompt_mode(question)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        begin, end = start + shift, start + shift + length
        overlapping = [i for i, (a, b) in enumerate(encoded.offset_mapping) if a < end and b > begin and b > a]
        if not overlapping:
            raise BadInput(f"the subject {text[begin:end]!r} is covered by no token of {text!r}")
        ids = self._started(encoded.input_ids)
        return ids, overlapping[-1] + len(ids) - len(encoded.input_ids)

    def _answer_ids(self, answer: str) -> tuple[int, ...]:
        """Ids of an answer as it continues a prompt: with its blank in front in plain mode.

        Read off behind a letter, since SentencePiece marks the blank on the word, and only there.  Raises BadInput
        where the tokenizer merges across that border.
        """
        if self.prompt == "chat":
            return tuple(self.tokenizer(answer.strip(), add_special_tokens=False).input_ids)
        anchor = tuple(self.tokenizer("x", add_special_tokens=False).input_ids)
        whole = tuple(self.tokenizer(f"x {answer.strip()}", add_special_tokens=False).input_ids)
        if whole[: len(anchor)] != anchor or len(whole) == len(anchor):
            raise BadInput(f"the answer {answer!r} cannot be told apart from the text before it by this tokenizer")
        return whole[len(anchor) :]

    # ---- running the model

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def head_device(self) -> torch.device:
        """Where logits are: another device than `device` where the model is sharded."""
        device: torch.device = self.model.get_output_embeddings().weight.device
        return device

    @property
    def n_blocks(self) -> int:
        return len(self.anatomy.blocks)

    def forward(self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache | None = None, past: int = 0) -> Tensor:
        """Normalised hidden states (B, T, D) of the last T columns of `mask`, whose first `past` are in `cache`.

        Positions are counted by the mask, so padding may stand on either side.  A cache given is extended.
        """
        if cache is not None and not self.reads_on_from_cache:
            return forward_whole(self, ids_BT, mask_BT, cache)
        return self.run_decoder(ids_BT, mask_BT, cache, past)

    def run_decoder(self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache | None = None, past: int = 0) -> Tensor:
        """`forward`, of any model."""
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)[:, past:]
        output = self.anatomy.decoder(
            input_ids=ids_BT.to(self.device),
            attention_mask=mask_BT.to(self.device),
            position_ids=positions_BT.to(self.device),
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state

    def forward_from(
        self, block: int, hidden_BTD: Tensor, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache | None, past: int
    ) -> Tensor:
        """`forward`, given the hidden states that enter `block`: those below it do not run and extend no cache."""
        with self.not_run(self.anatomy.blocks[:block], hidden_BTD):
            return self.forward(ids_BT, mask_BT, cache, past)

    @contextmanager
    def not_run(self, blocks: Iterable[nn.Module], hidden_BTD: Tensor | None = None) -> Iterator[None]:
        """Inside, these blocks do not run: each answers by `hidden_BTD`, or where that is None by what enters it."""
        in_tuples = self._answers_in_tuples

        def answer(entering_BTD: Tensor, *_args: Any, **_kwargs: Any) -> Any:
            output_BTD = entering_BTD if hidden_BTD is None else hidden_BTD
            return (output_BTD,) if in_tuples else output_BTD

        with ExitStack() as stack:
            for block in blocks:
                stack.enter_context(answering_by(block, answer))
            yield

    @cached_property
    @torch.no_grad()
    def _answers_in_tuples(self) -> bool:
        """Do the blocks return tuples, as older ones do?"""
        seen: list[Any] = []
        hook = self.anatomy.blocks[0].register_forward_hook(lambda _m, _i, out: seen.append(out))
        ids_BT = torch.tensor([[1]])
        self.forward(ids_BT, torch.ones_like(ids_BT))
        hook.remove()
        return isinstance(seen[0], tuple)

    def logits(self, hidden: Tensor) -> Tensor:
        """The model's own head, at least float32: (…, V) from normalised hidden states (…, D)."""
        logits = wide(self.model.get_output_embeddings()(hidden))
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return cap * torch.tanh(logits / cap) if cap else logits

    @torch.no_grad()
    def _check_head(self) -> None:
        """`logits(final_norm(last block))` must be what the model itself answers: some heads do more."""
        if self.device.type == "meta":
            return
        ids_BT = torch.tensor([[1, 2, 3]], device=self.device)
        seen: list[Tensor] = []
        hook = self.anatomy.blocks[-1].register_forward_hook(lambda _m, _i, out: seen.append(first(out)))
        expected = wide(self.model(input_ids=ids_BT, use_cache=False).logits)
        hook.remove()
        ours = self.logits(self.anatomy.final_norm(seen[0]))
        if not torch.allclose(ours, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
            raise BadInput(f"{type(self.model).__name__}: its head does more than final norm, matrix and soft cap; "
                           "this architecture is not supported")  # fmt: skip

    @torch.no_grad()
    def mlp_joins_stream(self, layer: int) -> bool:
        """Does the MLP's output join the residual stream as it is?  (Gemma 2 normalises it on the way.)  Asked once."""
        if layer in self._straight:
            return self._straight[layer]
        ids_BT = torch.tensor([[1, 2, 3]])
        streams: list[Tensor] = []
        hook = self.anatomy.blocks[layer].register_forward_hook(lambda _m, _i, out: streams.append(first(out)))
        self.forward(ids_BT, torch.ones_like(ids_BT))
        step = float(streams[0].abs().max())
        adding = self.mlp_out(layer).register_forward_hook(lambda _m, _i, out: out + step)
        self.forward(ids_BT, torch.ones_like(ids_BT))
        hook.remove()
        adding.remove()
        self._straight[layer] = bool((streams[1] - streams[0] - step).abs().max() < 0.05 * step)
        return self._straight[layer]

    def may_pad(self, columns: int) -> bool:
        """May padding stand between the tokens of rows that grow to so many columns?

        Not where attention looks back over a window that is shorter, since windows are counted in columns, padding too;
        the log then says so once."""
        config = self.model.config.get_text_config()
        windows = [getattr(config, name, None) for name in ("sliding_window", "window_size")]
        if all(window is None or window >= columns for window in windows):
            return True
        self.log_once("its attention looks back over a window that is shorter than rows here can grow: only rows of "
                      "one length are read together")  # fmt: skip
        return False

    def log_once(self, message: str) -> None:
        """Logs that this model does not take a shortcut, the first time that it is said."""
        if message not in self._said:
            self._said.add(message)
            log.info("%s: %s", type(self.model).__name__, message)

    # ---- weights

    def mlp_out(self, layer: int) -> nn.Module:
        if not 0 <= layer < self.n_blocks:
            raise BadInput(f"layer {layer} is given, but the model has blocks 0..{self.n_blocks - 1}; set the layer of "
                           "the method (method.layer) or of this model's file (model.edit)")  # fmt: skip
        return self.anatomy.mlp_outs[layer]

    def mlp_out_name(self, layer: int) -> str:
        self.mlp_out(layer)
        return self.anatomy.mlp_out_names[layer]

    def widths(self, layer: int) -> tuple[int, int]:
        """(D, F) of the block's MLP output matrix."""
        return matrix_shape(self.mlp_out(layer))

    def W(self, name: str) -> Tensor:
        """The matrix as (D, F), at least float32: a view of the parameter, or of its float32 master."""
        if name in self._masters:
            return self._masters[name]
        module = self.model.get_submodule(name.removesuffix(".weight"))
        weight: Tensor = module.weight
        W = weight.T if is_transposed(module) else weight
        return wide(W)

    def keep_base(self, names: Iterable[str]) -> None:
        """Remembers these matrices as unedited, so that hashes and drift speak of them from the start."""
        for name in names:
            self.base.setdefault(name, self.W(name).clone())

    def W_base(self, name: str) -> Tensor:
        """W as it was before any edit."""
        return self.base.get(name, self.W(name))

    def is_unedited(self) -> bool:
        """Is every matrix that was touched back at W0, to the bit?"""
        return all(torch.equal(self.W(name), base_DF) for name, base_DF in self.base.items())

    @torch.no_grad()
    def add(self, changes: Mapping[str, Change]) -> None:
        """W ← W + change, added in float64 and rounded once, so that replay gives the same bits."""
        for name, change in changes.items():
            W_DF = self.W(name)
            self.base.setdefault(name, W_DF.clone())
            self._write(name, (W_DF.double() + change.dense(W_DF.device)).to(W_DF.dtype))

    @torch.no_grad()
    def restore(self) -> None:
        """Back to the unedited weights, bit for bit."""
        for name, W_DF in self.base.items():
            self._write(name, W_DF.clone())

    def copies(self) -> dict[str, Tensor]:
        """Copies of the edited matrices as they are now, for `put_back`."""
        return {name: self.W(name).clone() for name in self.base}

    @torch.no_grad()
    def put_back(self, weights: dict[str, Tensor]) -> None:
        for name, W_DF in weights.items():
            self._write(name, W_DF)

    @contextmanager
    def undone(self, layers: Iterable[int]) -> Iterator[None]:
        """What is applied to these blocks inside is undone at the end, to the bit, and leaves no trace."""
        base, masters = dict(self.base), dict(self._masters)
        weights = {name: self.W(name).clone() for name in map(self.mlp_out_name, layers)}
        try:
            yield
        finally:
            self.put_back(weights)
            self.base, self._masters = base, masters

    @contextmanager
    def seen_through(self, view: View) -> Iterator[None]:
        """Inside, every edited matrix is `view(W0, W)`; behind it, the raw W again, to the bit."""
        seen, raw = {}, {}
        for name, base_DF in self.base.items():
            W_DF = self.W(name)
            seen_DF = view(base_DF, W_DF)
            if seen_DF is not W_DF:
                seen[name], raw[name] = seen_DF, W_DF.clone()
        self.put_back(seen)
        try:
            yield
        finally:
            self.put_back(raw)

    def _write(self, name: str, W_DF: Tensor) -> None:
        module = self.model.get_submodule(name.removesuffix(".weight"))
        if module.weight.dtype != W_DF.dtype:
            self._masters[name] = W_DF
        module.weight.copy_(W_DF.T if is_transposed(module) else W_DF)

    def sha256(self) -> str:
        """Of the edited matrices, in the order of their names."""
        digest = hashlib.sha256()
        for name in sorted(self.base):
            digest.update(name.encode())
            digest.update(self.W(name).contiguous().cpu().numpy().data)
        return digest.hexdigest()


def wide(values: Tensor) -> Tensor:
    """At least float32."""
    return values if values.dtype == torch.float64 else values.float()


def first(output: Any) -> Tensor:
    """A block's hidden states: newer transformers return the tensor, older ones a tuple."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def answering_by(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Inside, the module answers by `function` in place of its own forward; hooks stay."""
    own = module.__dict__.get("forward")  # there where something has wrapped this one module
    module.forward = function
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def pad(rows: Sequence[Sequence[int]], side: str) -> tuple[Tensor, Tensor]:
    """(B, T) ids and mask (1 = token) of rows padded on the `side`.  The padding id is never looked at."""
    width = max(len(row) for row in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids_BT[i, at] = torch.tensor(row, dtype=torch.long)
        mask_BT[i, at] = 1
    return ids_BT, mask_BT

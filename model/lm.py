"""LM: a language model as editing and measuring need it: its text, its weights, what it allows, and how it is run.

Shapes, everywhere in this project: B rows, T tokens, P tokens of a shared prefix, D residual width, F MLP inner width,
V vocabulary, E edits, N sampled tokens.  Tensors end in their dimensions: `key_F`, `W_DF`.
"""

from __future__ import annotations

from contextlib import ExitStack
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from afteredit.model.anatomy import find_anatomy
from afteredit.model.capabilities import Capabilities, check_parts, rope_limit
from afteredit.model.hooks import answering_by
from afteredit.model.loading.chat_template import CHAT_DATE
from afteredit.model.loading.fingerprint import fingerprint_parts
from afteredit.model.loading.model_folder import LENGTH_KEYS
from afteredit.model.loading.special_tokens import end_ids
from afteredit.model.row_by_row import forward_row_by_row
from afteredit.model.tensors import wide
from afteredit.model.tokens import Tokens
from afteredit.model.weights import Weights, matrix_shape
from afteredit.store.errors import BadInput
from afteredit.store.user_cache import content_hash


class LM:
    """Composes a model's tokens, anatomy, weights and capabilities, and runs it.

    Parameters are frozen: only the methods of `weights` change one.
    """

    def __init__(self, model: Any, tokenizer: Any, *, start_token: str | None = None, prompt: str = "plain",
                 separator: str = "auto", chat_date: str = CHAT_DATE, stored_as: str | None = None):  # fmt: skip
        """Takes a Hugging Face decoder and its fast tokenizer.

        `start_token` is put in front of every text; it is None for models trained without one, and "auto" takes what
        the tokenizer itself puts there.  `prompt` is "plain" or "chat"; `separator` says what stands between prompt and
        answer: "auto", "space" or "none"; `chat_date` is the day that a chat template is told; `stored_as` says, in
        words, how a GGUF file held the weights.  Raises BadInput, naming the architecture, where the model does not
        fit.
        """
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.stored_as = tokenizer, stored_as
        n_rows = len(model.get_input_embeddings().weight)
        self.tokens = Tokens(tokenizer, start_token, prompt, separator, chat_date, n_rows, end_ids(model))
        self.anatomy = find_anatomy(model)
        named = signature(self.anatomy.decoder.forward).parameters
        self._cache_key = "cache" if "cache" in named else "past_key_values"  # which ends with transformers 5.40
        self.weights = Weights(model)
        self.rope_limit = rope_limit(model.config.get_text_config())
        check_parts(model, self.anatomy, self.run_decoder, self.logits)
        self.capabilities = Capabilities(model, self.anatomy, self.run_decoder)
        if self.rope_limit is not None:
            self.capabilities.log_once(f"its rope changes with the length of a row: {self.max_tokens} tokens are read, "
                                       "the length up to which it is one")  # fmt: skip
        self.fingerprint_parts = fingerprint_parts(model, self.tokens)
        self.fingerprint = content_hash(self.fingerprint_parts)

    @property
    def device(self) -> torch.device:
        """The device of the input embeddings, where token ids go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    @property
    def head_device(self) -> torch.device:
        """The device of the logits: another one than `device` where the model is sharded."""
        device: torch.device = self.model.get_output_embeddings().weight.device
        return device

    @property
    def max_tokens(self) -> int | None:
        """The most tokens that the model reads in one row, as its config says; None where the config does not say.

        Where a longer row would change the positions of all rows beside it (`rope_limit`), no more than that.
        """
        config = self.model.config.get_text_config()
        lengths = (getattr(config, name, None) for name in LENGTH_KEYS)
        length = next((length for length in lengths if isinstance(length, int) and length > 0), None)
        return min(filter(None, (length, self.rope_limit)), default=None)

    @property
    def n_blocks(self) -> int:
        """The number of transformer blocks."""
        return len(self.anatomy.blocks)

    def mlp_out(self, layer: int) -> nn.Module:
        """Returns the module of a block's MLP output matrix.  Raises BadInput where there is no such block."""
        return self.anatomy.mlp_out(layer)

    def mlp_out_name(self, layer: int) -> str:
        """Returns the parameter name of a block's MLP output matrix.  Raises BadInput where there is no such block."""
        return self.anatomy.mlp_out_name(layer)

    def widths(self, layer: int) -> tuple[int, int]:
        """Returns (D, F) of the block's MLP output matrix."""
        return matrix_shape(self.mlp_out(layer))

    def forward(self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache | None = None, n_cached: int = 0) -> Tensor:
        """Returns normalised hidden states (B, T, D) of the last T columns of `mask`; `cache` holds the `n_cached`
        columns before them.

        Positions are counted by the mask, so padding may stand on either side.  A given cache is extended.
        """
        if cache is not None and not self.capabilities.reads_on_from_cache:
            return forward_row_by_row(self.run_decoder, ids_BT, mask_BT, cache)
        return self.run_decoder(ids_BT, mask_BT, cache, n_cached)

    def run_decoder(
        self, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache | None = None, n_cached: int = 0
    ) -> Tensor:
        """Does what `forward` does, for models that can be continued from cached keys and values."""
        if self.rope_limit is not None and int(mask_BT.sum(-1).max()) > self.rope_limit:
            raise BadInput(f"a row of {int(mask_BT.sum(-1).max())} tokens; {type(self.model).__name__} is read up to "
                           f"{self.rope_limit}: a longer row changes the positions of those read beside it, and of "
                           "what was read before")  # fmt: skip
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)[:, n_cached:]
        output = self.anatomy.decoder(
            input_ids=ids_BT.to(self.device),
            attention_mask=mask_BT.to(self.device),
            position_ids=positions_BT.to(self.device),
            use_cache=cache is not None,
            **{self._cache_key: cache},
        )
        return output.last_hidden_state

    def forward_from(
        self, block: int, hidden_BTD: Tensor, ids_BT: Tensor, mask_BT: Tensor, cache: DynamicCache | None, n_cached: int
    ) -> Tensor:
        """Does what `forward` does, given the hidden states that enter `block`: the blocks below it do not run and
        extend no cache."""
        output = (hidden_BTD,) if self.capabilities.blocks_return_tuples else hidden_BTD
        with ExitStack() as stack:
            for below in self.anatomy.blocks[:block]:
                stack.enter_context(answering_by(below, lambda *_args, **_kwargs: output))
            return self.forward(ids_BT, mask_BT, cache, n_cached)

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns the logits (…, V), at least float32, from normalised hidden states (…, D).

        The model's own forward pass makes them, with these states in the place of its decoder's: some heads scale or
        cap, some do more.
        """
        hidden_N1D = hidden.reshape(-1, 1, hidden.shape[-1])
        ids_N1 = torch.zeros(hidden_N1D.shape[:2], dtype=torch.long, device=hidden.device)
        output = _Hidden(last_hidden_state=hidden_N1D)
        with answering_by(self.anatomy.decoder, lambda *_args, **_kwargs: output):
            logits_N1V = wide(self.model(input_ids=ids_N1, use_cache=False).logits)
        return logits_N1V.view(*hidden.shape[:-1], logits_N1V.shape[-1])


class _Hidden(BaseModelOutputWithPast):
    """Stands for any decoder's output: what else a model may hand on beside the hidden states is None."""

    def __getattr__(self, _name: str) -> None:
        return None

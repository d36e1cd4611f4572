"""What a model allows.  Each answer is found by running the model itself on a few tokens, once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from afteredit.model.anatomy import Anatomy
from afteredit.model.hooks import Before, hooked
from afteredit.model.tensors import first, nearly_equal, pad, wide
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)

RunDecoder = Callable[..., Tensor]  # (ids (B, T), mask, cache = None, cached columns = 0) -> hidden states (B, T, D)


class Capabilities:
    """Answers what may be done with one model, and logs once where it does not allow a shortcut.

    `reads_on_from_cache` says whether rows can be continued from cached keys and values; where they cannot, every row
    is run whole and alone, at every step.
    """

    def __init__(self, model: Any, anatomy: Anatomy, run: RunDecoder):
        self._model, self._anatomy, self._run = model, anatomy, run
        self._logged: set[str] = set()
        self._joins: dict[int, bool] = {}
        self._scales: dict[int, Tensor | None] = {}
        self._reruns: bool | None = None
        self.reads_on_from_cache = model.get_input_embeddings().weight.device.type == "meta" or continues(run)
        if not self.reads_on_from_cache:
            self.log_once("it cannot be continued from cached keys and values: every row is run whole and alone")

    def log_once(self, message: str) -> None:
        """Logs the message with the model's name, the first time only."""
        if message not in self._logged:
            self._logged.add(message)
            log.info("%s: %s", type(self._model).__name__, message)

    def may_pad(self, columns: int) -> bool:
        """Returns whether padding may stand between the tokens of rows that grow to so many columns.

        It may not where attention looks back over a window shorter than that, since a window counts columns, padding
        included.  The log then says so once.
        """
        config = self._model.config.get_text_config()
        windows = [getattr(config, name, None) for name in ("sliding_window", "window_size")]
        if all(window is None or window >= columns for window in windows):
            return True
        self.log_once("its attention looks back over a window that is shorter than rows here can grow: only rows of "
                      "one length are read together")  # fmt: skip
        return False

    def can_rerun(self, probe: Callable[[], bool]) -> bool:
        """Returns whether blocks can be run again on the tokens after a cached prefix alone.

        `probe` tries it (model/rerun.py) and is called at most once.
        """
        if self._reruns is None:
            self._reruns = self.reads_on_from_cache and probe()
            if self.reads_on_from_cache and not self._reruns:
                self.log_once("its blocks cannot be run again on the tokens after a cached prefix alone; every step of "
                              "an edit's optimisation runs all of them on whole rows")  # fmt: skip
        return self._reruns

    def mlp_joins_stream(self, layer: int) -> bool:
        """Returns whether the block's MLP output is added to the residual stream as it is.

        Gemma 2, for example, normalises it on the way.
        """
        if layer not in self._joins:
            self._joins[layer] = self._is_added(self._anatomy.mlp_out(layer), layer)
        return self._joins[layer]

    @torch.no_grad()
    def _is_added(self, module: nn.Module, layer: int) -> bool:
        """Returns whether what is added to the module's output is added to the stream after its block."""
        streams: list[Tensor] = []
        ids_BT = torch.tensor([[1, 2, 3]])
        with hooked({self._anatomy.blocks[layer]: lambda _m, _a, output: streams.append(first(output))}):
            self._run(ids_BT, torch.ones_like(ids_BT))
            step = float(streams[0].abs().max())
            with hooked({module: lambda _m, _a, output: output + step}):
                self._run(ids_BT, torch.ones_like(ids_BT))
        return bool((streams[1] - streams[0] - step).abs().max() < 0.05 * step)

    @torch.no_grad()
    def mlp_scale(self, layer: int) -> Tensor | None:
        """Returns g (D,), where the block adds g ∘ x / rms(x) of its MLP's output x to the residual stream, as in Gemma
        2 and 3; None where it adds x as it is.

        Raises BadInput where it adds something else.
        """
        if layer not in self._scales:
            self._scales[layer] = None if self.mlp_joins_stream(layer) else self._scale_of_norm(layer)
        return self._scales[layer]

    def _scale_of_norm(self, layer: int) -> Tensor:
        outputs: list[Tensor] = []
        norms: list[nn.Module] = []
        block, mlp_out = self._anatomy.blocks[layer], self._anatomy.mlp_out(layer)
        readers: dict[nn.Module, Before] = {
            module: lambda module, args, _k: norms.append(module) if outputs and args[0] is outputs[-1] else None
            for module in block.modules() if module not in (block, mlp_out)
        }  # fmt: skip
        ids_BT = torch.tensor([[1, 2, 3]])
        with hooked({mlp_out: lambda _m, _a, output: outputs.append(output)}, before=readers):
            self._run(ids_BT, torch.ones_like(ids_BT))
        if len(norms) == 1 and self._is_added(norms[0], layer):
            scale_D = norms[0](torch.ones_like(outputs[0][0, 0]))
            x_TD = outputs[0][0] / wide(outputs[0][0]).square().mean(-1, keepdim=True).sqrt()  # far above its epsilon
            if nearly_equal(wide(norms[0](x_TD.to(scale_D.dtype))), wide(scale_D) * x_TD):
                return scale_D
        raise BadInput(f"{type(self._model).__name__} changes the MLP's output of block {layer} before it joins the "
                       "residual stream, and by no RMS norm; MEMIT and its heirs are defined in terms of the stream; "
                       "use method=rome, ft or kn")  # fmt: skip

    @cached_property
    @torch.no_grad()
    def blocks_return_tuples(self) -> bool:
        """Whether the blocks return tuples, as older ones do."""
        outputs: list[Any] = []
        ids_BT = torch.tensor([[1]])
        with hooked({self._anatomy.blocks[0]: lambda _m, _a, output: outputs.append(output)}):
            self._run(ids_BT, torch.ones_like(ids_BT))
        return isinstance(outputs[0], tuple | list)


def rope_limit(config: Any) -> int | None:
    """Returns the length of rows up to which the rope turns every position by one angle; None where it always does.

    A longer row makes transformers turn all positions of its batch otherwise ("longrope", "dynamic"), and not those
    that stand in a cache: an answer would then depend on the rows beside it.
    """
    stored = getattr(config, "rope_parameters", None) or {}
    limits = []
    for rope in (stored, *stored.values()):  # one for all blocks, or one for each kind of block
        kind = rope.get("rope_type", "") if isinstance(rope, dict) else ""
        longest = getattr(config, "max_position_embeddings", None)
        if kind == "longrope":
            limits.append(rope.get("original_max_position_embeddings") or longest)
        elif "dynamic" in str(kind):
            limits.append(longest)
    return min(filter(None, limits), default=None)


@torch.no_grad()
def continues(run: RunDecoder) -> bool:
    """Returns whether rows continued from cached keys and values, beside padding, give what each row gives alone."""
    rows, cuts = [[1, 2, 3, 1], [3, 2, 1]], [2, 1]
    cache = DynamicCache()
    before_BP, before_mask_BP = pad([row[:cut] for row, cut in zip(rows, cuts, strict=True)], "right")
    after_BT, after_mask_BT = pad([row[cut:] for row, cut in zip(rows, cuts, strict=True)], "right")
    try:
        run(before_BP, before_mask_BP, cache)
        hidden_BTD = run(after_BT, torch.cat([before_mask_BP, after_mask_BT], dim=1), cache, before_BP.shape[1])
    except Exception as problem:  # whatever a model raises that keeps something else than keys and values
        log.debug("no cache of keys and values: %r", problem)
        return False
    return all(
        nearly_equal(hidden_TD, run(*pad([row], "right"))[0, cut:])
        for row, cut, hidden_TD in zip(rows, cuts, hidden_BTD, strict=True)
    )


@torch.no_grad()
def check_parts(model: Any, anatomy: Anatomy, run: RunDecoder, logits: Callable[[Tensor], Tensor]) -> None:
    """Raises BadInput where the decoder and head, run by us, do not answer as the model does, or where a token sees
    those after it.

    A model on the meta device has no answers and passes.
    """
    device, name = model.get_input_embeddings().weight.device, type(model).__name__
    if device.type == "meta":
        return
    ids_BT, last = torch.tensor([[1, 2, 3]]), []
    mask_BT = torch.ones_like(ids_BT)
    with hooked({anatomy.blocks[-1]: lambda _m, _a, output: last.append(first(output))}):
        output = model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device), use_cache=False)
        expected = wide(output.logits)
    try:
        hidden = run(ids_BT, mask_BT)
        ours = [logits(hidden).to(device), logits(anatomy.after_blocks(last[0])).to(device)]
        other = run(torch.tensor([[1, 2, 0]]), mask_BT)
    except Exception as problem:  # whatever a decoder of another kind raises
        raise BadInput(f"{name}: its decoder and head cannot be run one after the other ({type(problem).__name__}: "
                       f"{problem}); this architecture is not supported") from None  # fmt: skip
    atol = 1e-2 * float(expected.abs().max())
    if not all(each.shape == expected.shape and torch.allclose(each, expected, 1e-2, atol) for each in ours):
        raise BadInput(f"{name}: its answers are not those of its decoder followed by its head; this architecture is "
                       "not supported")  # fmt: skip
    if not nearly_equal(other[0, :2], hidden[0, :2]):
        raise BadInput(f"{name} reads the tokens on both sides (is_decoder is off in its config?); only models that "
                       "read from left to right can be edited here")  # fmt: skip

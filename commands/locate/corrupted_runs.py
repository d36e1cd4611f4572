"""Causal tracing of one fact (Meng et al., NeurIPS 2022, section 2.1 and appendix B).

The subject's token embeddings get Gaussian noise, in several draws; then one state of the clean run is put back into
the corrupted run: the hidden state after one block at one token, or the outputs of the MLP, or of attention, at one
token over a window of blocks around one.  The indirect effect is the probability of the answer with the state put back
minus that without, both averaged over the draws.

A state put back at token t of block l changes nothing below l and nothing before t (causality).  So the keys and values
of the tokens before t come from the corrupted run, and a state is put into the hidden states that entered its block
there: only the blocks from there on are run, on the tokens from t on.  All states of one token are put back in one run
up the blocks, in which each joins at its own.  A test holds the numbers against plain whole passes.  Before the subject
both runs are the same: effects are 0 there and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from afteredit.commands.locate.known_facts import KnownFact
from afteredit.model.anatomy import attention_outs
from afteredit.model.hooks import hooked
from afteredit.model.kv_cache import FrozenLayer, KeysValues, cache_of, keys_values
from afteredit.model.lm import LM
from afteredit.model.rerun import can_rerun
from afteredit.model.tensors import first, nearly_equal

States = dict[nn.Module, Tensor]  # by module its output (T, D) in the clean run
LOGIT_ROWS = 128  # rows of logits held at once
TOKENS_AT_ONCE = 8192  # tokens of all rows that are run together


@dataclass(frozen=True)
class Restored:
    """Names what is put back: the hidden state after block `layer`, or the outputs of the MLP or of attention in
    `blocks`, the window around block `layer`."""

    kind: str
    layer: int
    blocks: range

    @property
    def start(self) -> int:
        """Returns the lowest block that must be run."""
        return self.layer + 1 if self.kind == "hidden" else self.blocks.start


@dataclass(frozen=True)
class Effects:
    """Holds the answer's probability in the clean and in the corrupted run, and by kind the indirect effects (T, L) of
    tokens from the subject's first on, and blocks."""

    clean: float
    corrupted: float
    indirect: dict[str, list[list[float]]]


class CorruptedRuns:
    """Traces facts on one model, with windows of `window` blocks.

    `uncut` says that the model's blocks cannot be run alone: every state is then put back in whole passes.
    """

    def __init__(self, lm: LM, window: int):
        self.lm, self.n_blocks = lm, lm.n_blocks
        self.modules = {"hidden": lm.anatomy.blocks, "mlp": lm.anatomy.mlp_outs}
        attention = attention_outs(lm.model, lm.anatomy.blocks)
        if attention is not None:
            self.modules["attention"] = attention
        places = [Restored(kind, layer, window_around(layer, 1 if kind == "hidden" else window, self.n_blocks))
                  for kind in self.modules for layer in range(self.n_blocks)]  # fmt: skip
        self.places = sorted(places, key=lambda place: place.start)
        self.uncut = not (can_rerun(lm) and self._can_run_many_rows())

    @torch.no_grad()
    def effects(self, fact: KnownFact, noise_SsD: Tensor) -> Effects:
        """Returns the effects of one fact; `noise_SsD` is added to the embeddings of its subject's s tokens."""
        clean, states = self._clean(fact)
        corrupted = _Corrupted(self, fact, noise_SsD)
        without = self._probabilities(fact, corrupted.hidden_SD).mean()
        n_tokens, n_draws = len(fact.ids) - fact.first, len(noise_SsD)
        indirect = {kind: torch.zeros(n_tokens, self.n_blocks, dtype=torch.float64) for kind in self.modules}
        for t in range(fact.first, len(fact.ids)):
            n_read = len(fact.ids) - (0 if self.uncut else t)
            size = max(1, TOKENS_AT_ONCE // (n_draws * n_read))
            groups = [self.places[at : at + size] for at in range(0, len(self.places), size)]
            run = partial(corrupted.run_whole, t) if self.uncut else corrupted.from_token(t)
            p_N = torch.cat([self._probabilities(fact, run(group, states)) for group in groups])
            for place, p_S in zip(self.places, p_N.split(n_draws), strict=True):
                indirect[place.kind][t - fact.first, place.layer] = p_S.mean() - without
        return Effects(clean, float(without), {kind: effects.tolist() for kind, effects in indirect.items()})

    def _clean(self, fact: KnownFact) -> tuple[float, States]:
        """Returns the answer's probability, and by module its output (T, D), in the clean run."""
        states: States = {}

        def keep(module: nn.Module, _args: tuple, output: Any) -> None:
            states[module] = first(output)[0]

        with hooked({module: keep for modules in self.modules.values() for module in modules}):
            hidden_1D = self.forward(fact, 1)[:, -1]
        return self._probabilities(fact, hidden_1D).item(), states

    def forward(self, fact: KnownFact, n_rows: int, cache: DynamicCache | None = None, begin: int = 0) -> Tensor:
        """Returns normalised hidden states of the fact's tokens from `begin` on; `cache` holds those before."""
        ids_BT = torch.tensor(fact.ids[begin:]).expand(n_rows, -1)
        return self.lm.run_decoder(ids_BT, torch.ones(n_rows, len(fact.ids), dtype=torch.long), cache, begin)

    def _probabilities(self, fact: KnownFact, hidden_ND: Tensor) -> Tensor:
        """Returns the probability of the answer's first token, (N,) float64."""
        parts = [self.lm.logits(rows).log_softmax(-1)[:, fact.answer] for rows in hidden_ND.split(LOGIT_ROWS)]
        return torch.cat(parts).double().exp().cpu()

    @torch.no_grad()
    def _can_run_many_rows(self) -> bool:
        """Returns whether blocks that are called as for one row give many rows what a whole pass gives them.

        Blocks whose positions have a row for each head of each text (ALiBi) do not.
        """
        fact = KnownFact("", (1, 2, 3, 1), first=1, last=1, answer=0)
        corrupted = _Corrupted(self, fact, torch.ones(2, 1, self.lm.model.get_input_embeddings().weight.shape[1]))
        try:
            hidden_ND = corrupted.from_token(2)([Restored("none", 0, range(0))] * 2, {})
        except (RuntimeError, ValueError):  # of shapes that do not fit
            return False
        return nearly_equal(hidden_ND, corrupted.hidden_SD.repeat(2, 1))


class _Corrupted:
    """Holds the corrupted runs of one fact, S draws of noise: `hidden_SD` at its last token, the hidden states that
    enter each block, and the keys and values of each block."""

    def __init__(self, runs: CorruptedRuns, fact: KnownFact, noise_SsD: Tensor):
        self.runs, self.fact, self.noise_SsD = runs, fact, noise_SsD
        self.cache = DynamicCache() if runs.lm.capabilities.reads_on_from_cache else None
        self._inputs: list[Tensor] = []  # (S, T, D) by block, and last what leaves the highest block
        blocks = runs.lm.anatomy.blocks
        with (
            self._noisy(1),
            hooked({blocks[-1]: lambda _m, _a, output: self._inputs.append(first(output))},
                   before={block: lambda _m, args, _k: self._inputs.append(args[0]) for block in blocks}),
        ):  # fmt: skip
            self.hidden_SD = runs.forward(fact, len(noise_SsD), self.cache)[:, -1]

    @contextmanager
    def _noisy(self, n_times: int) -> Iterator[None]:
        """Adds the noise to the embeddings of the subject's tokens; rows are all draws, `n_times` after each other."""

        def add(_module: nn.Module, _args: tuple, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, self.fact.first : self.fact.last + 1] += self.noise_SsD.to(output).repeat(n_times, 1, 1)
            return output

        with hooked({self.runs.lm.model.get_input_embeddings(): add}):
            yield

    def run_whole(self, t: int, places: Sequence[Restored], states: States) -> Tensor:
        """Returns the normalised hidden states (N, D) of the last token, with the clean `states` put back at token t:
        those of `places[i]` in the i-th rows of all draws."""
        modules = [module for kind in self.runs.modules.values() for module in kind]
        with self._noisy(len(places)), hooked({module: self._putting_back(module, t, t, places, states)
                                               for module in modules}):  # fmt: skip
            return self.runs.forward(self.fact, len(places) * len(self.noise_SsD))[:, -1]

    def from_token(self, t: int) -> Callable[[Sequence[Restored], States], Tensor]:
        """Returns a function that does what `run_whole` does for places in order of their starts: each joins where it
        starts, and only tokens from t on are run."""
        lm, calls = self.runs.lm, {}
        blocks = lm.anatomy.blocks
        before = [(k[:, :, :t], v[:, :, :t]) for k, v in keys_values(self.cache)] if self.cache is not None else []
        cache = cache_of([(k[:1], v[:1]) for k, v in before], _Repeated) if t else None
        with hooked(before={block: lambda m, args, kwargs: calls.update({m: (args[1:], kwargs)}) for block in blocks}):
            self.runs.forward(self.fact, 1, cache, t)  # how blocks are called for one row, and so for any number
        for layer, (k, v) in zip(cast(list[_Repeated], cache.layers if cache else []), before, strict=False):
            layer.keys, layer.values = k, v

        def run(places: Sequence[Restored], states: States) -> Tensor:
            hidden_NTD = self._inputs[0][:0, t:]
            for index in range(places[0].start, len(blocks) + 1):
                joining = [place for place in places if place.start == index]
                hidden_NTD = torch.cat([hidden_NTD, self._inputs[index][:, t:].repeat(len(joining), 1, 1)])
                running = places[: len(hidden_NTD) // len(self.noise_SsD)]
                if index:
                    put_back = self._putting_back(blocks[index - 1], t, 0, running, states)
                    hidden_NTD = put_back(blocks[index - 1], (), hidden_NTD)
                if index < len(blocks):
                    kinds = [kind[index] for name, kind in self.runs.modules.items() if name != "hidden"]
                    args, kwargs = calls[blocks[index]]
                    with hooked({m: self._putting_back(m, t, 0, running, states) for m in kinds}):
                        hidden_NTD = first(blocks[index](hidden_NTD, *args, **kwargs))
            return lm.anatomy.after_blocks(hidden_NTD[:, -1:])[:, 0]

        return run

    def _putting_back(self, module: nn.Module, t: int, column: int, places: Sequence[Restored], states: States) -> Any:
        """Returns a hook that puts the clean state of token t into `column` of the rows whose place names a module."""
        n = len(self.noise_SsD)
        rows = [row for i, place in enumerate(places) for row in range(i * n, (i + 1) * n)
                if any(self.runs.modules[place.kind][block] is module for block in place.blocks)]  # fmt: skip

        def put_back(module: nn.Module, _args: tuple, output: Any) -> Any:
            if not rows:
                return output
            hidden_NTD = first(output).clone()
            hidden_NTD[rows, column] = states[module][t]
            return (hidden_NTD, *output[1:]) if isinstance(output, tuple | list) else hidden_NTD

        return put_back


class _Repeated(FrozenLayer):
    """Holds the cached keys and values of some rows, which are read for all rows, as many times as they fit."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        keys, values = cast(Tensor, self.keys), cast(Tensor, self.values)
        n_times = len(key_states) // len(keys)
        return (torch.cat([keys.repeat(n_times, 1, 1, 1), key_states], dim=-2),
                torch.cat([values.repeat(n_times, 1, 1, 1), value_states], dim=-2))  # fmt: skip


def window_around(layer: int, width: int, n_blocks: int) -> range:
    """Returns the blocks of the window around a block, cut at both ends as in the paper's code: of an even number one
    more lies below."""
    return range(max(0, layer - width // 2), min(n_blocks, layer - width // 2 + width))

"""The anchor: every edit's v* gets one length, that of the values which edits of the unedited model have (norm-anchored
scaling, NAS, SasyaTitech/NAS).

    v* := a v* / |v*|,   a = mean |v*| over pilot edits, without the largest 5 %

v* is the output of the MLP output matrix that a fact asks for at its subject's last token: ROME's v*; in MEMIT's z it
is the MLP's part, v₀ + δ, and z moves with it.  In a sequence |v*| grows from edit to edit, and so does W: the anchor
stops that.  Short values are made longer too.  An edit whose |v*| is above `drop_above` anchors is not written; it
stays among the run's edits, is measured as all are, and is counted (`dropped`) and logged.
Pilot edits are rows of the training split, under the bare prompt alone, with the method's own settings.
Departures from the code of NAS: that writes a dropped fact's key with v* := v₀, where it is left out of its batch here;
its pilot is 1000 facts of CounterFact, edited ones among them, with MEMIT's settings whatever the method, and ends
for a batch of them by their mean loss, where each ends by its own here; it drops at 2 anchors.  It runs on MEMIT's
heirs: that ROME takes it too is ours.
"""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from afteredit.edit.ingredients.target_value import TargetStream, TargetValue
from afteredit.edit.ingredients.value_search import groups_of_like_length
from afteredit.edit.ingredients.value_settings import ValueNorm, ValueSettings
from afteredit.edit.method import Given, Prepared
from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.store.progress.kept_progress import KeptProgress
from afteredit.store.progress.work import working
from afteredit.store.user_cache import cache_key, content_hash, made_once

log = logging.getLogger(__name__)
Value = TypeVar("Value", TargetValue, TargetStream)
Optimise = Callable[
    [LM, Sequence[EditRequest], Sequence[str], int, ValueSettings], Sequence[TargetValue | TargetStream]
]

FORMAT = 2  # raised when the same pilot edits get other norms
SEED = 0  # of the rows that are drawn: the runs of a sweep share one anchor
AT_ONCE = 8  # pilot edits optimised together
LEFT_OUT = 0.05  # the share of the largest norms


class AnchorSettings(ValueSettings, Protocol):
    """The keys of a method that this file reads."""

    @property
    def value_norm(self) -> ValueNorm: ...
    @property
    def drop_above(self) -> float | None: ...
    @property
    def pilot_edits(self) -> int: ...


def pilot_content(settings: AnchorSettings, given: Given) -> dict[str, str]:
    """Returns a hash of the rows that pilot edits are drawn from, for a method's `content`; none without an anchor."""
    if settings.value_norm is ValueNorm.none:
        return {}
    return {"pilot": content_hash([row.content for row in given.training()])}


def with_anchors(
    prepared: Prepared, lm: LM, layers: Sequence[int], given: Given, settings: AnchorSettings, optimise: Optimise
) -> Prepared:
    """Returns the constants with the anchor of each block, if the method asks for one; `optimise` finds its values.

    Raises BadInput where the training split has too few rows.
    """
    if settings.value_norm is ValueNorm.none:
        return prepared
    rows = given.training()
    if len(rows) < settings.pilot_edits:
        raise BadInput(f"method.pilot_edits={settings.pilot_edits}, but the training split holds {len(rows)} rows; set "
                       f"method.pilot_edits={len(rows)} or give more rows (edits.train)")  # fmt: skip
    rows = random.Random(SEED).sample(rows, settings.pilot_edits)
    tensors, hashes = dict(prepared.tensors), dict(prepared.hashes)
    for layer in layers:
        norms, hashes[anchor_name(layer)] = pilot_norms(lm, rows, layer, settings, optimise)
        anchor = trimmed_mean(norms)
        log.info("anchor at block %d: %.4g, the mean |v*| of %d pilot edits", layer, anchor, len(norms))
        tensors[anchor_name(layer)] = torch.tensor(anchor, dtype=torch.float64)
    return replace(prepared, tensors=tensors, hashes=hashes)


def anchor_name(layer: int) -> str:
    """Returns the name of a block's anchor among a method's constants."""
    return f"anchor/{layer}"


def pilot_norms(
    lm: LM, rows: Sequence[EditRequest], layer: int, settings: ValueSettings, optimise: Optimise
) -> tuple[list[float], str]:
    """Returns |v*| of each row's edit of the model as it is, and the hash that names the cached file.

    A stopped start goes on after the last group that it kept.
    """
    keys = [name for name, value in vars(ValueSettings).items() if isinstance(value, property)]
    digest = cache_key(FORMAT, {"model": lm.fingerprint, "separator": lm.tokens.separator, "layer": layer,
                                "values": optimise.__name__, **{key: str(getattr(settings, key)) for key in keys},
                                "rows": [[row.prompt, row.subject, row.target_new] for row in rows]})  # fmt: skip
    name = f"value_norm/{digest}.json"
    progress = KeptProgress(name)

    def make(path: Path) -> None:
        kept = progress.found()
        norms: list[float] = json.loads(kept.read_text()) if kept else []
        with working("pilot edits", len(rows), len(norms)) as work:
            for group in groups_of_like_length(lm, rows, AT_ONCE)[len(norms) // AT_ONCE :]:
                norms += [float(value.value_D.norm()) for value in optimise(lm, group, ("",), layer, settings)]
                work.done = len(norms)
                if progress.is_due():
                    progress.keep(partial(_write, norms))
        _write(norms, path)

    norms = json.loads(made_once(name, make, f"measuring the anchor at block {layer}").read_text())
    progress.clear()
    return norms, digest


def _write(norms: Sequence[float], path: Path) -> None:
    path.write_text(json.dumps(norms))


def trimmed_mean(norms: Sequence[float]) -> float:
    """Returns the mean without the largest 5 %, rounded down.  Raises BadInput where a norm is not finite."""
    if not all(map(math.isfinite, norms)):
        raise BadInput("values of pilot edits are not finite; lower method.value_lr, or set dtype=float32")
    kept = sorted(norms)[: len(norms) - int(LEFT_OUT * len(norms))]
    return sum(kept) / len(kept)


def anchored(values: Mapping[str, Value], prepared: Prepared, layer: int, settings: AnchorSettings) -> dict[str, Value]:
    """Returns the values, found at this block, at the anchor's length, if the method asks for one.

    Those that are too long are marked as dropped and logged.
    """
    if settings.value_norm is ValueNorm.none:
        return dict(values)
    anchor = float(prepared.tensors[anchor_name(layer)])
    return {name: _at(anchor, name, value, settings.drop_above) for name, value in values.items()}


def _at(anchor: float, name: str, value: Value, drop_above: float | None) -> Value:
    norm = float(value.value_D.norm())
    noted = replace(value, diagnostics={**value.diagnostics, "value_norm": norm, "anchor": anchor})
    if drop_above is not None and norm > drop_above * anchor:
        log.warning("edit %s is not written: |v*| = %.4g is above method.drop_above=%g times the anchor, %.4g", name,
                    norm, drop_above, anchor)  # fmt: skip
        return replace(noted, dropped=True)
    return noted.moved_by((anchor / norm - 1) * value.value_D) if norm else noted

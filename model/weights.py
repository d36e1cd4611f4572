"""The matrices that edits change: read, changed, restored and hashed.  Only this file knows which lie transposed.

Mathematics sees every MLP output matrix as W (D, F), from the MLP's inner width F to the residual width D.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from afteredit.model.tensors import wide

View = Callable[[Tensor, Tensor], Tensor]  # (W0, W) -> the matrix to measure in the place of W, all (D, F)


class Change(Protocol):
    """A change to one matrix W (D, F) that `Weights.add` can add."""

    def dense(self, device: torch.device | str = "cpu") -> Tensor:
        """Returns (D, F) float64, the same bits on every device."""


def is_transposed(module: nn.Module) -> bool:
    """Returns whether W is stored as (F, D), as GPT-2's Conv1D does.  Square matrices look alike, so the type tells."""
    return isinstance(module, Conv1D)


def matrix_shape(module: nn.Module) -> tuple[int, int]:
    """Returns the (output, input) widths of a matrix, however it is stored."""
    shape: Any = module.weight.shape
    rows, columns = shape
    return (columns, rows) if is_transposed(module) else (rows, columns)


class Weights:
    """Gives access to a model's matrices by parameter name.  Its methods alone change a weight.

    `base` holds W0, the unedited matrix (D, F), of every matrix that an edit has touched or `keep_base` has named.
    """

    def __init__(self, model: Any):
        self._model = model
        self.base: dict[str, Tensor] = {}
        self._masters: dict[str, Tensor] = {}  # float32 copies of edited matrices that the model holds in less

    def W(self, name: str) -> Tensor:
        """Returns the matrix as (D, F), at least float32: a view of the parameter, or of its float32 master."""
        if name in self._masters:
            return self._masters[name]
        module = self._module(name)
        weight: Tensor = module.weight
        return wide(weight.T if is_transposed(module) else weight)

    def W_base(self, name: str) -> Tensor:
        """Returns the matrix (D, F) as it was before any edit."""
        base_DF = self.base.get(name)
        return self.W(name) if base_DF is None else base_DF

    def keep_base(self, names: Iterable[str]) -> None:
        """Remembers these matrices as unedited, so that hashes and drift include them from the start."""
        for name in names:
            if name not in self.base:
                self.base[name] = self.W(name).clone()

    def is_unedited(self) -> bool:
        """Returns whether every matrix in `base` equals its W0 to the bit."""
        return all(torch.equal(self.W(name), base_DF) for name, base_DF in self.base.items())

    @torch.no_grad()
    def add(self, changes: Mapping[str, Change]) -> None:
        """Sets W ← W + change, added in float64 and rounded once, so that replay gives the same bits."""
        self.keep_base(changes)
        for name, change in changes.items():
            W_DF = self.W(name)
            self._write(name, (W_DF.double() + change.dense(W_DF.device)).to(W_DF.dtype))

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the unedited weights back, bit for bit."""
        for name, W_DF in self.base.items():
            self._write(name, W_DF.clone())

    def copies(self) -> dict[str, Tensor]:
        """Returns copies of the edited matrices as they are now, for `put_back`."""
        return {name: self.W(name).clone() for name in self.base}

    @torch.no_grad()
    def put_back(self, weights: Mapping[str, Tensor]) -> None:
        """Writes matrices (D, F) by name, as `copies` returned them."""
        for name, W_DF in weights.items():
            self._write(name, W_DF)

    @contextmanager
    def undone(self, names: Iterable[str]) -> Iterator[None]:
        """Undoes at its end, to the bit, what is added to these matrices inside."""
        base, masters = dict(self.base), dict(self._masters)
        weights = {name: self.W(name).clone() for name in names}
        try:
            yield
        finally:
            self.put_back(weights)
            self.base, self._masters = base, masters

    @contextmanager
    def seen_through(self, view: View) -> Iterator[None]:
        """Inside, every edited matrix is `view(W0, W)`; afterwards it is the raw W again, to the bit."""
        raw = self.see_through(view)
        try:
            yield
        finally:
            self.put_back(raw)

    def see_through(self, view: View) -> dict[str, Tensor]:
        """Makes every edited matrix `view(W0, W)`; returns the raw W (D, F) of each that changed, for `put_back`."""
        views, raw = {}, {}
        for name, base_DF in self.base.items():
            W_DF = self.W(name)
            view_DF = view(base_DF, W_DF)
            if view_DF is not W_DF:
                views[name], raw[name] = view_DF, W_DF.clone()
        self.put_back(views)
        return raw

    def sha256(self) -> str:
        """Returns the SHA-256 of the matrices in `base` as they are now, ordered by name."""
        digest = hashlib.sha256()
        for name in sorted(self.base):
            digest.update(name.encode())
            digest.update(self.W(name).contiguous().cpu().numpy().data)
        return digest.hexdigest()

    def _module(self, name: str) -> Any:
        return self._model.get_submodule(name.removesuffix(".weight"))

    def _write(self, name: str, W_DF: Tensor) -> None:
        module = self._module(name)
        if module.weight.dtype != W_DF.dtype:
            self._masters[name] = W_DF
        module.weight.copy_(W_DF.T if is_transposed(module) else W_DF)

"""What a training of MEND's hypernetwork adds up to, and the checkpoint file that holds it."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from afteredit.edit.hypernetwork.network import Hypernetwork
from afteredit.edit.hypernetwork.training_settings import TrainingSettings


class Progress:
    """The network as trained so far, the best one so far, and all that the next step depends on."""

    def __init__(self, network: Hypernetwork, settings: TrainingSettings):
        self.network = network
        parts = [parameter for name, parameter in network.named_parameters() if name != "alpha_M"]
        self.adam = torch.optim.Adam([{"params": parts, "lr": settings.learning_rate},
                                      {"params": [network.alpha_M], "lr": settings.alpha_learning_rate}])  # fmt: skip
        self.step = 0
        self.skipped = 0  # steps in a row
        self.best_loss = math.inf
        self.loss_without_edit = math.nan  # what an edit must beat
        self.best: dict[str, Tensor] = {}

    def take_if_best(self, loss: float) -> bool:
        """Keeps the network as the best one where `loss` is the least so far; returns whether it is."""
        better = loss < self.best_loss  # never true for NaN
        if better:
            self.best_loss = loss
            self.best = {name: tensor.cpu().clone() for name, tensor in self.network.state_dict().items()}
        return better

    def save(self, path: Path) -> None:
        """Writes the checkpoint."""
        flat = {f"network|{name}": tensor for name, tensor in self.network.state_dict().items()}
        flat |= {f"best|{name}": tensor for name, tensor in self.best.items()}
        for place, values in self.adam.state_dict()["state"].items():
            flat |= {f"adam|{place}|{name}": tensor for name, tensor in values.items()}
        flat |= {"step": torch.tensor(self.step), "skipped": torch.tensor(self.skipped),
                 "best_loss": torch.tensor(self.best_loss, dtype=torch.float64),
                 "loss_without_edit": torch.tensor(self.loss_without_edit, dtype=torch.float64)}  # fmt: skip
        save_file(flat, path)

    def load(self, path: Path) -> None:
        """Continues from a checkpoint."""
        flat = load_file(path)
        self.step, self.skipped = int(flat["step"]), int(flat["skipped"])
        self.best_loss, self.loss_without_edit = float(flat["best_loss"]), float(flat["loss_without_edit"])
        self.network.load_state_dict(_named("network|", flat))
        self.best = _named("best|", flat)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _named("adam|", flat).items():
            place, part = name.split("|")
            state.setdefault(int(place), {})[part] = tensor
        self.adam.load_state_dict({**self.adam.state_dict(), "state": state})


def _named(prefix: str, flat: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in flat.items() if name.startswith(prefix)}

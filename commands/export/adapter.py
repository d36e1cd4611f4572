"""Writes a run's edits as a LoRA adapter (Hu et al., 2022) that peft loads onto the unedited model."""

from __future__ import annotations

from pathlib import Path

from afteredit.commands.export.lora_factors import Factors, factors_of
from afteredit.commands.rebuild import RebuiltRun
from afteredit.model.weights import is_transposed
from afteredit.store.atomic_files import write_json
from afteredit.store.errors import BadInput


def write_adapter(rebuilt: RebuiltRun, n_edits: int, folder: Path, rank: int | None) -> list[str]:
    """Writes adapter_config.json and adapter_model.safetensors; returns a sentence about each matrix that is changed.

    The model holds the edits.  Raises BadInput where they changed nothing, or cannot be told by factors.
    """
    from safetensors.torch import save_file

    x, lm, run = rebuilt.x, rebuilt.lm, rebuilt.run
    last = rebuilt.borders.index(n_edits)
    first = max(0, last - 1) if x.settings.single else 0
    updates = [run.journal.update(index) for index in range(first, last)]
    factors = {name.removesuffix(".weight"): found
               for name, found in factors_of(lm.weights, x.constraint, updates, rank)}  # fmt: skip
    if not factors:
        raise BadInput(f"replay.at={n_edits}: these edits changed no weight, so there is no adapter to write")
    folder.mkdir()
    tensors = {}
    for module, found in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = found.right_rF
        tensors[f"base_model.model.{module}.lora_B.weight"] = found.left_Dr
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    transposed = is_transposed(lm.model.get_submodule(next(iter(factors))))
    write_json(folder / "adapter_config.json", _config(factors, x.model.source, x.model.revision, transposed))
    return [f"{module}: rank {found.rank}, relative error {found.error:.1e}" for module, found in factors.items()]


def _config(factors: dict[str, Factors], source: str, revision: str | None, transposed: bool) -> dict[str, object]:
    """Returns peft's config; alpha equals the rank, so that the factors count as they are."""
    ranks = {module: found.rank for module, found in factors.items()}
    return {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": source, "revision": revision,
            "r": max(ranks.values()), "lora_alpha": max(ranks.values()), "rank_pattern": ranks, "alpha_pattern": ranks,
            "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": transposed, "target_modules": sorted(ranks),
            "inference_mode": True}  # fmt: skip

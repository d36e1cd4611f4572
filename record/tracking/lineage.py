"""What a run was made of, as W&B's lineage shows it: the model and the edit set, by name and without their contents."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HUB = "https://huggingface.co/"


def inputs(config: Mapping[str, Any]) -> list[Any]:
    """Returns a small artifact that describes the model and one that describes the edit set.

    The names hold hashes of the contents, so that runs of the same model meet in one artifact.  `config` is the one
    that W&B shows.  A folder of this machine is named without its path.
    """
    resolved = config["resolved"]
    model, edits = resolved["model"], resolved["edits"]
    source, is_here = str(model["source"]), Path(model["source"]).exists()
    hub = edits["hub"] if resolved["data"] == "hub" else ""
    return [
        _artifact("model", Path(source).name if is_here else source, config["fingerprint"],
                  "" if is_here or ":" in source else HUB + source),
        _artifact("edit-set", edits["name"], config["facts"], hub if ":" in hub else hub and f"{HUB}datasets/{hub}"),
    ]  # fmt: skip


def _artifact(kind: str, source: str, content: str, address: str) -> Any:
    """Returns an artifact with a file that names what it stands for, and a link there; nothing is read from there."""
    import wandb

    described = {"source": source, "content": content}
    artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", f"{kind}-{source}-{content[:8]}"), kind, metadata=described)
    with artifact.new_file("source.json") as file:
        json.dump(described, file)
    if address:
        artifact.add_reference(address, name="address", checksum=False)
    return artifact

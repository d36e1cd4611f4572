"""Fetches a model of the Hugging Face hub as a folder, which is then looked at as any other."""

from __future__ import annotations

from afteredit.model.loading.model_folder import READ
from afteredit.store.errors import BadInput

NOT_READ = ["*/*", "consolidated*"]  # folders, and the weights once more, as Mistral's own code reads them


def snapshot(name: str, revision: str | None) -> str:
    """Returns the folder in the hub's cache that holds the files which are read of a model; what it lacks is fetched.

    Raises BadInput, with the name and the remedy, where it cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(name, revision=revision, allow_patterns=[f"*{suffix}" for suffix in READ],
                                     ignore_patterns=NOT_READ))  # fmt: skip
    except (OSError, ValueError) as problem:  # no such model, no connection, a name that cannot be one
        shown = f"{name!r}, revision {revision}" if revision else repr(name)
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise BadInput(f"weights not found: looked for {shown} ({reason}). Give model.source=<folder with config.json "
                       "and safetensors>, or let this machine reach the hub (set HF_TOKEN for gated "
                       "models)") from None  # fmt: skip

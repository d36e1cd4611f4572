"""Fetches a model of the Hugging Face hub as a folder, which is then looked at as any other."""

from __future__ import annotations

from afteredit.model.loading.model_folder import READ
from afteredit.store.errors import BadInput

NOT_READ = ["*/*", "consolidated*"]  # folders, and the weights once more, as Mistral's own code reads them
WHO = "let the hub know who you are (hf auth login, or HF_TOKEN)"


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
        raise BadInput(_refused(problem, name, shown) or _out_of_reach(problem, shown)) from None


def _refused(problem: Exception, name: str, shown: str) -> str | None:
    """Returns the message about what the hub itself answered; None where it did not answer."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(problem, GatedRepoError):
        return (f"the hub gives {shown} only to those whom its authors let in; ask for access at "
                f"{constants.ENDPOINT}/{name}, and {WHO}")  # fmt: skip
    if isinstance(problem, RepositoryNotFoundError):
        return f"the hub knows no model {shown}, or it is private; check the name, or {WHO}"
    if isinstance(problem, RevisionNotFoundError):
        return f"the hub knows no {shown}; check model.revision, or leave it out"
    answered = problem.__cause__ if isinstance(problem, LocalEntryNotFoundError) else problem
    if not isinstance(answered, HfHubHTTPError):
        return None
    status = answered.response.status_code
    remedy = WHO if status in (401, 403) else "try again later"
    return f"the hub does not give {shown} (status {status}, {_first_line(answered)}); {remedy}"


def _out_of_reach(problem: Exception, shown: str) -> str:
    return (f"weights not found: looked for {shown} ({_first_line(problem)}). Give model.source=<folder with "
            "config.json and safetensors>, or let this machine reach the hub")  # fmt: skip


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]

"""Sends an exported folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from afteredit.store.errors import BadInput


def refuse_no_hub(name: str) -> None:
    """Raises BadInput where `name` is no hub id, or where no token is known, before anything is made."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as problem:
        raise BadInput(f"replay.push={name} is no hub id ({problem}); write <user or organisation>/<name>") from None
    if name.count("/") != 1:
        raise BadInput(f"replay.push={name} is no hub id; write <user or organisation>/<name>")
    if get_token() is None:
        raise BadInput(f"replay.push={name}, but no token of the hub is known; log in by `hf auth login`, or set "
                       "HF_TOKEN")  # fmt: skip


def push(folder: Path, name: str) -> str:
    """Returns the address of the commit that holds the folder's files.  A repository that is new is private.

    Raises BadInput where the hub does not take them; the folder stays.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi

    api = HfApi(library_name="afteredit")
    try:
        api.create_repo(name, private=True, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=folder, commit_message="An export of afteredit")
    except (HTTPError, OSError, ValueError) as problem:
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise BadInput(f"{folder} is written, but {name} did not take it ({reason}); send it later: hf upload {name} "
                       f"{folder}") from None  # fmt: skip
    return str(commit.commit_url)

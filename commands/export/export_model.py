"""Writes the model after a number of edits as a folder that `from_pretrained` reads, or its edits as an adapter."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from afteredit.commands.export.adapter import write_adapter
from afteredit.commands.export.model_card import model_card
from afteredit.commands.export.push import push, refuse_no_hub
from afteredit.commands.rebuild import RebuiltRun
from afteredit.launch.experiment import ExportFormat
from afteredit.record.terminal import bold, so_many_edits
from afteredit.store.atomic_files import as_new_files, refusing_full_disks, write_json
from afteredit.store.errors import BadInput


def export(rebuilt: RebuiltRun, n_edits: int, target: Path) -> None:
    """Writes the whole folder or nothing: what metrics see (a constraint's view), in the dtype that is asked for.

    Measures nothing, and leaves a model that is of no more use.  Raises BadInput where the folder is not empty, cannot
    be made or has no room, and where no adapter can say what was changed.
    """
    _prepare(target)
    if rebuilt.x.replay.push is not None:
        refuse_no_hub(rebuilt.x.replay.push)
    sha256, lm, x = rebuilt.rebuild(n_edits).weights_sha256(), rebuilt.lm, rebuilt.x
    start = " ".join(lm.tokenizer.convert_ids_to_tokens(lm.tokens.start_ids)) or None
    origin = {"run": rebuilt.run.folder.name, "n_edits": n_edits, "weights_sha256": sha256, "source": x.model.source,
              "weights": lm.stored_as, "revision": x.model.revision, "start_token": start}  # fmt: skip
    temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with refusing_full_disks(f"replay.export={target}", "make room"):
            if x.replay.format is ExportFormat.adapter:
                notes = write_adapter(rebuilt, n_edits, temporary, x.replay.rank)
            else:
                notes = _write_model(rebuilt, temporary)
            (temporary / "README.md").write_text(model_card(rebuilt, n_edits, origin, notes), encoding="utf-8")
            for path in temporary.glob("*.safetensors"):
                _add_metadata(path, origin)
            write_json(temporary / "afteredit.json", origin)
            as_new_files(temporary)
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    what = "what changed in the model" if x.replay.format is ExportFormat.adapter else "the model"
    rebuilt.console.log(bold("written", f" to {target}: {what} after {so_many_edits(n_edits)}, as metrics see it"))
    for note in notes:
        rebuilt.console.log(note, highlight=False)
    if start is not None:
        rebuilt.console.log(f"in this run {start} stood in front of every text: put it there too")
    if x.replay.push is not None:
        rebuilt.console.log(bold("sent", f" to {push(target, x.replay.push)}"))


def _prepare(target: Path) -> None:
    """Makes the folder that is to hold `target`.  Raises BadInput where something is there, or none can be made."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise BadInput(f"replay.export={target} is there and not empty; give a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(f"replay.export={target}: the folder cannot be made there: {problem}") from None


def _write_model(rebuilt: RebuiltRun, folder: Path) -> list[str]:
    """Writes the whole model and its tokenizer; returns what the card says of them."""
    lm, wanted = rebuilt.lm, rebuilt.x.replay.dtype
    with lm.weights.seen_through(rebuilt.x.constraint.view):
        if wanted is not None:
            lm.model.to(getattr(torch, wanted.value))
        lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return [f"dtype: {str(lm.model.dtype).removeprefix('torch.')}"]


def _add_metadata(path: Path, origin: Mapping[str, Any]) -> None:
    """Adds `origin` to the metadata of a safetensors file: a JSON header of 8 + n bytes, and the tensors after it."""
    temporary = path.with_name(f"{path.name}.part")
    with open(path, "rb") as file, open(temporary, "wb") as written:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        known = {key: str(value) for key, value in origin.items() if value is not None}
        header["__metadata__"] = {**header.get("__metadata__", {}), **known}
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
        written.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(file, written, 2**24)
    os.replace(temporary, path)

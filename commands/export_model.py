"""Writes the model after a number of edits as a folder that `from_pretrained` reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from afteredit.commands.rebuild import RebuiltRun
from afteredit.record.terminal import bold
from afteredit.store.atomic_files import refusing_full_disks, write_json
from afteredit.store.errors import BadInput


def export(rebuilt: RebuiltRun, n_edits: int, target: Path) -> None:
    """Writes the whole folder or nothing: what metrics see (a constraint's view), in the model's dtype.

    Measures nothing.  Raises BadInput where the folder is not empty, cannot be made or has no room.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise BadInput(f"replay.export={target} is there and not empty; give a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadInput(f"replay.export={target}: the folder cannot be made there: {problem}") from None
    sha256, lm, model = rebuilt.rebuild(n_edits).weights_sha256(), rebuilt.lm, rebuilt.x.model
    temporary = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with refusing_full_disks(f"replay.export={target}", "make room"):
            with lm.weights.seen_through(rebuilt.x.constraint.view):
                lm.model.save_pretrained(temporary)
            lm.tokenizer.save_pretrained(temporary)
            start = " ".join(lm.tokenizer.convert_ids_to_tokens(lm.tokens.start_ids)) or None
            origin = {"run": rebuilt.run.folder.name, "n_edits": n_edits, "weights_sha256": sha256,
                      "source": model.source, "revision": model.revision, "start_token": start}  # fmt: skip
            write_json(temporary / "afteredit.json", origin)
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    rebuilt.console.log(bold("written", f" to {target}: the model after {n_edits} edits, as metrics see it"))
    if start is not None:
        rebuilt.console.log(f"in this run {start} stood in front of every text: put it there too")

"""Writes what was tuned as a model's file, ready for `python run.py hydra.searchpath=[<out>] model=<name>`."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.commands.locate.trace import file_name
from afteredit.launch.compose import CONF
from afteredit.launch.experiment import Experiment
from afteredit.launch.stored_config import as_command
from afteredit.model.anatomy import text_config
from afteredit.store.atomic_files import make_folder, write_atomically

if TYPE_CHECKING:
    from afteredit.model.lm import LM
    from afteredit.record.terminal import PlainConsole

WIDTH = 118


@dataclass(frozen=True)
class Tuned:
    """Holds what was chosen for a method, and each round's lines in words; or why the model cannot be edited by it."""

    method: str
    keys: dict[str, Any]
    tried: list[str]
    refused: str = ""


def write_model_file(x: Experiment, lm: LM, traced: Mapping[str, Any], tuned: Sequence[Tuned], n_rows: int,
                     perplexity: float, console: PlainConsole) -> Path:  # fmt: skip
    """Writes model/<name>.yaml into `locate.out`; prints how it is used.  Returns its path."""
    name = file_name(x)
    if (CONF / "model" / f"{name}.yaml").exists():  # the program's own would be found in its place
        name += "-tuned"
    path = Path(x.locate.out) / "model" / f"{name}.yaml"
    make_folder(path.parent)
    head = [*_comment(f"Written by {as_command(x.overrides)}"), "defaults: [base]", f"name: {json.dumps(name)}",
            *_source(x), *_comment("from the model's own config and parameters"), f"shape: {_flow(_shape(lm))}",
            "edit:"]  # fmt: skip
    write_atomically(path, ("\n".join([*head, *_edit(traced, tuned, n_rows, perplexity)]) + "\n").encode())
    console.print(f"model     {path}", highlight=False, soft_wrap=True)
    console.print(f"use it    {as_command([f'hydra.searchpath=[{x.locate.out}]', f'model={name}'])}",
                  highlight=False, soft_wrap=True)  # fmt: skip
    return path


def _edit(traced: Mapping[str, Any], tuned: Sequence[Tuned], n_rows: int, perplexity: float) -> list[str]:
    """Returns the lines under `edit`, each method's after where its numbers come from."""
    wish = traced["proposed"]
    lines = _comment(
        f"Causal tracing of {traced['known']} facts of edits={traced['edits']} that it knows ({traced['asked']} asked; "
        f"window {traced['window']}, {traced['samples']} draws of noise, dtype={traced['dtype']}) proposes rome.layer "
        f"{wish['rome.layer']} and memit.layers {wish['memit.layers']}.  Tried on up to {n_rows} of its training rows, "
        "each written into the unedited model; the score is efficacy × paraphrase × neighbourhood (means of prob and "
        f"generated), divided by perplexity in multiples of the unedited {perplexity:.1f} where it has grown.", "  "
    )  # fmt: skip
    for one in tuned:
        if one.refused:
            lines += _comment(f"{one.method} was left out: {one.refused}", "  ")
            continue
        for tried in one.tried:
            lines += _comment(f"{one.method} {tried}", "  ")
        lines.append(f"  {one.method}: {_flow(one.keys)}")
    return lines if any(not one.refused for one in tuned) else [*lines, "  {}"]


def _source(x: Experiment) -> list[str]:
    source = os.path.abspath(x.model.source) if Path(x.model.source).exists() else x.model.source
    keys = {"source": source, "revision": x.model.revision, "start_token": x.model.start_token,
            "prompt": x.model.prompt.value, "chat_date": x.model.chat_date}  # fmt: skip
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]


def _shape(lm: LM) -> dict[str, Any]:
    config = text_config(lm.model.config, type(lm.model).__name__)
    width, inner = lm.widths(0)
    head, embedding = lm.model.get_output_embeddings(), lm.model.get_input_embeddings()
    shape = {"family": config.model_type, "blocks": lm.n_blocks, "width": width, "inner": inner,
             "heads": config.num_attention_heads, "key_value_heads": getattr(config, "num_key_value_heads", None),
             "vocabulary": embedding.weight.shape[0], "tied": head.weight is embedding.weight,
             "billions": float(f"{sum(p.numel() for p in lm.model.parameters()) / 1e9:.3g}")}  # fmt: skip
    return {key: value for key, value in shape.items() if value is not None}


def _flow(values: Mapping[str, Any]) -> str:
    """Returns a mapping as YAML on one line."""
    return "{" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items()) + "}"


def _comment(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ",
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip

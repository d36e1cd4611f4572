"""Writes the card of an exported model: what it is, what was edited, what was measured of it, and how it was made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afteredit.commands.rebuild import RebuiltRun
from afteredit.launch.stored_config import as_command
from afteredit.record.results import results_files
from afteredit.store.checked_lines import Lines

SHOWN = 20  # facts
LOADED = {
    "transformers": ["from transformers import AutoModelForCausalLM",
                     'model = AutoModelForCausalLM.from_pretrained("<this folder>")'],
    "peft": ["from peft import PeftModel", "from transformers import AutoModelForCausalLM",
             'unedited = AutoModelForCausalLM.from_pretrained("<the unedited model: source, or an export at 0>")',
             'model = PeftModel.from_pretrained(unedited, "<this folder>")'],
}  # fmt: skip
MEASURED = re.compile(r"ability/[^/]+|drift/perplexity|editing/retained/\w+/(efficacy|paraphrase|neighbourhood)")


def model_card(rebuilt: RebuiltRun, n_edits: int, origin: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Returns the text of README.md, with the front matter of a model card.  `origin`: what afteredit.json holds."""
    x, run = rebuilt.x, rebuilt.run
    library = "peft" if x.replay.format.name == "adapter" else "transformers"
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", x.model.source) and not Path(x.model.source).exists()
    last = rebuilt.borders.index(n_edits)
    batches = rebuilt.batches[max(0, last - 1) if x.settings.single else 0 : last]
    facts = [f"- {_plain(fact.question)} → {_plain(fact.target_new)}" for batch in batches for fact in batch]
    lines = ["---", *([f"base_model: {x.model.source}"] if on_hub else []), f"library_name: {library}",
             "tags: [knowledge-editing]", "---", "", f"# {x.model.name} after {n_edits} edit{'s' * (n_edits != 1)}", "",
             f"Facts were written into the weights by afteredit {run.environment['commit']}.",
             "Its start token, where it has one, stands in front of every text.", "",
             *(f"- {key}: `{str(value).replace('`', ' ')}`" for key, value in origin.items() if value is not None),
             *(f"- {note}" for note in notes), "", "```python", *LOADED[library], "```", "", "## Edits", "",
             *facts[:SHOWN],
             *([f"- … and {len(facts) - SHOWN} more"] if len(facts) > SHOWN else []), "",
             *_measured(run.folder, n_edits), "## Made by", "", "```",
             *run.environment["commands"], as_command(x.overrides), "```", ""]  # fmt: skip
    return "\n".join(lines)


def _measured(folder: Path, n_edits: int) -> list[str]:
    """Returns a table of what the run measured before any edit and after so many; nothing where it did not."""
    for path in results_files(folder):
        rows = {row["n_edits"]: row for row in Lines(path, read_only=True).records}
        if {0, n_edits} <= set(rows) and n_edits:
            keys = [key for key in rows[n_edits] if MEASURED.fullmatch(key)]
            return ["## Measured", "", "| | unedited | edited |", "|---|---|---|",
                    *(f"| {key} | {rows[0].get(key, float('nan')):.3f} | {rows[n_edits][key]:.3f} |" for key in keys),
                    ""]  # fmt: skip
    return []


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", " ".join(text.split()))

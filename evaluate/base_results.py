"""What the unedited model scores is kept in the user's cache: every run of a sweep over one model begins with it.

A file is named by all that decides the scores: the model, the task with its prompts and rows, the code and packages
that measure, and the hardware, so what is read is what would be measured here, to the bit.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from afteredit.edit.cache import content_hash, made_once
from afteredit.edit.lm import LM
from afteredit.evaluate.ability import BuiltAbility, Example
from afteredit.evaluate.evaluator import evaluator
from afteredit.evaluate.harness import HarnessLM

log = logging.getLogger(__name__)

Scores = tuple[dict[str, float], list[Example]]


def measure_base(built: BuiltAbility, harness: HarnessLM, chat: bool) -> Scores:
    """`built.measure(harness, chat)` of an unedited model: from the cache where any run has measured it."""
    if not prompts_known(built):
        return built.measure(harness, chat)

    def make(path: Path) -> None:
        row, examples = built.measure(harness, chat)
        path.write_text(json.dumps({"row": row, "examples": [dataclasses.asdict(e) for e in examples]}))

    path = made_once(f"base_results/{content_hash(decides(built, harness.lm, chat))}.json", make)
    try:
        kept = json.loads(path.read_text())
        return kept["row"], [Example(**example) for example in kept["examples"]]
    except (ValueError, KeyError, TypeError):
        log.warning("%s is damaged; it is made anew", path)
        path.unlink(missing_ok=True)
        return measure_base(built, harness, chat)


def decides(built: BuiltAbility, lm: LM, chat: bool) -> dict[str, Any]:
    """All that the scores depend on.  The fingerprint holds the model's dtype, start token and prompt mode."""
    on_gpu = lm.device.type == "cuda"
    hardware = torch.cuda.get_device_name(lm.device) if on_gpu else torch.backends.cpu.get_cpu_capability()
    return {
        "model": lm.fingerprint, "device": lm.device.type, "hardware": hardware, "threads": torch.get_num_threads(),
        "evaluator": evaluator(), "task": built.name, "ability": dataclasses.asdict(built.ability), "chat": chat,
        "rows": list(islice(built.task.eval_docs, built.limit)),
    }  # fmt: skip


def prompts_known(built: BuiltAbility) -> bool:
    """Do the rows and the config alone decide the prompts?  Not where a shipped task draws examples of its own."""
    config = built.task.config
    return not config.num_fewshot or not isinstance(built.ability.lm_eval, str)

"""What the unedited model scores is kept in the user's cache: every run of a sweep over one model begins with it.

A file is named by all that decides the scores: the model, the task with its prompts and rows, the code and packages
that measure, and the hardware, so what is read is what would be measured here, to the bit.
"""

from __future__ import annotations

import dataclasses
import json
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from afteredit.evaluate.abilities.ability import BuiltAbility, Example
from afteredit.evaluate.abilities.lm_eval_model import HarnessLM
from afteredit.model.lm import LM
from afteredit.store.code_version import evaluator
from afteredit.store.user_cache import content_hash, made_once

Scores = tuple[dict[str, float], list[Example]]


def measure_base(built: BuiltAbility, harness: HarnessLM, chat: bool) -> Scores:
    """`built.measure(harness, chat)`; of an unedited model from the cache, where any run has measured it."""
    if not prompts_known(built) or not harness.lm.weights.is_unedited():
        return built.measure(harness, chat)

    def make(path: Path) -> None:
        row, examples = built.measure(harness, chat)
        kept = {"row": row, "examples": [dataclasses.asdict(example) for example in examples]}
        path.write_text(json.dumps(kept), encoding="utf-8")

    path = made_once(f"base_results/{content_hash(decides(built, harness.lm, chat))}.json", make)
    kept = json.loads(path.read_text(encoding="utf-8"))
    return kept["row"], [Example(**example) for example in kept["examples"]]


def decides(built: BuiltAbility, lm: LM, chat: bool) -> dict[str, Any]:
    """All that the scores depend on.  The fingerprint holds the weights, their dtype, the tokenizer with its chat
    template, the start token and the prompt mode."""
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

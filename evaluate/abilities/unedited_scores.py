"""Keeps the unedited model's scores in the user's cache: every run of a sweep over one model begins with them.

A measurement that is stopped goes on after the answers that it kept, to the bit.
All that decides the scores names the file: the model, the task with its prompts and rows, the code and packages that
measure, and the hardware.  So the scores read there are those that would be measured here, to the bit.
"""

from __future__ import annotations

import dataclasses
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from afteredit.evaluate.abilities.built_ability import AbilityScores, BuiltAbility, ExampleScore
from afteredit.evaluate.abilities.kept_answers import KeptAnswers
from afteredit.evaluate.abilities.lm_eval_tasks import with_functions
from afteredit.evaluate.inference.kept_blocks import KeptBlocks
from afteredit.model.lm import LM
from afteredit.store.code_version import measuring_version, plugin_code
from afteredit.store.progress.kept_progress import KeptProgress
from afteredit.store.progress.work import spare
from afteredit.store.user_cache import cache_key, made_once

FORMAT = 1  # raised when a score means something else that the version of the code does not tell


def unedited_scores(built: BuiltAbility, lm: LM, kept_blocks: KeptBlocks | None = None) -> AbilityScores:
    """Returns `built.measure(lm, kept_blocks)`, read from the cache where any run has measured it.

    An edited model, and a task whose prompts are not known from its rows and config, are measured and not kept.
    """
    if not prompts_known(built) or not lm.weights.is_unedited():
        return built.measure(lm, kept_blocks)

    name = f"unedited_scores/{cache_key(FORMAT, decides(built, lm))}.json"
    progress = KeptProgress(name)

    measured = []

    def measure_into(path: Path) -> None:
        started = time.perf_counter()
        measured.append(scores := built.measure(lm, kept_blocks, KeptAnswers(progress)))
        stored = {**dataclasses.asdict(scores), "seconds": time.perf_counter() - started}
        path.write_text(json.dumps(stored), encoding="utf-8")

    path = made_once(name, measure_into)
    progress.clear()
    stored = json.loads(path.read_text(encoding="utf-8"))
    if not measured:
        spare(stored["seconds"])
    return AbilityScores(stored["row"], [ExampleScore(**example) for example in stored["examples"]])


def decides(built: BuiltAbility, lm: LM) -> dict[str, Any]:
    """Returns all that the scores depend on.

    The functions of a task that stand outside this program's wings are named by their source.
    """
    on_gpu = lm.device.type == "cuda"
    hardware = torch.cuda.get_device_name(lm.device) if on_gpu else torch.backends.cpu.get_cpu_capability()
    return {
        "model": lm.fingerprint, "device": lm.device.type, "hardware": hardware, "threads": torch.get_num_threads(),
        "code": measuring_version(), "task": built.name, "ability": dataclasses.asdict(built.ability),
        "plugins": plugin_code(type(built.ability), with_functions(built.ability.lm_eval)),
        "rows": list(islice(built.task.eval_docs, built.limit)),
    }  # fmt: skip


def prompts_known(built: BuiltAbility) -> bool:
    """Tells whether rows and config alone decide the prompts; not where a shipped task draws examples of its own."""
    config = built.task.config
    return not config.num_fewshot or not isinstance(built.ability.lm_eval, str)

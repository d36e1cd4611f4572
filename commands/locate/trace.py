"""Answers `locate=trace`: traces the facts that a model knows, draws where they reach its answer, proposes blocks.

Every fact's trace is kept in the user's cache, under all that decides it, as soon as it is done: a command that was
stopped, or that asks for more facts, goes on from there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from afteredit.commands.locate.corrupted_runs import CorruptedRuns
from afteredit.commands.locate.known_facts import Known, KnownFact, embedding_std, known_facts
from afteredit.commands.locate.propose import WRITTEN_AT, averages, by_role, proposed
from afteredit.launch.experiment import Experiment, LocateSettings
from afteredit.launch.opening import load_model
from afteredit.record.terminal import PlainConsole, bold
from afteredit.store.atomic_files import make_folder, write_json
from afteredit.store.errors import BadInput
from afteredit.store.progress.kept_progress import KeptResults
from afteredit.store.progress.work import working
from afteredit.store.user_cache import cache_key, content_hash

if TYPE_CHECKING:
    from afteredit.model.lm import LM

FORMAT = 1  # raised when something else is computed of the same facts
PUBLISHED = (10, 48)  # the paper's window, of GPT-2 XL's blocks


def trace_layers(x: Experiment, console: PlainConsole) -> Path:
    """Writes <name>-trace.json and <name>-trace.png into `locate.out`; returns the picture.  Raises BadInput."""
    folder = Path(x.locate.out)
    make_folder(folder)
    requests, _ = x.edits.read(x.settings.data, x.settings.seed)
    lm = load_model(x, console)
    known = known_facts(lm, requests, x.locate.facts)
    say_known(x, known, console)
    return write_trace(x, folder, trace(x, lm, known, embedding_std(lm, requests), console), console)


def trace(x: Experiment, lm: LM, known: Known, std: float, console: PlainConsole) -> dict[str, Any]:
    """Returns what was traced, as plain data: settings, facts with their effects by role, averages, proposals.

    `std` is that of the embeddings, in which `locate.noise` counts.
    """
    window = window_of(x.locate, lm.n_blocks)
    decides = {
        "model": lm.fingerprint, "device": lm.device.type, "seed": x.settings.seed, "samples": x.locate.samples,
        "noise": x.locate.noise * std, "window": window,
    }  # fmt: skip
    name = f"trace/{cache_key(FORMAT, decides)}.json"
    with KeptResults(name) as kept:
        facts = _traced(x, lm, known.facts, x.locate.noise * std, window, kept, console)
    average = averages([fact["effects"] for fact in facts])
    return {
        "model": file_name(x), "weights": lm.stored_as, "fingerprint": lm.fingerprint,
        "edits": x.edits.name, "seed": x.settings.seed,
        "dtype": x.settings.dtype.value, "blocks": lm.n_blocks, "window": window, "samples": x.locate.samples,
        "noise": x.locate.noise, "embedding_std": std, "asked": known.n_asked, "unusable": known.n_unusable,
        "known": len(facts), "clean": sum(fact["clean"] for fact in facts) / len(facts),
        "corrupted": sum(fact["corrupted"] for fact in facts) / len(facts),
        "proposed": proposed(average), "averages": average, "facts": facts,
    }  # fmt: skip


def _traced(x: Experiment, lm: LM, facts: Sequence[KnownFact], noise: float, window: int, kept: KeptResults,
            console: PlainConsole) -> list[dict[str, Any]]:  # fmt: skip
    """Returns each fact's probabilities and effects by role; keeps them, by all that a fact is, as they come."""
    runs = CorruptedRuns(lm, window)
    if "attention" not in runs.modules:
        console.log("its blocks' attention was not found: hidden states and MLPs alone are traced")
    if runs.uncut:
        console.log("its blocks cannot be run alone: every state is put back in whole passes, which takes longer")

    def traced(fact: KnownFact) -> dict[str, Any]:
        effects = runs.effects(fact, noise_of(lm, fact, noise, x.locate.samples, x.settings.seed))
        return {"id": fact.id, "clean": effects.clean, "corrupted": effects.corrupted,
                "effects": by_role(effects.indirect, fact.roles)}  # fmt: skip

    keys = {content_hash(vars(fact)): fact for fact in facts}
    missing = [key for key in keys if key not in kept]
    n_done = len(facts) - len(missing)
    with working("facts traced", len(facts), n_done) as work:
        for work.done, key in enumerate(missing, n_done):
            work.part, started = keys[key].id, time.perf_counter()
            one = kept.of(key, partial(traced, keys[key]))
            console.log(f"traced {work.done + 1} of {len(facts)}: {one['id']}  answer {one['clean']:.2f}, under noise "
                        f"{one['corrupted']:.2f}  {time.perf_counter() - started:.1f} s", highlight=False)  # fmt: skip
    return [kept.of(key, partial(traced, fact)) for key, fact in keys.items()]


def noise_of(lm: LM, fact: KnownFact, scale: float, n_draws: int, seed: int) -> Tensor:
    """Returns draws of noise (S, s, D) for a fact's s subject tokens; they depend on the seed and its id alone."""
    generator = torch.Generator().manual_seed(int(content_hash(["noise", seed, fact.id])[:15], 16))
    width = lm.model.get_input_embeddings().weight.shape[1]
    return scale * torch.randn(n_draws, fact.last + 1 - fact.first, width, generator=generator, dtype=torch.float64)


def window_of(locate: LocateSettings, n_blocks: int) -> int:
    """Returns the width of the window: what is set, or the paper's share of the blocks, at most the paper's ten."""
    most, of = PUBLISHED
    return locate.window or max(1, min(most, round(most * n_blocks / of)))


def file_name(x: Experiment) -> str:
    """Returns the name of model and files: what is set, or the model's; of model=hf the last part of its source."""
    of_source = x.model.source.rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    name = x.locate.name or (of_source if x.model.name == "hf" else x.model.name)
    return re.sub(r"[^\w.-]+", "-", name)


def say_known(x: Experiment, known: Known, console: PlainConsole) -> None:
    """Prints how many facts it was asked and how many it knows."""
    n, unusable = len(known.facts), f", {known.n_unusable} of them could not be asked" if known.n_unusable else ""
    console.log(f"it knows {n} of {known.n_asked} facts asked (every token of the true answer is the likeliest)"
                f"{unusable}", highlight=False)  # fmt: skip
    if n < x.locate.facts:
        console.log(bold(f"fewer than locate.facts={x.locate.facts}", ": the averages are over these"))


def write_trace(x: Experiment, folder: Path, traced: dict[str, Any], console: PlainConsole) -> Path:
    """Writes the trace's numbers and its picture; prints what is proposed.  Returns the picture."""
    from afteredit.analysis.pictures.trace_maps import draw_trace

    picture = folder / f"{file_name(x)}-trace.png"
    try:
        write_json(folder / f"{file_name(x)}-trace.json", traced)
        draw_trace(traced, picture)
    except OSError as problem:
        raise BadInput(f"locate.out={x.locate.out} cannot be written to ({problem.strerror}: {problem.filename}); give "
                       "another folder; the traces are kept in the cache") from None  # fmt: skip
    wish = traced["proposed"]
    at = traced["averages"]["mlp"][WRITTEN_AT]
    rome, memit = wish["rome.layer"], ",".join(map(str, wish["memit.layers"]))
    console.print(f"answer {traced['clean']:.2f}, under noise {traced['corrupted']:.2f}, means over {traced['known']} "
                  f"facts; MLP outputs put back around block {rome} at the subject's last token bring back "
                  f"{at['mean'][rome]:.3f} (95 %: {at['low'][rome]:.3f} to {at['high'][rome]:.3f})",
                  highlight=False)  # fmt: skip
    console.print(f"proposed  model.edit.rome.layer={rome} model.edit.memit.layers=[{memit}]", highlight=False)
    console.print(f"picture   {picture}", highlight=False, soft_wrap=True)
    return picture

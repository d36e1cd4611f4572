"""Answers `locate=tune`: traces, tries blocks and other keys on training rows, and writes the model's file.

For each method of `locate.methods` two successive halvings: first the blocks (those that the trace proposes, their
neighbours, the lowest, a quarter of the way up, and what the model's file says), then at the best of them the other
keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afteredit.commands.locate.halving import successive_halving
from afteredit.commands.locate.known_facts import embedding_std, known_facts
from afteredit.commands.locate.model_file import Tuned, write_model_file
from afteredit.commands.locate.trace import say_known, trace, write_trace
from afteredit.commands.locate.trials import Trials, kept_trials
from afteredit.edit.ingredients.layer_by_layer import default_layer, layers_up_to
from afteredit.edit.method import Method
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.rome import Rome
from afteredit.edit.preflight import learnable
from afteredit.launch.experiment import Experiment
from afteredit.launch.opening import load_model
from afteredit.store.atomic_files import make_folder
from afteredit.store.errors import BadInput

if TYPE_CHECKING:
    from afteredit.model.lm import LM
    from afteredit.record.terminal import PlainConsole

CLASSES: dict[str, Any] = {"rome": Rome, "memit": Memit}
NEIGHBOURS = (-2, -1, 1, 2)  # blocks from the proposed ones
LOWEST = (0, 1)  # blocks that did best, or as well as the best, wherever all were tried (docs/results/locate)
PUBLISHED_WIDTH = 16384  # F of GPT-J, whose second_moment_weight conf/model/base.yaml has; a key's k C⁻¹ k grows with F
Keys = dict[str, Any]  # of a method in model.edit


def tune_model(x: Experiment, console: PlainConsole) -> Path:
    """Writes <name>-trace.json, .png and model/<name>.yaml into `locate.out`; returns the latter.  Raises BadInput."""
    folder = Path(x.locate.out)
    make_folder(folder)
    requests, _ = x.edits.read(x.settings.data, x.settings.seed)
    training = x.training  # raises BadInput where there are no rows
    lm = load_model(x, console)
    known = known_facts(lm, requests, x.locate.facts)
    say_known(x, known, console)
    traced = trace(x, lm, known, embedding_std(lm, requests), console)
    write_trace(x, folder, traced, console)
    rows = learnable(lm, training)[: x.locate.rows]
    with kept_trials(x, lm) as kept:
        trials = Trials(x, lm, rows, kept)
        tuned = [_tuned(x, lm, name, traced["proposed"], trials, console) for name in x.locate.methods]
    return write_model_file(x, lm, traced, tuned, len(rows), trials.unedited["perplexity"], console)


def _tuned(x: Experiment, lm: LM, name: str, proposed: Keys, trials: Trials, console: PlainConsole) -> Tuned:
    """Returns what is best for one method."""
    tried: list[str] = []

    def score(keys: Keys, n_rows: int) -> float:
        found = trials.summary(_method(x, name, keys), n_rows)
        values = [f"{key} {found[key]:.2f}" for key in sorted(found) if key.split("/")[0] in ("prob", "generated")
                  and not key.endswith("_paper")]  # fmt: skip
        said = ", ".join(f"{key}={value}" for key, value in keys.items())
        tried.append(f"{said}: {found['score']:.3f} on {n_rows} rows ({', '.join(values)}, perplexity "
                     f"{found['perplexity']:.1f})")  # fmt: skip
        console.log(f"{name} {tried[-1]}", highlight=False)
        return found["score"]

    n_first = max(1, x.locate.rows // 4)
    try:
        layers = successive_halving(_layers(x, lm, name, proposed), n_first, x.locate.rows, score)
        best = successive_halving(_others(x, lm, name, layers), n_first, x.locate.rows, score)
    except BadInput as problem:
        console.log(f"{name} is left out: {problem}")
        return Tuned(name, {}, tried, str(problem))
    return Tuned(name, best, tried)


def _method(x: Experiment, name: str, keys: Keys) -> Method:
    """Returns the method with these keys, else as the model's file and the command's method have it."""
    shared = {key: getattr(x.method, key) for key in ("second_moment_text", "tokens_per_key_dim")
              if hasattr(x.method, key)}  # fmt: skip
    method: Method = CLASSES[name](**{**x.model.edit[name], **keys})
    return replace(method, **shared)


def _layers(x: Experiment, lm: LM, name: str, proposed: Keys) -> list[Keys]:
    """Returns the blocks to try, the proposed ones first; the last block is none of them."""
    last = lm.n_blocks - 2
    own = x.model.edit[name]
    if name == "rome":
        layers = [proposed["rome.layer"], *(proposed["rome.layer"] + n for n in NEIGHBOURS), *LOWEST, default_layer(lm),
                  *([own["layer"]] if own["layer"] is not None else [])]  # fmt: skip
        return [{"layer": layer} for layer in dict.fromkeys(layers) if 0 <= layer <= last]
    start = proposed["memit.layers"]
    windows = [start, *([layer + n for layer in start] for n in NEIGHBOURS),
               *([layer - start[0] + low for layer in start] for low in LOWEST), layers_up_to(default_layer(lm)),
               *([own["layers"]] if own["layers"] else [])]  # fmt: skip
    inside = {tuple(window): None for window in windows if window[0] >= 0 and window[-1] <= last}
    return [{"layers": list(window)} for window in inside]


def _others(x: Experiment, lm: LM, name: str, layers: Keys) -> list[Keys]:
    """Returns the other keys to try at the chosen blocks, what stands in the model's file first."""
    own = x.model.edit[name]
    steps = list(dict.fromkeys([own["value_steps"], max(1, own["value_steps"] // 2)]))
    if name == "rome":
        counts = list(dict.fromkeys([(own["contexts_short"], own["contexts_long"]), (5, 5), (10, 10)]))
        return [{**layers, "value_steps": n, "contexts_short": short, "contexts_long": long}
                for (short, long), n in product(counts, steps)]  # fmt: skip
    return [{**layers, "value_steps": n, "contexts": contexts, "second_moment_weight": weight}
            for weight, contexts, n in product(_weights(lm, own, layers["layers"]),
                                               dict.fromkeys([own["contexts"], 2]), steps)]  # fmt: skip


def _weights(lm: LM, own: Keys, layers: Sequence[int]) -> list[float]:
    """Returns second-moment weights: the model's, or GPT-J's in proportion to F, a tenth and ten times of it."""
    weight = float(own["second_moment_weight"])
    if own["layers"] is None:  # nothing was tuned for this model
        weight = float(f"{weight * lm.widths(layers[0])[1] / PUBLISHED_WIDTH:.2g}")
    return [weight, float(f"{weight / 10:.2g}"), weight * 10]

"""Tells which runs may be compared, and gives each method a name that says how it differs from the others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afteredit.analysis.read.run import Run, at
from afteredit.store.plain_json import printable

# The keys in which runs of one method may differ and still be one line: the seed, and what no weight depends on.
NOT_OF_A_METHOD = ("model", "task", "tracker", "harness", "harness_path", "limit", "data", "held_out",
                   "held_out_tokens", "speed", "runs", "resume", "replay", "seed", "n_edits", "eval_every", "eval_at",
                   "device", "setting", "own_code", "measure", "plan", "locate", "change_shares", "on_collapse",
                   "collapse_perplexity")  # fmt: skip
# The edit set's name stands in the title; older versions had two keys of speed elsewhere.
NOT_OF_A_METHOD_EITHER = ("edits", "edits.name", "method.together", "evaluate.cache_gib")


def by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Returns the runs by label: the method's name, and in brackets the values in which runs of that name differ.

    Only keys that all of them have are compared: a key that some lack was added or dropped by a version.
    """
    values = {id(run): _values(run) for run in runs}
    labelled: dict[str, list[Run]] = {}
    for run in runs:
        this = values[id(run)]
        others = [values[id(other)] for other in runs if other.method == run.method]
        keys = [key for key in sorted(set.intersection(*map(set, others))) if any(o[key] != this[key] for o in others)]
        differences = ", ".join(f"{key.rpartition('.')[2]}={this[key]}" for key in keys)
        labelled.setdefault(f"{run.method} ({differences})" if differences else run.method, []).append(run)
    return {label: sorted(labelled[label], key=lambda run: (run.seed, run.name)) for label in sorted(labelled)}


def differences(run: Run, other: Run) -> list[str]:
    """Returns what keeps two runs from being one line: model, edit set, facts, data, and keys of a method.

    What one of them does not say, being of an older version, is taken to be the same.
    """
    this, that = ({"model": run.fingerprint, "edits": edit_set(run), "facts": run.facts, "data": _data(run),
                   **_values(run)} for run in (run, other))  # fmt: skip
    return [key for key, value in this.items() if value is not None and that.get(key) not in (None, value)]


def comparison_title(run: Run) -> str:
    """Returns model, edit set, setting and evaluation in words; runs are compared where all of this is the same.

    A name may stand for several models or sets of facts (another file, another start token): hashes of their contents,
    which older versions did not keep, tell them apart.
    """
    parts = [model_in_words(run), edit_set(run), at(run.config, "setting")]
    limit = at(run.config, "limit")
    rows = f"data {_data(run)}" + (f", {limit} rows each" if limit else "")
    contents = [f"{what} {sha256[:8]}" for what, sha256 in (("model", run.fingerprint), ("facts", run.facts)) if sha256]
    evaluation = f"evaluation {run.evaluation or _evaluation(run)}"
    return " · ".join([*(str(part) for part in parts if part), rows, *contents, evaluation])


def model_name(run: Run) -> str:
    """Returns the model's name, or its source where the name is `hf`, as of every model without a file of its own."""
    return str(at(run.config, "model.source") or run.model) if run.model == "hf" else run.model


def model_in_words(run: Run) -> str:
    """Returns the model's name with the types in which a GGUF file held its weights: "Q4_1 79 %, …, dequantised"."""
    return f"{model_name(run)} ({printable(str(run.weights))})" if run.weights else model_name(run)


def edit_set(run: Run) -> str:
    """Returns the edit set's name; a sweep agent's config holds the name alone in place of the group's keys."""
    edits = run.config.get("edits")
    return edits if isinstance(edits, str) else str(at(edits, "name", ""))


def _data(run: Run) -> str:
    """Returns where the rows come from; a folder's path is not shown."""
    return Path(str(at(run.config, "data"))).name


def _values(run: Run) -> dict[str, str]:
    """Returns the keys of a run's config that tell methods apart, with their values as text."""
    return {key: text for key, text in _flat(run.config) if _tells_methods_apart(key)}


def _evaluation(run: Run) -> str:
    """Returns a name made from the config, for runs whose results file has no digest in its name."""
    keys = ("task", "harness", "limit", "data", "held_out", "held_out_tokens")
    text = json.dumps([at(run.config, key) for key in keys], sort_keys=True, default=str)
    return "of " + hashlib.sha256(text.encode()).hexdigest()[:8]


def _tells_methods_apart(key: str) -> bool:
    """Tells whether two values of `key` make two methods; those of a key that the lists do not hold do."""
    return key.split(".")[0] not in NOT_OF_A_METHOD and key not in NOT_OF_A_METHOD_EITHER


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns every key with its dots, and its value as text; of `_target_` the class alone, since files may move."""
    pairs = []
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{path}.")
        else:
            whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
            text = str(int(value) if whole else value)  # 1.0 is 1
            pairs.append((path, text.rpartition(".")[2] if key == "_target_" else text))
    return pairs

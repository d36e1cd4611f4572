"""Writes a run's abilities as lm-eval writes its own results, so that its tools and leaderboards read them.

A checkpoint is a model of its own: <out>/<run>__<n_edits>/results_<date>.json and samples_<task>_<date>.jsonl.  What a
run does not keep is left out: a prompt stands there without its few-shot examples, and a choice without whether it is
what the model would say by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from afteredit.analysis.read.run import Run, at
from afteredit.store.atomic_files import write_atomically
from afteredit.store.errors import BadInput

Row = Mapping[str, Any]


def write_lm_eval(runs: Sequence[Run], out: Path) -> Path:
    """Writes every checkpoint of the runs into the folder `out` and returns it.

    Raises BadInput where a run measured no ability.
    """
    for run in runs:
        if not run.abilities:
            raise BadInput(f"{run.name} measured no ability (evaluation {run.evaluation}); measure some: task=[nli]")
        for row in (run.rows[0], *run.edited):
            _write_checkpoint(run, row, out)
    return out


def _write_checkpoint(run: Run, row: Row, out: Path) -> None:
    now = datetime.now()
    date, name = now.isoformat().replace(":", "-"), f"{run.name}__{row['n_edits']:06d}"
    (out / name).mkdir(parents=True, exist_ok=True)
    samples = {task: _samples(run, task, row["n_edits"]) for task in run.abilities}
    for task, lines in samples.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        if lines:
            write_atomically(out / name / f"samples_{task}_{date}.jsonl", text.encode())
    results = _results(run, row, samples) | {"date": now.timestamp(), "model_name": name, "model_name_sanitized": name}
    write_atomically(out / name / f"results_{date}.json", json.dumps(results, indent=2, ensure_ascii=False).encode())


def _results(run: Run, row: Row, samples: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns the aggregated results under lm-eval's keys."""
    configs = {task: _config(run, task) for task in run.abilities}
    packages = at(run.environment, f"evaluators.{row.get('evaluator')}.packages") or {}
    counts = {task: len(lines) for task, lines in samples.items()}
    model = f"pretrained={at(run.config, 'model.source')},method={run.method},n_edits={row['n_edits']}"
    return {
        "results": {task: _scores(run, task, row) for task in run.abilities},
        "group_subtasks": {}, "configs": configs,
        "versions": {task: at(configs[task], "metadata.version") or "N/A" for task in run.abilities},
        "n-shot": {task: configs[task].get("num_fewshot") or 0 for task in run.abilities},
        "higher_is_better": {task: _directions(configs[task]) for task in run.abilities},
        "n-samples": {task: {"original": n, "effective": n} for task, n in counts.items()},
        "config": {"model": "afteredit", "model_args": f"{model},evaluation={run.evaluation}", "batch_size": None,
                   "limit": run.config.get("limit"), "bootstrap_iters": 0},
        "git_hash": run.environment.get("commit"), "transformers_version": packages.get("transformers"),
        "lm_eval_version": packages.get("lm_eval"), "model_source": "afteredit",
        "task_hashes": {task: _sha256("".join(line["doc_hash"] + line["prompt_hash"] + line["target_hash"]
                                              for line in lines)) for task, lines in samples.items()},
    }  # fmt: skip


def _ability(run: Run, task: str) -> Row:
    """Returns what decided an ability's scores: its headline, its lm-eval task."""
    decided = run.environment.get("evaluations", {}).get(run.evaluation, {}).get("tasks", {})
    return decided.get(task) or at(run.config, f"task.{task}") or {}


def _config(run: Run, task: str) -> dict[str, Any]:
    """Returns the task's config; of one that lm-eval has by name the name, and its headline."""
    ability = _ability(run, task)
    config = ability.get("lm_eval")
    inline = dict(config) if isinstance(config, Mapping) else {}
    return {"task": task, "metric_list": [{"metric": ability.get("headline", "score")}], **inline}


def _directions(config: Row) -> dict[str, bool]:
    return {metric["metric"]: metric.get("higher_is_better", True) for metric in config["metric_list"]}


def _filter(config: Row) -> str:
    filters = config.get("filter_list") or [{"name": "none"}]
    return str(filters[-1]["name"])


def _scores(run: Run, task: str, row: Row) -> dict[str, Any]:
    """Returns the metrics as `metric,filter`, and the headline's standard error where it is a mean over examples."""
    config, headline = _config(run, task), _ability(run, task).get("headline", "score")
    name, prefix = _filter(config), f"ability/{task}/"
    others = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
    values = {headline: row[f"ability/{task}"], **others}
    errors: dict[str, Any] = dict.fromkeys(values, "N/A")
    examples = run.examples.get((task, row["n_edits"]))
    if examples is not None and len(examples) > 1 and bool((examples["denominator"] == 1).all()):
        errors[headline] = float(examples["numerator"].std() / len(examples) ** 0.5)
    stated: dict[str, Any] = {"alias": task}
    for metric, value in values.items():
        stated |= {f"{metric},{name}": value, f"{metric}_stderr,{name}": errors[metric]}
    return stated


def _samples(run: Run, task: str, n_edits: int) -> list[dict[str, Any]]:
    """Returns a line for each example; questions are kept beside the unedited model's answers."""
    examples = run.examples.get((task, n_edits))
    if examples is None:
        return []
    asked = run.examples.get((task, 0), examples)
    config, headline = _config(run, task), _ability(run, task).get("headline", "score")
    lines = []
    for doc_id, said in examples.iterrows():
        question = asked.loc[doc_id] if doc_id in asked.index else said
        lines.append(_sample(int(float(str(doc_id))), said, question, config, headline))
    return lines


def _sample(doc_id: int, said: pd.Series, asked: pd.Series, config: Row, headline: str) -> dict[str, Any]:
    question, wanted = _text(asked, "question"), _text(asked, "wanted")
    choices = json.loads(_text(asked, "choices") or "[]")
    doc = {"question": question, "wanted": wanted, "choices": choices}
    target = str(choices.index(wanted)) if wanted in choices else wanted
    delimiter = config.get("target_delimiter", " ")
    asks = [delimiter + choice for choice in choices] or [config.get("generation_kwargs", {})]
    values = said.get("log_likelihoods")
    answers = [[str(float(value)), "N/A"] for value in values] if _is_list(values) else [_text(said, "answer")]
    score = float(said["numerator"]), float(said["denominator"])
    metrics = {headline: score[0] if score[1] == 1 else list(score)}
    if "unparseable" in _directions(config):
        metrics["unparseable"] = float(said["unparseable"])
    return {
        "doc_id": doc_id, "doc": doc, "target": target,
        "arguments": {f"gen_args_{i}": {"arg_0": question, "arg_1": asked_for} for i, asked_for in enumerate(asks)},
        "resps": [[answer] for answer in answers], "filtered_resps": answers, "filter": _filter(config),
        "metrics": list(metrics), "doc_hash": _sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _sha256(question), "target_hash": _sha256(target),
        **metrics,
    }  # fmt: skip


def _text(row: pd.Series, column: str) -> str:
    """Returns a kept text; nothing where the run, or this copy of it, does not hold it."""
    value = row.get(column)
    return value if isinstance(value, str) else ""


def _is_list(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

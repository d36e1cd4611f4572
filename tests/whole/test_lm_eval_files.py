"""`export --lm-eval`: what lm-eval itself would have written of the same measurement, read by lm-eval's own readers."""

from __future__ import annotations

import copy
import json
import statistics
from pathlib import Path

import datasets
import lm_eval.evaluator
import pytest
from lm_eval.loggers import EvaluationTracker
from lm_eval.utils import get_file_task_name, get_results_filenames, get_sample_results_filenames, make_table

from afteredit.analysis.__main__ import main as analysis
from afteredit.run import main

LOST = {"doc", "arguments", "doc_hash", "prompt_hash", "resps", "filtered_resps"}  # a run keeps no whole prompts


@pytest.fixture
def exported(tiny_folder, tmp_path, monkeypatch) -> tuple[Path, list[dict]]:
    """A run's exported files, and all that lm-eval returned while it was measured."""
    returned: list[dict] = []
    evaluate = lm_eval.evaluator.evaluate

    def kept(*arguments, **settings):
        returned.append(evaluate(*arguments, **settings))
        return copy.deepcopy(returned[-1])

    monkeypatch.setattr(lm_eval.evaluator, "evaluate", kept)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    assert main(["model=hf", f"model.source={tiny_folder}", "method.second_moment=identity", "method.layer=1",
                 "method.value_steps=2", "method.contexts_short=0", "method.contexts_long=0", "task=[sentiment,ner]",
                 "limit=3", "n_edits=1", "eval_every=1", "held_out_tokens=64", "device=cpu", "tracker=none",
                 f"runs={tmp_path}/runs"]) == 0  # fmt: skip
    assert analysis(["export", "--lm-eval", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out", returned


def test_lm_evals_readers_find_and_read_them(exported, tmp_path):
    out, _ = exported
    files = [str(path) for path in out.rglob("*.json*")]
    results, samples = get_results_filenames(files), get_sample_results_filenames(files)
    assert [Path(path).parent.name[-6:] for path in sorted(results)] == ["000000", "000001"]
    assert sorted(get_file_task_name(Path(path).name) for path in samples) == ["ner", "ner", "sentiment", "sentiment"]
    for path in results:
        table = make_table(json.loads(Path(path).read_text("utf-8")))
        assert "|sentiment|" in table.replace(" ", "") and "acc" in table and "f1" in table
    for path in samples:
        rows = datasets.load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path / "datasets"))
        assert len(rows) == 3 and rows[0]["arguments"]["gen_args_0"]["arg_0"]


def test_they_say_what_lm_eval_itself_writes(exported, tmp_path):
    out, returned = exported
    for results in returned[:2]:  # the unedited model's, one task after the other
        (task,), samples = results["results"], results.pop("samples")
        tracker = EvaluationTracker(output_path=str(tmp_path / "theirs"))
        tracker.general_config_tracker.log_experiment_args("hf", f"pretrained={task}", None, None, False)
        tracker.save_results_aggregated(results, samples)
        tracker.save_results_samples(task, samples[task])
        (theirs,) = map(read, (tmp_path / "theirs" / task).glob("results_*.json"))
        (ours,) = map(read, out.glob("*__000000/results_*.json"))
        shared = {key for key in ours["results"][task] if "_stderr" not in key} & set(theirs["results"][task])
        assert {"alias"} < shared
        assert {key: ours["results"][task][key] for key in shared} == {
            key: theirs["results"][task][key] for key in shared
        }
        assert ours["group_subtasks"] == theirs["group_subtasks"]
        for key in ("n-shot", "n-samples", "higher_is_better"):
            assert ours[key][task] == theirs[key][task], key
        (lines,) = map(read_lines, (tmp_path / "theirs" / task).glob("samples_*.jsonl"))
        (own_lines,) = map(read_lines, out.glob(f"*__000000/samples_{task}_*.jsonl"))
        assert ours["results"][task] | stated_errors(task, own_lines) == ours["results"][task]
        for line, own in zip(lines, own_lines, strict=True):
            said = set(own) - LOST
            assert set(line) >= LOST
            assert {key: own[key] for key in said} == {key: line[key] for key in said}
            if task == "ner":
                assert own["resps"] == line["resps"]
            else:
                values = [[float(choice[0][0]) for choice in each["resps"]] for each in (own, line)]
                assert values[0] == pytest.approx(values[1])


def stated_errors(task: str, lines: list[dict]) -> dict:
    """Accuracy's standard error is that of a mean; F1 over all names of a task is no mean over its rows."""
    if task == "ner":
        return {"f1_stderr,none": "N/A", "unparseable_stderr,none": "N/A"}
    error = statistics.stdev(line["acc"] for line in lines) / len(lines) ** 0.5
    return {"acc_stderr,none": pytest.approx(error)}


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

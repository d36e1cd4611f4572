"""Made-up run directories, as the main job writes them, and a way to make a part of the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
import yaml
from matplotlib import pyplot as plt

from afteredit.analysis import report
from afteredit.analysis.numbers.comparison import Comparison, comparisons
from afteredit.analysis.read.run_folders import read
from afteredit.evaluate.retention import of_one_scoring
from afteredit.store.checked_lines import with_check, write_checked

TASKS = {
    "nli": {"title": "Inference", "chance": 0.5},
    "reasoning": {"title": "Reasoning", "chance": 0.0},
}
Right = Mapping[str, Sequence[float]]  # ability: each example's score


def checked(record: Mapping) -> str:
    """A line as a run writes it."""
    record = {key: value for key, value in record.items() if key != "check"}
    text = json.dumps(record, ensure_ascii=False, sort_keys=True)
    check = hashlib.sha256(text.encode()).hexdigest()[:16]
    return json.dumps({**record, "check": check}, ensure_ascii=False, sort_keys=True) + "\n"


def write_run(
    runs: Path,
    method: str,
    seed: int,
    checkpoints: Mapping[int, Right],
    *,
    measurable: Sequence[str] = ("nli",),
    perplexity: Mapping[int, float] | None = None,
    config: Mapping | None = None,
    environment: Mapping | None = None,
    digest: str = "aaaaaaaa",
    tasks: Mapping[str, Mapping] = TASKS,
) -> Path:
    """A run directory whose scores are the means of `checkpoints`' examples; gold NLL is 1 − score."""
    folder = runs / f"{method}-tiny-{seed:08x}"
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    whole = {"model": {"name": "tiny"}, "method": {"_target_": f"afteredit.edit.{method}.X", "layer": 1},
             "constraint": {"_target_": "afteredit.edit.constraint.Unconstrained"}, "edits": {"name": "facts"},
             "task": {name: dict(tasks[name]) for name in checkpoints[0]}, "seed": seed, "setting": "sequential",
             "data": "mini", "limit": None, "collapse_perplexity": 100.0, **(config or {})}  # fmt: skip
    (folder / "config.yaml").write_bytes(with_check(yaml.safe_dump(whole).encode()))
    stored = {"evaluations": {}, "model": {"name": "tiny"}, "facts": "fac7" * 16}
    write_checked(folder / "environment.json", stored if environment is None else environment)
    edits = [{"n_edits": n, "requests": [{"id": str(n)}], "edit_s": 1.5} for n in range(1, max(checkpoints) + 1)]
    (folder / "edits.jsonl").write_text("".join(map(checked, edits)), encoding="utf-8")
    rows = []
    for n_edits, abilities in checkpoints.items():
        score = {name: sum(right) / len(right) for name, right in abilities.items()}
        row: dict = {"n_edits": n_edits, "drift/perplexity": (perplexity or {}).get(n_edits, 20.0 + n_edits),
                     "drift/1/relative_norm": 0.01 * n_edits, "editing/retained/prob/efficacy": 1.0 * (n_edits > 0),
                     "editing/retained/generated/efficacy": 0.9 * (n_edits > 0)}  # fmt: skip
        for name, value in score.items():
            row |= {
                f"ability/{name}": value,
                f"ability/{name}/gold_nll": 1 - value,
                f"ability/{name}/unparseable": 0.25,
                f"ability/{name}/ran_out": 0.125,
            }
        if n_edits == 0:
            base, row["measurable"] = score, list(measurable)
        chance = {name: tasks[name]["chance"] for name in of_one_scoring(measurable, abilities)}
        kept = [(score[name] - level) / (base[name] - level) for name, level in chance.items()]
        rows.append(row | ({"ability/retained": sum(kept) / len(kept)} if kept else {}))
        pd.DataFrame([
            {"n_edits": n_edits, "kind": "ability", "name": name, "doc_id": float(i), "numerator": value,
             "denominator": 1.0, "gold_nll": 1 - value, "unparseable": 0.25}
            for name, right in abilities.items() for i, value in enumerate(right)
        ]).to_parquet(folder / "samples" / f"{digest}-{n_edits:06d}.parquet")  # fmt: skip
    (folder / f"results-{digest}.jsonl").write_text("".join(map(checked, rows)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def made_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture
def only_parts(monkeypatch) -> Callable[..., None]:
    """Restricts the report to the parts that the files of these names make; drawing all of them takes seconds."""
    files = report.part_files()

    def restrict(*names: str) -> None:
        chosen = [file for file in files if file.__name__.rpartition(".")[2] in names]
        monkeypatch.setattr(report, "part_files", lambda: chosen)

    return restrict


def right(n: int) -> dict:
    return {"nli": [1.0] * n + [0.0] * (20 - n), "reasoning": [0.0] * 20}


@pytest.fixture
def losses(tmp_path, made_run) -> Comparison:
    """memit loses nothing.  rome, by nli: seed 1 keeps (16 − 10)/8 = 75 % after 10, 0 after 20; seed 2 all, then half.

    Perplexity 20, then as given: +10 % is past 22.
    """
    made_run(tmp_path, "memit", 3, {n: right(18) for n in (0, 10, 20)}, perplexity={10: 20.0, 20: 30.0})
    made_run(tmp_path, "rome", 1, {0: right(18), 10: right(16), 20: right(10)}, perplexity={10: 21.0, 20: 9000.0})
    made_run(tmp_path, "rome", 2, {0: right(18), 10: right(18), 20: right(14)}, perplexity={10: 22.5, 20: 25.0})
    (only,) = comparisons(read([tmp_path]))
    return only


@pytest.fixture(scope="session")
def three_runs(tmp_path_factory, made_run) -> Path:
    folder = tmp_path_factory.mktemp("report") / "runs"
    full, worse = ({"nli": [1.0] * n + [0.0] * (10 - n), "reasoning": [0.0] * 10} for n in (9, 7))
    for method, seed in (("rome", 1), ("rome", 2), ("memit", 3)):
        made_run(folder, method, seed, {0: full, 5: worse, 10: full if seed == 3 else worse})
    return folder


@pytest.fixture
def x(three_runs) -> Iterator[Comparison]:
    """memit (one seed): nli 100, 50, 100 % left at 0, 5, 10; rome (two seeds): 100, 50, 50; perplexity 20, 25, 30."""
    (only,) = comparisons(read([three_runs]))
    yield only
    plt.close("all")

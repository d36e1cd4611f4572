"""Sweeps as jobs: each run in a process of its own, by submitit; one that is preempted stops and goes on later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from afteredit.launch.command_line import compose
from afteredit.launch.endings import Interrupted
from afteredit.run import main
from afteredit.store.checked_lines import Lines
from afteredit.store.errors import BadInput
from afteredit.store.interruption import Interruption

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'afteredit[slurm]'")
N_EDITS = 6


class Kept(Exception):
    """The file that a job is submitted by was written."""


@pytest.fixture
def command(tiny_folder, few_facts, tmp_path) -> list[str]:
    return ["model=hf", f"model.source={tiny_folder}", "method.second_moment=identity", "method.layer=1",
            "method.value_steps=8", "method.contexts_short=0", "method.contexts_long=0", "method.stop_loss=0",
            "task=none", f"n_edits={N_EDITS}", "eval_every=1", "held_out_tokens=64", "device=cpu",
            "tracker=none", few_facts]  # fmt: skip


def only_run(runs: Path) -> Path:
    (edits,) = runs.glob("*/edits.jsonl")
    return edits.parent


def hashes(run: Path) -> list[str]:
    return [row["weights_sha256"] for path in run.glob("results-*.jsonl") for row in Lines(path).records]


def child_of(process: int) -> int:
    (child,) = map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
    return child


def until(found, process: subprocess.Popen) -> list:
    """Waits for what `found` returns."""
    while not (value := found()):
        assert process.poll() is None, "the command ended before"
        time.sleep(0.005)
    return value


def test_a_job_that_is_preempted_stops_at_a_whole_edit_and_goes_on(command, tmp_path):
    runs = tmp_path / "runs"
    jobs = ["-m", "hydra/launcher=submitit_local", f"runs={runs}", "seed=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    process = subprocess.Popen([sys.executable, "run.py", *command, *jobs], cwd=ROOT, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    (edits,) = until(lambda: [path for path in runs.glob("rome-*/edits.jsonl") if path.stat().st_size], process)
    (log,) = (runs / "multirun" / ".submitit").glob("*/*_log.out")
    os.kill(child_of(int(log.parent.name.partition("_")[0])), signal.SIGUSR2)
    assert process.wait(timeout=300) == 0, process.stdout.read()
    text = log.read_text()
    assert text.count("stopped; the same command goes on") == 1 and "Requeued job" in text

    whole = tmp_path / "whole"
    assert main([*command, f"runs={whole}", "seed=1"]) == 0
    stopped, uninterrupted = hashes(edits.parent), hashes(only_run(whole))
    assert stopped == uninterrupted and len(stopped) == N_EDITS + 1
    assert only_run(runs) == edits.parent and len(Lines(edits).records) == N_EDITS


def test_a_signal_that_nobody_listens_to_is_left_alone():
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    with Interruption():
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    heard: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _frame: heard.append(number))
    try:
        with pytest.raises(Interrupted) as stopped, Interruption() as interruption:
            signal.raise_signal(signal.SIGUSR2)
            interruption.check()
        signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    assert stopped.value.signal_number == signal.SIGUSR2 and heard == [signal.SIGUSR2]


def test_the_slurm_file_asks_for_one_gpu_and_for_a_place_in_the_queue_again(tmp_path, monkeypatch):
    import submitit
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.launcher.setup=[module load cuda]"]
        config = hydra_compose("run", overrides, return_hydra_config=True)
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")  # submitit looks whether there is SLURM
    config.hydra.launcher.submitit_folder = str(tmp_path / "jobs")
    launcher = instantiate(config.hydra.launcher)
    make, texts = submitit.SlurmExecutor._make_submission_file_text, []

    def keep(*given) -> str:
        texts.append(make(*given))
        raise Kept

    monkeypatch.setattr(submitit.SlurmExecutor, "_make_submission_file_text", keep)
    launcher.setup(hydra_context=None, task_function=print, config=config)
    with pytest.raises(Kept):
        launcher.launch([["seed=0"], ["seed=1"]], 0)
    lines = texts[0].splitlines()
    for flag in (
        "partition=gpu",
        "gpus-per-node=1",
        "signal=USR2@600",
        "time=720",
        "mem=32GB",
        "requeue",
        "array=0-1%2",
    ):
        assert f"#SBATCH --{flag}" in lines
    assert "module load cuda" in lines


def test_without_the_plug_in_the_command_that_brings_it_is_named(monkeypatch):
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    Plugins.instance()  # by then it has registered its launchers
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], "submitit_slurm.yaml", raising=False)
    with pytest.raises(BadInput, match=r"pip install 'afteredit\[slurm\]'"):
        compose(["hydra/launcher=slurm", "task=none"])

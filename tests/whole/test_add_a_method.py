"""Adding a method takes one Python file and one YAML: shown in a copy of the project that gets just these two."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

METHOD = '''"""Toy: the new answer's embedding is written at the subject's key."""

from dataclasses import dataclass

from afteredit.edit.method import Method, Prepared
from afteredit.edit.update import LowRank, Update


@dataclass(frozen=True)
class Toy(Method):
    layer: int = 0
    strength: float = 1.0

    def edited(self, lm):
        return [lm.mlp_out_name(self.layer)]

    def prepare(self, lm, given):
        return Prepared()

    def update(self, lm, requests, prepared, state):
        import torch

        from afteredit.edit.ingredients.subject_keys import subject_keys

        keys_FE = subject_keys(lm, requests, prepared.contexts, self.layer)
        embeddings_VD = lm.model.get_input_embeddings().weight
        rows = [embeddings_VD[lm.tokens.answer_ids(r.target_new, r.question)[0]] for r in requests]
        left_DE = self.strength * torch.stack(rows, 1)
        return Update({lm.mlp_out_name(self.layer): LowRank(left_DE, keys_FE / keys_FE.norm(dim=0))})
'''


RUN = """
import runpy, sys
try:
    runpy.run_path("run.py", run_name="__main__")
finally:
    print("loaded:", *(module.__file__ for name, module in sys.modules.items() if name.startswith("afteredit.")
                       and getattr(module, "__file__", None)), sep="\\n")
"""


def test_one_python_file_and_one_yaml_make_a_method(tmp_path, tiny_folder):
    copy = tmp_path / "path" / "afteredit"
    left_out = shutil.ignore_patterns(".*", "tests", "docs", "bench", "runs", "wandb", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=left_out)

    (copy / "edit" / "methods" / "toy.py").write_text(METHOD)
    yaml = "_target_: afteredit.edit.methods.toy.Toy\nlayer: 1\nstrength: 2.0\n"
    (copy / "conf" / "method" / "toy.yaml").write_text(yaml)

    command = [sys.executable, "-c", RUN, "method=toy", "model=hf", f"model.source={tiny_folder}", "task=none",
               "n_edits=4", "batch_size=2", "eval_every=2", "held_out_tokens=64", "tracker=none", "device=cpu",
               "constraint=rect", f"runs={tmp_path}/runs"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "path"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = done.stdout.partition("loaded:\n")[2].splitlines()
    assert str(copy / "edit" / "methods" / "toy.py") in loaded
    installed = [path for path in loaded if not path.startswith(f"{copy}/")]
    assert not installed, "a file missing in the copy came from the installed project, where it may say anything"
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("toy-hf-")
    (path,) = folder.glob("results-*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["n_edits"] for row in rows] == [0, 2, 4]
    assert rows[0]["drift/1/relative_norm"] == 0
    assert rows[1]["drift/1/relative_norm"] > 0

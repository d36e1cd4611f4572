"""`evaluate` is Hugging Face's in our process too, because lm-eval's metrics import it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import afteredit.run, afteredit.evaluate.measure, afteredit.evaluate.abilities.lm_eval_model
import evaluate
assert callable(evaluate.load), evaluate
try:
    import lm_eval.tasks.humaneval.utils
except Exception as problem:
    print(type(problem).__name__, "|", [kind.__name__ for kind in type(problem).__mro__], "|", str(problem)[:200])
else:
    print("imported")
"""


def test_in_run_pys_process_evaluate_is_hugging_faces(tmp_path):
    """Importing lm-eval's humaneval module loads a metric from the hub: offline that fails, and nothing else does."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env={**os.environ, **offline}, capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    kinds = ("OfflineModeIsEnabled", "ConnectionError", "FileNotFoundError", "LocalEntryNotFoundError")
    assert any(kind in done.stdout for kind in kinds), done.stdout
    assert "AttributeError" not in done.stdout and "ImportError" not in done.stdout

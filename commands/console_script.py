"""Is the command `afteredit`: a thin door to `python run.py` and `python -m afteredit.analysis`.

It runs these programs as they are, so that both ways in do the same.
"""

from __future__ import annotations

import runpy
import sys
from importlib.metadata import version

# what each says to run.py where the command does not
OF_RUN = {"run": "", "chat": "replay.chat=true", "locate": "locate=trace", "plan": "plan=machine"}
OF_ANALYSIS = ("show", "report", "study", "limits", "export", "dashboard")
USAGE = """\
usage: afteredit COMMAND …

  run KEY=VALUE …                    edits a model and measures it; run --help lists the keys
  chat replay.run=DIR replay.at=N    talks to a run's model after N edits, beside the unedited one
  locate KEY=VALUE …                 finds the blocks of a model to edit; locate=tune tries them on rows
  plan KEY=VALUE …                   says what a run would cost on this machine; plan=given: on another
  show RUNS…                         lists runs in the terminal, or draws the curves of one
  report RUNS…                       writes a page with every picture and number of runs
  study RUNS…, limits RUNS…          draws the figures of Gu et al., and how far each method comes
  export --lm-eval RUNS…             writes abilities as lm-eval's own result files
  dashboard --wandb ENTITY/PROJECT   makes a workspace and a report in W&B

`run` to `plan` are `python run.py`, the others `python -m afteredit.analysis`; --version says the release.
"""


def main() -> int:
    """Runs the program that the first word of the command line names.  Returns 2 where it names none."""
    command, *words = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        sys.stdout.write(USAGE)
    elif command == "--version":
        sys.stdout.write(f"afteredit {version('afteredit')}\n")
    elif command in OF_RUN:
        override = OF_RUN[command]
        key = override.partition("=")[0]
        said = not override or any(word.startswith(f"{key}=") for word in words)
        sys.argv[1:] = words if said else [*words, override]
        runpy.run_module("afteredit.run", run_name="__main__", alter_sys=True)
    elif command in OF_ANALYSIS:
        runpy.run_module("afteredit.analysis", run_name="__main__", alter_sys=True)
    else:
        meant = "; did you mean afteredit run?" if "=" in command else ""
        sys.stderr.write(f"error: afteredit has no command {command!r}{meant}\n\n{USAGE}")
        return 2
    return 0

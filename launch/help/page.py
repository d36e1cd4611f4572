"""The page of `python run.py --help`: usage, examples, and the keys, with what is said beside them in conf/run.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from afteredit.launch.compose import CONF
from afteredit.record.environment import RUN
from afteredit.record.terminal import PlainConsole, bold

ABOUT = "Edits facts into a language model, one after another, and measures what it has left after every few."
USAGE = "[KEY=VALUE …] [-m] [--config-dir DIR] [--cfg job] [--help]"
EXAMPLES = {  # what stands after `python run.py`
    "": "ROME, SmolLM2, 20 embedded facts, eight abilities",
    'edits.fact="The capital of {Peru} is → Oslo"': "a fact of your own",
    "edits=my edits.file=facts.csv n_edits=10": "a file of them",
    "n_edits=100 eval_every=10 edits.order=shuffled seed=1": "in another order",
    "method=memit n_edits=50 batch_size=10 eval_every=10": "batch after batch",
    "constraint=rect constraint.keep=0.4": "a constraint on every update",
    "task=[sentiment,nli] harness=[hellaswag]": "other abilities",
    "model=hf model.source=<hub id or folder> device=cuda": "another model",
    "-m method=rome,memit seed=1,2": "four runs, one after another",
    "replay.run=runs/<run> replay.at=37 task=[nli]": "back in a run: measure it after 37 edits",
}
GROUPS = {  # whose keys are the same whichever file is chosen
    "edits/base": "edits.…: where the facts are, and how they are read",
    "tracker/wandb": "tracker.…: Weights & Biases",
}
CHOICES = "choices: a file of conf/ each, with keys of its own, such as method.layer=5 and edits.file=facts.csv"
END = "The same command goes on with the same run.  What is done with runs: python -m afteredit.analysis --help"
OPTIONS = {
    "-m": "every combination of the values that keys are given, one run each: seed=1,2,3",
    "--config-dir DIR": "files of your own beside those of conf/",
    "--cfg job": "print the whole config, with every key of method, model, edits and constraint, and run nothing",
    "--hydra-help": "Hydra's other flags",
}
KEY = re.compile(r" *(?:- )?(?P<key>\w+):(?: (?P<value>[^\s#]+))?(?:\s+# (?P<meaning>.*))?")
MORE = re.compile(r"\s+# (.*)")
Rows = dict[str, str]


def print_help() -> None:
    """Prints the page, as wide as the terminal is."""
    console = PlainConsole()
    console.print(ABOUT)
    console.print(bold("\nusage: ", f"{RUN} {USAGE}"))
    console.print(bold("\nexamples"))
    for arguments, meaning in EXAMPLES.items():
        console.print(Text(f"  # {meaning}", style="dim"))
        console.print(f"  {RUN} {arguments}".rstrip())
    _print(console, "options", OPTIONS)
    sections = read_keys((CONF / "run.yaml").read_text(encoding="utf-8").splitlines())
    choices = {row: f"{meaning}\n({', '.join(entries(row.partition('=')[0]))})"
               for row, meaning in sections.pop("defaults").items()}  # fmt: skip
    _print(console, CHOICES, choices)
    for title, rows in (sections | {title: group_keys(file) for file, title in GROUPS.items()}).items():
        _print(console, title, rows)
    console.print(f"\n{END}")


def group_keys(file: str) -> Rows:
    """Returns `group.key=value` with its meaning of a file that all of its group start from."""
    rows = read_keys((CONF / f"{file}.yaml").read_text(encoding="utf-8").splitlines())["keys"]
    return {f"{file.partition('/')[0]}.{row}": meaning for row, meaning in rows.items() if "???" not in row}


def read_keys(lines: Iterable[str]) -> dict[str, Rows]:
    """Returns, for each group of keys in conf/run.yaml, `key=value` with its meaning; the groups' names hold what is
    said above them."""
    sections: dict[str, Rows] = {"defaults": {}, "keys": {}}
    above: list[str] = []
    group = row = ""
    for line in lines:
        found, more = KEY.fullmatch(line), MORE.fullmatch(line)
        if line.startswith("hydra:"):
            break
        if line.startswith("#") or not line:
            above = [*above, line[2:]] if line else []
        elif more:
            sections[group or "keys"][row] += f" {more[1]}"
        elif found and found["value"] is None:
            group = "defaults" if found["key"] == "defaults" else f"{found['key']}.…: {' '.join(above)}"
            sections.setdefault(group, {})
        elif found:
            group = group if line.startswith(" ") else ""
            key = found["key"] if group in ("", "defaults") else f"{group.partition('.')[0]}.{found['key']}"
            row = f"{key}={found['value']}"
            sections[group or "keys"][row] = found["meaning"] or ""
    return sections


def entries(group: str) -> list[str]:
    """Returns the files of a group of conf/ that may be chosen, and the folders of it that hold more."""
    folder = CONF / group
    files = [path.stem for path in folder.glob("*.yaml") if path.stem != "base"]
    return sorted([*files, *(f"{path.name}/…" for path in folder.iterdir() if path.is_dir())])


def _split(title: str) -> tuple[str, str]:
    name, colon, rest = title.partition(":")
    return name, colon + rest


def _print(console: PlainConsole, title: str, rows: Rows) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, meaning in rows.items():
        table.add_row(f"  {key}", meaning)
    console.print(bold(*_split(f"\n{title}")))
    console.print(table)

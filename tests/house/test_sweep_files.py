"""Hydra composes, and our config accepts, every run of every sweep that is shipped."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml

from afteredit.launch.command_line import compose

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "sweep.yaml", *sorted((ROOT / "sweeps").glob("*.yaml"))]


def choices(parameter: dict) -> list:
    return parameter["values"] if "values" in parameter else [parameter["value"]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_value_composes(path):
    """Composes each value of each parameter once, with the first of all others."""
    sweep = yaml.safe_load(path.read_text())
    assert sweep["command"] == ["${env}", "python", "${program}", "${args_no_hyphens}"] and sweep["method"] == "grid"
    metric = "ability/retained" if "early_terminate" in sweep else "summary/retained/area"  # of a checkpoint, of a run
    assert (ROOT / sweep["program"]).is_file() and sweep["metric"] == {"name": metric, "goal": "maximize"}
    values = {key: choices(parameter) for key, parameter in sweep["parameters"].items()}
    first = {key: options[0] for key, options in values.items()}
    for key, options in values.items():
        for value in options:
            x = compose([f"{name}={given}" for name, given in ({"task": "none"} | first | {key: value}).items()])
            assert x.settings.seed in values["seed"]


def test_the_default_is_methods_by_model_by_three_seeds():
    parameters = yaml.safe_load((ROOT / "sweep.yaml").read_text())["parameters"]
    assert set(parameters["method"]["values"]) == {p.stem for p in (ROOT / "conf" / "method").glob("*.yaml")} - {"mend"}
    assert len(parameters["seed"]["values"]) == 3
    grid = list(itertools.product(*map(choices, parameters.values())))
    assert len(grid) == 3 * len(parameters["method"]["values"]) * len(parameters["model"]["values"])

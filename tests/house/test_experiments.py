"""Every experiment says what was published, what is expected and what it costs, and takes any model."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import pytest

from afteredit.launch.command_line import compose

FILES = sorted((Path(__file__).resolve().parents[2] / "conf" / "experiment").glob("*.yaml"))
PARTS = ("Published", "Expected", "Cost")


def header(path: Path) -> dict[str, str]:
    """Returns the text after each `# Name:` of the comment that opens the file, by name; "" has what precedes."""
    parts, name = {"": ""}, ""
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in takewhile(lambda line: line.startswith("#"), lines):
        text = line.removeprefix("#").strip()
        start, colon, rest = text.partition(": ")
        if colon and start in PARTS:
            assert start not in parts, f"{path.name}: {start} stands twice"
            name, text = start, rest
            parts[name] = ""
        parts[name] += f" {text}"
    return parts


def test_there_is_a_file_for_each_figure():
    assert {path.stem for path in FILES} >= {
        "kn_sequential", "rome_sequential", "rome_published_sequential", "memit_batch_sizes", "mend_batch_sizes",
        "memit_batch_sequential", "mend_batch_sequential", "rect", "random_40", "pca_40",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_header_says_what_was_published_what_is_expected_and_what_it_costs(path):
    parts = header(path)
    assert "Gu et al. (EMNLP 2024)" in parts[""]
    for name in PARTS:
        assert len(parts.get(name, "").split()) >= 3, f"{path.name}: no {name}: line"
    _, colon, other = parts["Cost"].partition("that of experiment=")
    if colon:  # another file tells it
        parts["Cost"] = header(path.with_stem(other.strip(" .")))["Cost"]
    assert "checkpoint" in parts["Cost"] and "estimate" in parts["Cost"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_takes_another_model_and_that_models_own_layers(path):
    x = compose([f"experiment={path.stem}", "model=gpt2-xl"])
    alone = compose([f"experiment={path.stem}"])
    assert (x.names["model"], alone.names["model"]) == ("gpt2-xl", "smollm2")
    assert x.settings == alone.settings
    published = {"rome": ("layer", 17), "memit": ("layers", [13, 14, 15, 16, 17]), "mend": ("rank", 1920)}
    method = path.stem.split("_")[0].replace("rect", "rome").replace("random", "rome").replace("pca", "rome")
    if method in published:
        key, value = published[method]
        assert getattr(x.method, key) == value != getattr(alone.method, key)

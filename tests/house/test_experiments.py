"""Every experiment says what was published, what is expected and what it costs, and has the paper's x-axis."""

from __future__ import annotations

import csv
from itertools import takewhile
from pathlib import Path

import pytest
import yaml

from afteredit.launch.command_line import compose as compose_all
from afteredit.tests.tiny.composed import compose

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "conf" / "experiment"
FILES = sorted(FOLDER.rglob("*.yaml"))
NAMES = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FILES]
PARTS = ("Published", "Expected", "Cost")
with open(ROOT / "data" / "gu2024.csv", encoding="utf-8", newline="") as file:
    PUBLISHED = list(csv.DictReader(file))


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


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_its_header_says_what_was_published_what_is_expected_and_what_it_costs(path):
    parts = header(path)
    assert path.parent.name != "gu2024" or "Gu et al. (EMNLP 2024)" in parts[""]
    for name in PARTS:
        assert len(parts.get(name, "").split()) >= 3, f"{path.name}: no {name}: line"
    _, colon, other = parts["Cost"].partition("that of experiment=")
    if colon:  # another file tells it
        parts["Cost"] = header(path.with_stem(other.strip(" .")))["Cost"]
    assert "checkpoint" in parts["Cost"] and any(word in parts["Cost"] for word in ("estimate", "measured"))


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_another_model_and_that_models_own_layers(name):
    x = compose([f"experiment={name}", "model=gpt2-xl"])
    alone = compose([f"experiment={name}"])
    assert (x.names["model"], alone.names["model"]) == ("gpt2-xl", "smollm2")
    assert x.settings == alone.settings
    published = {"rome_published": ("layer", 17), "memit": ("layers", [13, 14, 15, 16, 17]), "mend": ("rank", 1920)}
    if x.names["method"] in published:
        key, value = published[x.names["method"]]
        assert getattr(x.method, key) == value != getattr(alone.method, key)


def x_axis(name: str) -> list[int]:
    """Returns where the experiment measures: after how many edits, or with `-m` in batches of which sizes."""
    sizes = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")).get("hydra", {})
    if "batch_size" in sizes.get("sweeper", {}).get("params", {}):
        return [int(size) for size in sizes["sweeper"]["params"]["batch_size"].split(",")]
    settings = compose([f"experiment={name}"]).settings
    return [
        n
        for n in range(settings.batch_size, settings.n_edits + 1, settings.batch_size)
        if settings.due(n, settings.batch_size)
    ]


@pytest.mark.parametrize(
    ("name", "figure", "model", "method"),
    [("sequential_kn", "sequential", "gpt2-xl", "kn"), ("sequential_kn", "sequential", "llama-7b", "kn"),
     ("sequential_rome", "sequential", "gpt2-xl", "rome_published"),
     ("sequential_rome_llama", "sequential", "llama-7b", "rome_published"),
     ("batch_mend", "batch", "gpt2-xl", "mend"), ("batch_mend_llama", "batch", "llama-7b", "mend"),
     ("batch_memit", "batch", "gpt2-xl", "memit"), ("batch_memit_llama", "batch", "llama-7b", "memit"),
     ("rect_general", "rect_general", "gpt2-xl", "rome_published"),
     ("change_statistics", "change_statistics", "gpt2-xl", "rome_published")],
)  # fmt: skip
def test_its_x_axis_is_the_published_figures(name, figure, model, method):
    rows = [row for row in PUBLISHED if (row["figure"], row["model"], row["method"]) == (figure, model, method)]
    assert x_axis(f"gu2024/{name}") == sorted({int(row["x"]) for row in rows} - {0})


@pytest.mark.parametrize("size", [2, 3, 4, 10, 30, 50])
def test_batches_in_sequence_are_looked_at_after_the_published_rounds(size):
    rows = [row for row in PUBLISHED if (row["figure"], row["batch_size"]) == ("batch_sequential", str(size))]
    rounds = sorted({int(row["x"]) for row in rows} - {0})
    assert x_axis(f"gu2024/batch_sequential_memit_{size}") == [size * n for n in rounds]


BATCHED = ("memit", "memit_seq", "alphaedit", "emmet", "ultraedit", "ft")


@pytest.mark.parametrize("method", BATCHED)
def test_limits_take_every_method_in_batches_up_to_all_that_the_edit_set_holds(method):
    x = compose(["experiment=limits", f"method={method}"])
    assert (x.names["method"], x.names["edits"], x.settings.batch_size) == (method, "counterfact_3k", 50)
    assert (x.settings.single, x.settings.on_collapse.name) == (False, "stop")
    assert compose(["experiment=limits", f"method={method}", "n_edits=1950"]).settings.n_edits == 1950
    assert compose(["experiment=limits_zsre", f"method={method}"]).names["edits"] == "zsre_3k"


@pytest.mark.parametrize("method", [*BATCHED, "rome", "rome_published"])
def test_limits_one_by_one_take_every_method(method):
    settings = compose(["experiment=limits_one_by_one", f"method={method}"]).settings
    assert (settings.batch_size, settings.n_edits) == (1, 300)


def test_the_x_axis_of_limits_is_even_on_a_logarithmic_scale():
    assert x_axis("limits") == [50, 100, 200, 500, 1000]
    assert x_axis("limits_one_by_one") == [1, 2, 5, 10, 20, 50, 100, 200]  # and the last


def test_the_recipe_is_measured_as_limits_is_and_names_every_part():
    recipe, limits = (compose_all([f"experiment={name}"]) for name in ("least_harm", "limits"))
    assert recipe.settings == limits.settings and recipe.tasks == limits.tasks and recipe.edits == limits.edits
    changed = {key for key, value in vars(recipe.method).items() if value != getattr(limits.method, key)}
    assert changed == {"merge_subjects", "ridge", "ridge_kind", "value_norm", "stop_steps"}


@pytest.mark.parametrize("name", ["rect_general", "rect_editing_rome", "rect_editing_memit"])
def test_rect_has_every_published_bar_and_the_control_as_their_code_writes_it(name):
    params = yaml.safe_load((FOLDER / "gu2024" / f"{name}.yaml").read_text(encoding="utf-8"))["hydra"]["sweeper"]
    bars = set()
    for constraint in params["params"]["constraint"].split(","):
        rule = compose([f"experiment=gu2024/{name}", f"constraint={constraint}"]).constraint
        kind = type(rule).__name__
        bars.add("none" if kind == "Unconstrained" else f"{kind} {rule.keep:g}")
    assert bars == {"none", "Rect 0.8", "Rect 0.6", "Rect 0.4", "Rect 0.2", "RandomEntries 0.4", "Pca 0.4",
                    "PcaPublished 0.4"}  # fmt: skip
    assert {row["constraint"] for row in PUBLISHED if row["figure"].startswith("rect")} == {
        "none", "rect_0.8", "rect_0.6", "rect_0.4", "rect_0.2", "random_0.4", "pca_0.4"}  # fmt: skip


def test_the_demo_writes_the_same_facts_in_both_ways_and_looks_after_the_first_two_edits():
    params = yaml.safe_load((FOLDER / "demo.yaml").read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
    published, faithful = (compose_all(["experiment=demo", f"method={name}"]) for name in params["method"].split(","))
    chosen = [(m.keys.name, m.second_moment.name, m.kl_at.name, m.contexts_count_opening)
              for m in (published.method, faithful.method)]  # fmt: skip
    assert chosen == [("asymmetric", "identity", "subject", True), ("consistent", "corpus", "prompt_end", False)]
    assert published.settings == faithful.settings and published.edits == faithful.edits
    assert x_axis("demo") == [1, 2, 5] and published.settings.n_edits == 5 and len(published.tasks) == 8
    assert "run.py -m experiment=demo\n" in (ROOT / "Makefile").read_text(encoding="utf-8")

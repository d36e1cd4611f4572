"""What surrounds the program: the lists of versions, CI, hooks, and what pages say of the embedded model."""

from __future__ import annotations

import ast
import re

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from afteredit.tests.house.source import FILES, ROOT, relative, syntax
from afteredit.tests.house.test_tree import PROJECT, pins

EXTRAS = PROJECT["project"]["optional-dependencies"]
OPEN = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"], *sum(EXTRAS.values(), [])]
PLACES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "docs/*.ipynb")
PAGES = [page for place in PLACES for page in sorted(ROOT.glob(place))]
OF_THE_MODEL = [page for page in PAGES if re.search("SmolLM2(?!-360M)", page.read_text("utf-8"))]


@pytest.mark.parametrize("text", OPEN)
def test_the_least_version_is_the_one_that_the_tests_ran_on(text):
    requirement = Requirement(text)
    ran = (pins("requirements.lock") | pins("requirements-dev.lock"))[canonicalize_name(requirement.name)]
    (least,) = [bound.version for bound in requirement.specifier]
    n_parts = len(Version(least).release)
    assert ran in requirement.specifier and Version(ran).release[:n_parts] == Version(least).release
    assert n_parts > 1 or requirement.name == "setuptools"


def private_parts_of_torch(tree: ast.Module) -> set[str]:
    """Returns the private names under torch that a file uses, and every operator asked for by its registered name."""
    roots = {"torch"}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch":
            roots |= {alias.asname or alias.name for alias in node.names}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] == "torch"}
    dotted = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found |= {name for name in dotted if name.partition(".")[0] in roots}
    return {name for name in found if re.search(r"^torch\.ops\b|\._", name)}


def test_no_private_part_of_torch_is_used():
    """One that is needed is asked for once, in a file that has a plain path where it is missing, and named here."""
    assert not {relative(path): names for path in FILES if (names := private_parts_of_torch(syntax(path)))}


@pytest.mark.parametrize(
    "lines",
    ["torch.ops.aten.mul(x, x)", "torch._C._cuda()", "import torch._inductor", "from torch._C import x",
     "from torch import nn\nnn.functional._pad(x)"],
)  # fmt: skip
def test_a_private_part_of_torch_is_seen(lines):
    assert private_parts_of_torch(ast.parse(lines))
    assert not private_parts_of_torch(ast.parse("import torch\nfrom torch import nn\ntorch.ones(1)\nnn.Linear(1, 1)"))


def test_every_step_of_ci_is_a_make_target():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    flows = [yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    jobs = [job for flow in flows for job in flow["jobs"].values()]
    steps = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert {"make check", "make test", "make wheel"} <= set(steps)
    assert all(step.removeprefix("make ") in targets for step in steps)
    assert all(job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"] for job in jobs)
    assert all(job["env"]["AFTEREDIT_BROWSER"] == "required" for job in jobs)  # no test of a page is skipped there


def test_hooks_run_the_ruff_that_the_lock_pins():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    entries = [hook["entry"] for hook in repo["hooks"]]
    assert repo["repo"] == "local" and entries == [".venv/bin/ruff check --fix", ".venv/bin/ruff format"]


def test_the_readme_has_no_badge_and_cites_the_paper():
    text = (ROOT / "README.md").read_text("utf-8")
    assert "badge" not in text and "shields.io" not in text
    assert "@inproceedings{gu-etal-2024-model," in text and "Regularization to the Rescue" in text


@pytest.mark.parametrize("page", OF_THE_MODEL, ids=relative)
def test_a_page_that_names_the_embedded_model_says_what_its_weights_were(page):
    assert re.search(r"Q4_1[^.]*dequantised", page.read_text("utf-8"))

"""What the pages point at is there: links, their anchors, files, and functions named as links to their file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from afteredit.launch.command_line import compose
from afteredit.tests.house.source import ROOT, WINGS, relative, top_level_names

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
FOLDERS = (*WINGS, "conf", "data", "docs", "sweeps", "tests")
MENTION = re.compile(rf"(?<![\w/<.-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w")
each_page = pytest.mark.parametrize("page", PAGES, ids=relative)


def anchors(page: Path) -> set[str]:
    """Returns the names that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[tuple[str, Path, str]]:
    """Returns text, target and anchor of every link into the repository."""
    texts = [(text, *target.partition("#")[::2]) for text, target in LINK.findall(page.read_text(encoding="utf-8"))
             if "://" not in target]  # fmt: skip
    return [(text, (page.parent / target).resolve() if target else page, anchor) for text, target, anchor in texts]


@each_page
def test_links_lead_somewhere(page):
    missing = [str(target) for _, target, _ in links(page) if not target.exists()]
    missing += [f"{target}#{anchor}" for _, target, anchor in links(page) if anchor and anchor not in anchors(target)]
    assert not missing


@each_page
def test_a_function_named_as_a_link_stands_in_its_file(page):
    named = [(text.strip("`"), target) for text, target, _ in links(page)
             if target.suffix == ".py" and re.fullmatch(r"`\w+`", text)]  # fmt: skip
    assert not [(name, relative(target)) for name, target in named if name not in top_level_names(target)]


@each_page
def test_files_that_a_page_mentions_exist(page):
    text = LINK.sub("", page.read_text(encoding="utf-8"))
    mentioned = {name for name in MENTION.findall(text) if not re.search(r"/(test_)?x\.", name)}
    if page.name == "CHANGELOG.md":  # tells of what is no more
        return
    assert not [name for name in mentioned if not (ROOT / name).exists()]


def commands() -> set[str]:
    """Returns the overrides of every command of the pages; replays and grids need more than a config."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    lines = re.findall(r"(?:python run\.py|afteredit run)([^#`\n]*)", text)
    singles = [line.strip() for line in lines if not re.search(r"replay| -m |--help", line)]
    return {re.sub(r"<[^>]*>", "folder", line) for line in singles}


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_of_a_page_is_one_that_the_config_accepts(command):
    assert compose(shlex.split(command))


def test_every_page_is_found_from_the_readme():
    linked = {target for _, target, _ in links(ROOT / "README.md")}
    assert not [relative(page) for page in PAGES[1:] if page not in linked]


def test_the_readme_names_every_wing():
    assert {target for _, target, _ in links(ROOT / "README.md") if target.is_dir()} >= {
        ROOT / wing for wing in WINGS if wing != "bench"
    }

"""Puts what the report shows into one page that loads nothing: pictures, curves to be hovered, styles, scripts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment

from afteredit.analysis.pictures.live_panels import live_style
from afteredit.analysis.report_part import Part
from afteredit.store.errors import BadInput
from afteredit.store.plain_json import printable

HERE = Path(__file__).parent
NUMBER = re.compile(r"[<>+−–-]?\s*[\d.]")  # how the text of a number begins


def render(sections: Sequence[Mapping[str, Any]], faults: Sequence[str]) -> bytes:
    """Returns the page.  Each section has title, caption, the methods' looks, and parts with their figures.

    What the scripts read is compressed and in base64, which no text in it can leave, and the page says by their digests
    that no other script may run.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"records": _records, "numeric": _numeric, "anchor": _anchor}
    script, library = _text("template.js"), _plotly()
    live = [{"methods": {label: live_style(style) for label, style in section["methods"].items()},
             "parts": [_live(**shown) for shown in section["parts"]]} for section in sections]  # fmt: skip
    page = environment.from_string(_text("template.html")).render(
        sections=sections, faults=faults, style=_text("template.css"), script=script, library=_packed(library),
        data=_packed(printable(json.dumps(live, allow_nan=False))), digests=[_digest(script), _digest(library)],
    )  # fmt: skip
    return printable(page).encode()


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """Returns the library that draws in the browser, from the Python package that carries it, which is not imported."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise BadInput("the report's curves are drawn by plotly, which is not installed; run `make setup`, or "
                       "`pip install plotly`")  # fmt: skip
    return (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _records(table: pd.DataFrame) -> list[dict[str, str]]:
    return table.to_dict("records")


def _live(part: Part, figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what the scripts read of a part: its figures' panels and keys, and the rows that can be searched."""
    return {"figures": [{"panels": figure["panels"], "key": figure["key"]} for figure in figures],
            "examples": _examples(part.examples)}  # fmt: skip


def _examples(table: pd.DataFrame | None) -> dict[str, list] | None:
    """Returns the rows that can be searched, with places in a list of `texts`, each of which stands there once."""
    if table is None or table.empty:
        return None
    texts: dict[str, int] = {}
    place = {name: [texts.setdefault(text, len(texts)) for text in table[name]] for name in table}
    after = sorted((int(name.split()[1]), name) for name in table if name.startswith("after "))
    names = [name for name in table if not name.startswith("after ")]
    rows = [{name: place[name][i] for name in names} for i in range(len(table))]
    said = [[[n, place[name][i]] for n, name in after if table[name].iat[i]] for i in range(len(table))]
    return {"texts": list(texts), "rows": [{**row, "said": after} for row, after in zip(rows, said, strict=True)]}


def _numeric(table: pd.DataFrame) -> set[str]:
    """Returns the columns in which every text begins as a number does."""
    return {str(name) for name in table if any(table[name]) and all(NUMBER.match(text) for text in table[name] if text)}


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")

"""Finds which column of a user's rows holds what, by the names that such columns usually have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from afteredit.edit.read_facts import REQUIRED
from afteredit.store.errors import BadInput
from afteredit.store.rows.json_rows import BY_PANDAS
from afteredit.store.rows.normal_text import shown
from afteredit.store.rows.row import paths

# By field of EditRequest, beside the field's own name: those of CounterFact, ZsRE and the sets published since.  Not
# `answer` or `target` alone, which in some sets is the new answer and in others the true one.
USUAL = {
    "id": ("case_id",),
    "subject": ("requested_rewrite.subject",),
    "prompt": ("question", "src", "requested_rewrite.prompt"),
    "target_new": ("new_target", "new_answer", "alt", "requested_rewrite.target_new.str"),
    "target_true": ("true_target", "true_answer", "ground_truth", "requested_rewrite.target_true.str"),
    "relation": ("relation_id", "requested_rewrite.relation_id"),
    "paraphrases": ("paraphrase", "paraphrase_prompts", "rephrase", "rephrase_prompt", "rewordings"),
    "neighbourhood": ("neighborhood", "neighborhood_prompts", "locality_prompt", "loc"),
    "neighbourhood_answers": ("neighborhood_answers", "neighbourhood_targets", "locality_answer",
                              "locality_ground_truth", "loc_ans"),
    "portability": ("portability.question",),
    "portability_answers": ("portability.answer",),
    "generation_prompts": (),
}  # fmt: skip


def found_columns(rows: Sequence[Any], named: Mapping[str, str], source: str) -> dict[str, str]:
    """Returns the columns that are `named`, and for each other field the one column that has a usual name for it.

    Upper and lower case, spaces and hyphens make no difference.  Raises BadInput where several columns have one, unless
    one of them has the field's own name, and where a field that every fact needs has none.
    """
    known = dict.fromkeys(path for row in rows for path in paths(row))
    if not known:
        raise BadInput(f"{source}: its first row is {shown(rows[0])}, which names no column; give one object for each "
                       f"row, with the columns {', '.join(REQUIRED)}{BY_PANDAS}")  # fmt: skip
    columns = dict(named)
    for field, others in USUAL.items():
        candidates = [path for path in known if _plain(path) in (field, *others) and path not in named.values()]
        own = [path for path in candidates if _plain(path) == field]
        candidates = own or candidates
        if field in named or not candidates:
            continue
        if len(candidates) > 1:
            raise BadInput(f"{source}: {field} may be in {' or '.join(candidates)}; name its column: edits.columns."
                           f"{field}=<column>")  # fmt: skip
        columns[field] = candidates[0]
    missing = [field for field in REQUIRED if field not in columns]
    if missing:
        named_so = " ".join(f"edits.columns.{field}=<column>" for field in missing)
        raise BadInput(f"{source}: no column has a usual name of {', '.join(missing)}; its columns: "
                       f"{', '.join(known)}; name them: {named_so}")  # fmt: skip
    return columns


def in_words(columns: Mapping[str, str]) -> str:
    """Returns which column each field is read from."""
    return ", ".join(field if path == field else f"{field} ← {path}" for field, path in columns.items())


def _plain(path: str) -> str:
    return re.sub(r"[\s-]+", "_", path.strip()).lower()

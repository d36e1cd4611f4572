"""The names of the editing metrics in pictures."""

from __future__ import annotations

EDITING_LABELS = {
    "editing/immediate/prob/efficacy": "efficacy, right after the edit",
    "editing/immediate/generated/efficacy": "efficacy when generating, right after the edit",
    "editing/retained/prob/efficacy": "efficacy, retained",
    "editing/retained/generated/efficacy": "efficacy when generating, retained",
    "editing/retained/prob/paraphrase": "paraphrases, retained",
    "editing/retained/generated/paraphrase": "paraphrases when generating, retained",
    "editing/retained/prob/neighbourhood": "neighbourhood unchanged",
    "editing/retained/generated/neighbourhood": "neighbourhood unchanged when generating",
}

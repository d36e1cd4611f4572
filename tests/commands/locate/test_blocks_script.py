"""Which blocks docs/results/locate/blocks.py edits, and in which order."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "docs" / "results" / "locate" / "blocks.py"


@pytest.mark.parametrize(("every", "n_blocks", "expected"), [
    ("1", 8, [0, 4, 2, 6, 1, 3, 5]),  # coarse first; the last block is none of them
    ("3", 24, [0, 12, 6, 18, 3, 9, 15, 21]),
    ("3+4,2,6", 24, [4, 2, 6, 0, 12, 18, 3, 9, 15, 21]),  # those that are named come first, each once
    ("3+2,2,6", 24, [2, 6, 0, 12, 18, 3, 9, 15, 21]),
])  # fmt: skip
def test_blocks_at_even_distances_and_those_that_are_named_are_tried(every, n_blocks, expected):
    blocks_to_try = runpy.run_path(str(SCRIPT), run_name="script")["blocks_to_try"]
    assert blocks_to_try(every, n_blocks) == expected


def test_a_block_that_the_model_does_not_have_is_refused():
    blocks_to_try = runpy.run_path(str(SCRIPT), run_name="script")["blocks_to_try"]
    with pytest.raises(SystemExit, match=r"blocks \[24\] are asked for, but the model has blocks 0..23"):
        blocks_to_try("3+24", 24)

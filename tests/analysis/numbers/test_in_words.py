"""What happened, in words."""

from __future__ import annotations

from afteredit.analysis.numbers.comparison import comparisons
from afteredit.analysis.numbers.in_words import in_words
from afteredit.analysis.read.run_folders import read


def test_the_best_and_the_worst_are_named_with_what_they_leave(losses):
    """rome keeps 0 and 50 % of nli; its perplexities are 450 and 1.25 times the unedited model's."""
    assert in_words(losses) == [
        "20 facts (edit set facts) were written into tiny, one after another, by memit and rome.",
        "Left of the general abilities, above chance: 100 % with memit, 25.0 % with rome.",
        "Perplexity of ordinary text, as a multiple of the unedited model's: 1.50 with memit, 226 with rome; the model "
        "collapsed with rome after 20 edits (perplexity 9,000 is above 100 times the unedited model's 20).",
    ]


def test_of_one_method_its_own_numbers_are_said_and_of_no_edits_nothing(tmp_path, made_run):
    scores = {"nli": [1.0] * 8 + [0.0] * 2, "reasoning": [0.0] * 10}
    made_run(tmp_path / "one", "rome", 1, {0: scores, 4: scores}, perplexity={0: 20.0, 4: 22.0})
    made_run(tmp_path / "none", "rome", 1, {0: scores})
    (one,), (none,) = (comparisons(read([tmp_path / name])) for name in ("one", "none"))
    made_run(tmp_path / "first", "rome", 1, {0: scores, 1: scores}, perplexity={0: 20.0, 1: 9000.0})
    (first,) = comparisons(read([tmp_path / "first"]))
    assert in_words(first)[0].startswith("1 fact (edit set facts) was written into tiny")
    assert "collapsed with rome after 1 edit (" in in_words(first)[-1]
    assert in_words(none) == []
    assert in_words(one)[1:] == [
        "Left of the general abilities, above chance: 100 % with rome.",
        "Perplexity of ordinary text, as a multiple of the unedited model's: 1.10 with rome.",
    ]

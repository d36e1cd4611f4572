"""Which runs are compared, and how a method is told from another."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from afteredit.analysis.numbers.comparison import comparisons
from afteredit.analysis.numbers.in_words import in_words
from afteredit.analysis.numbers.method_names import NOT_OF_A_METHOD
from afteredit.analysis.read.run_folders import read
from afteredit.store.user_cache import content_hash

START = {"nli": [1, 1, 1, 1, 0], "reasoning": [1, 0, 0, 0, 0]}


def test_every_key_of_the_main_config_is_known_to_tell_methods_apart_or_not():
    """A key that is new in conf/run.yaml must be put into one of the two lists."""
    of_a_method = {"method", "constraint", "edits", "batch_size", "dtype"}
    main = yaml.safe_load((Path(__file__).resolve().parents[3] / "conf" / "run.yaml").read_text(encoding="utf-8"))
    groups = {name for default in main.pop("defaults") if isinstance(default, dict) for name in default}
    keys = (set(main) | groups) - {"hydra", "override hydra/job_logging", "experiment"}  # no keys of a resolved config
    assert keys == of_a_method | set(NOT_OF_A_METHOD) and not of_a_method & set(NOT_OF_A_METHOD)


def test_what_no_weight_depends_on_splits_no_method_and_another_order_of_edits_does(tmp_path, made_run):
    for seed, config in enumerate([{"evaluate": {"cache_gib": 2.0}}, {"evaluate": {"cache_gib": 0}},
                                   {"edits": {"name": "facts", "order": "shuffled"}}]):  # fmt: skip
        made_run(tmp_path, "rome", seed, {0: START}, config={"edits": {"name": "facts", "order": "file"}, **config})
    (x,) = comparisons(read([tmp_path]))
    seeds = {label: [run.seed for run in runs] for label, runs in x.runs.items()}
    assert seeds == {"rome (order=file)": [0, 1], "rome (order=shuffled)": [2]}


def test_the_title_does_not_say_where_the_rows_lie(tmp_path, made_run):
    made_run(tmp_path, "rome", 1, {0: START}, config={"data": "/home/somebody/rows"})
    (x,) = comparisons(read([tmp_path]))
    assert "data rows" in x.title and "somebody" not in x.title


def test_methods_are_told_apart_by_what_differs_and_not_by_seed(tmp_path, made_run):
    target = "afteredit.edit.methods.rome.Rome"
    for seed, layer in ((1, 8), (2, 8), (3, 9)):
        made_run(tmp_path, "rome", seed, {0: START}, config={"method": {"_target_": target, "layer": layer}})
    rect = {"_target_": "afteredit.edit.constraints.rect.Rect", "keep": 0.4}
    made_run(tmp_path, "memit", 4, {0: START}, config={"constraint": rect, "tracker": {"tags": ["x"]}})
    (x,) = comparisons(read([tmp_path]))
    seeds = {label: [run.seed for run in runs] for label, runs in x.runs.items()}
    assert seeds == {"memit+rect": [4], "rome (layer=8)": [1, 2], "rome (layer=9)": [3]}


@pytest.mark.parametrize("other", [{"model": {"name": "large"}}, {"edits": {"name": "zsre"}}, {"setting": "single"}])
def test_what_was_not_measured_alike_is_never_compared(tmp_path, made_run, other):
    made_run(tmp_path, "rome", 1, {0: START})
    made_run(tmp_path, "rome", 2, {0: START}, config=other)
    assert [list(map(len, x.runs.values())) for x in comparisons(read([tmp_path]))] == [[1], [1]]


KNOWN = {"evaluations": {}, "model": {"weights": "1a2b"}, "facts": "c3d4" * 16}


@pytest.mark.parametrize("other", [{"model": {"weights": "5e6f"}}, {"facts": "0708" * 16}])
def test_other_contents_under_the_same_names_are_another_comparison(tmp_path, made_run, other):
    """Another file of facts, another start token: the names are the same."""
    for seed, environment in enumerate([KNOWN, KNOWN, KNOWN | other]):
        made_run(tmp_path, "rome", seed, {0: START}, environment=environment)
    found = {x.title: [run.seed for run in x.runs["rome"]] for x in comparisons(read([tmp_path]))}
    assert sorted(found.values()) == [[0, 1], [2]]


def test_a_title_says_the_contents_that_the_run_knows(tmp_path, made_run):
    """Older versions kept neither, or no facts."""
    for seed, keys in enumerate([[], ["model"], ["model", "facts"]]):
        made_run(tmp_path, "rome", seed, {0: START}, environment={"evaluations": {}, **{k: KNOWN[k] for k in keys}})
    model = f"model {content_hash(KNOWN['model'])[:8]}"
    contents = ["", f" · {model}", f" · {model} · facts c3d4c3d4"]
    titles = {f"tiny · facts · sequential · data mini{text} · evaluation aaaaaaaa" for text in contents}
    assert {x.title for x in comparisons(read([tmp_path]))} == titles


def test_titles_captions_and_sentences_say_what_the_weights_were_before_they_were_dequantised(tmp_path, made_run):
    environment = {"evaluations": {}, "weights": "Q4_1 79 %, Q8_0 21 %, dequantised"}
    made_run(tmp_path, "rome", 0, {0: START, 10: START}, environment=environment)
    (x,) = comparisons(read([tmp_path]))
    assert x.title.startswith("tiny (Q4_1 79 %, Q8_0 21 %, dequantised) · facts · sequential")
    assert x.caption.startswith("tiny (Q4_1 79 %, Q8_0 21 %, dequantised) · edits: facts")
    assert "written into tiny (Q4_1 79 %, Q8_0 21 %, dequantised), one after another" in in_words(x)[0]


def test_a_run_of_an_older_version_is_of_the_same_method(tmp_path, made_run):
    """Its class stood in another file, and it had a key that was dropped since."""
    older = {"_target_": "afteredit.edit.rome.Rome", "layer": 8, "second_moment_weight": 20000}
    newer = {"_target_": "afteredit.edit.methods.rome.Rome", "layer": 8}
    for seed, method in enumerate([older, newer]):
        made_run(tmp_path, "rome", seed, {0: START}, config={"method": method})
    (x,) = comparisons(read([tmp_path]))
    assert [run.seed for run in x.runs["rome"]] == [0, 1]


def test_a_whole_number_is_the_same_value_however_it_is_written(tmp_path, made_run):
    for seed, rate in enumerate([1, 1.0, 1.5]):
        made_run(tmp_path, "rome", seed, {0: START}, config={"method": {"value_lr": rate}})
    (x,) = comparisons(read([tmp_path]))
    seeds = [[run.seed for run in runs] for runs in x.runs.values()]
    assert sorted(seeds) == [[0, 1], [2]]

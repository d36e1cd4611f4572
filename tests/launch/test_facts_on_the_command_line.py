"""What is typed about facts on the command line: sentences are quoted for Hydra, and a whole map replaces a map."""

from __future__ import annotations

import shlex

import pytest
import yaml

from afteredit.launch.overrides import as_typed
from afteredit.launch.stored_config import as_command, as_yaml
from afteredit.run import main
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.composed import compose

FACT = "The mother tongue of {Danielle Darrieux} is → English"
SENTENCES = [FACT, 'In 1962, {O\'Neil} said "(no)" to → [a, b]', "{a} = b: \\ → it's", "'{Hamlet}' is by → Marlowe",
             "The company behind ${AAPL} is → Microsoft", "{a} costs → ${seed}", r"{a} is \ → \${seed} or \\${b",
             "{a} is → ${oc.env:HOME}"]  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_fact_is_taken_as_it_is_typed(sentence):
    x = compose([f"edits.fact={sentence}", f"edits.fact_true={sentence}", f"edits.fact_paraphrases={sentence}"])
    assert (x.edits.fact, x.edits.fact_true, x.edits.fact_paraphrases) == ([sentence], sentence, [sentence])
    assert x.settings.n_edits == 1
    assert compose(x.overrides).edits == x.edits  # as a sweep's agent begins it again


TRUE = ["${seed}", "'${seed}'", r"\${seed}", "a, ${b}", "${", "[citation needed]", "{x}", "[]"]


@pytest.mark.parametrize("text", TRUE)
def test_a_true_answer_is_taken_as_it_is_typed(text):
    x = compose(["edits.fact={a} is → b", f"edits.fact_true={text}"])
    assert x.edits.fact_true == text.strip("'") == compose(x.overrides).edits.fact_true


def test_a_replay_reads_the_facts_as_they_were_typed(tmp_path):
    x = compose(["edits.fact=The company behind ${AAPL} is → ${seed}", "task=none"])
    (tmp_path / "config.yaml").write_bytes(as_yaml(x))
    (tmp_path / "edits.jsonl").touch()
    stored = yaml.safe_load(as_yaml(x))["edits"]
    assert stored["fact"] == ["The company behind ${AAPL} is → ${seed}"]
    assert compose([f"replay.run={tmp_path}", "replay.at=1"]).edits == x.edits
    typed = shlex.split(as_command(x.overrides))[2:]  # what the shell hands over of the printed command
    assert compose(typed).edits == x.edits


def test_each_fact_and_each_list_counts():
    x = compose([f"edits.fact={FACT}", "seed=1", "edits.fact=['{a} is → b','{c} is → d']", "seed=2"])
    assert x.edits.fact == [FACT, "{a} is → b", "{c} is → d"]
    assert x.settings.n_edits == x.resolved["n_edits"] == 3 and x.settings.seed == 2


@pytest.mark.parametrize(("overrides", "named"), [
    ([f"edits.fact={FACT}", "n_edits=20"], "n_edits=20, but edits.fact gives 1; leave n_edits out"),
    ([f"edits.fact={FACT}", "edits.fact_paraphrases=[it's so]"], "is no list of sentences.*give the key once for each"),
    (["edits.fact=Peru → Oslo"], "'Peru → Oslo' is no fact; write edits.fact="),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(overrides, named):
    with pytest.raises(BadInput, match=named):
        compose(overrides)


def test_several_facts_are_tried_one_by_one_where_they_are_quoted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    facts = "edits.fact='{a}, is → b','{c} is → d'"
    assert main(["-m", facts, "edits.fact_true='x, y'", "task=none"], seen.append) == 0
    assert [(x.edits.fact, x.edits.fact_true, x.settings.n_edits) for x in seen] == [
        (["{a}, is → b"], "x, y", 1), (["{c} is → d"], "x, y", 1)]  # fmt: skip
    assert main(["-m", f"edits.fact={FACT}", "seed=1,2", "task=none"], seen.append) == 0
    assert [(x.edits.fact, x.settings.seed) for x in seen[2:]] == [([FACT], 1), ([FACT], 2)]


def test_other_arguments_stay_as_and_where_they_are():
    given = ["seed=1", "seed=2", "seed=1", "task=[nli]", "+edits.facts_in=a"]
    assert as_typed(given) == given


def test_a_whole_map_of_columns_replaces_the_edit_sets_own():
    whole = "edits.columns={subject: s,prompt: p,target_new: t}"
    assert compose([whole]).edits.columns == {"subject": "s", "prompt": "p", "target_new": "t"}
    assert compose([whole, "edits.columns.id=i"]).edits.columns == {"subject": "s", "prompt": "p", "target_new": "t",
                                                                     "id": "i"}  # fmt: skip
    one = compose(["edits.columns.id=i"]).edits.columns
    assert one == compose([]).edits.columns | {"id": "i"}
    train = compose(["edits=zsre", "edits.train_columns={subject: s}"]).edits
    assert train.train_columns == {"subject": "s"} and train.columns == compose(["edits=zsre"]).edits.columns

"""The config that a run stores holds the values that the run used, in whatever words they were given."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
import yaml

from afteredit.launch.command_line import compose
from afteredit.launch.stored_config import as_yaml
from afteredit.store.errors import BadInput

MEMIT, NLI, NORM = "method=memit", "task=nli", "constraint=norm"


@pytest.mark.parametrize(
    ("as_text", "as_value", "stored"),
    [
        (["method.value_lr='1e-1'"], ["method.value_lr=0.1"], {"method": {"value_lr": 0.1}}),
        (["seed='1'"], ["seed=1"], {"seed": 1}),
        (["limit='5'", "eval_at=['1','2']"], ["limit=5", "eval_at=[1,2]"], {"limit": 5, "eval_at": [1, 2]}),
        ([MEMIT, "method.layers=['2','4']"], [MEMIT, "method.layers=[2,4]"], {"method": {"layers": [2, 4]}}),
        (["tracker.log_updates=yes"], ["tracker.log_updates=true"], {"tracker": {"log_updates": True}}),
        (["edits.distinct='False'"], ["edits.distinct=false"], {"edits": {"distinct": False}}),
        ([NLI, "task.nli.chance='5e-1'"], [NLI, "task.nli.chance=0.5"], {"task": {"nli": {"chance": 0.5}}}),
        (["speed.cache_gib='1e-1'"], ["speed.cache_gib=0.1"], {"speed": {"cache_gib": 0.1}}),
        ([NORM, "constraint.growth='1e-1'"], [NORM, "constraint.growth=0.1"], {"constraint": {"growth": 0.1}}),
        (["change_shares=['77e-3']"], ["change_shares=[0.077]"], {"change_shares": [0.077]}),
        (["dtype=bfloat16"], ["dtype=bfloat16"], {"dtype": "bfloat16"}),
    ],
)
def test_a_number_or_switch_that_comes_as_text_is_stored_as_what_it_is(as_text, as_value, stored):
    given, meant = compose(as_text), compose(as_value)
    assert as_yaml(given) == as_yaml(meant)
    assert replace(given, overrides=[]) == replace(meant, overrides=[])  # so the run's name is the same too
    config = yaml.safe_load(as_yaml(given))
    for key, value in stored.items():
        inner = value
        found = config[key]
        while isinstance(inner, dict):
            name = next(iter(inner))
            found, inner = found[name], inner[name]
        assert found == inner and type(found) is type(inner)


def test_what_was_given_in_its_own_type_is_stored_as_it_was_given():
    text = as_yaml(compose(["method.value_lr=1", "runs=2024_01", "edits.columns.id='5'"])).decode()
    assert "value_lr: 1\n" in text  # one run's file does not change with the version that wrote it
    config = yaml.safe_load(text)
    assert config["runs"] == "2024_01" and config["edits"]["columns"]["id"] == "5"
    assert config["method"]["_target_"] == "afteredit.edit.methods.rome.Rome"


@pytest.mark.parametrize("given", ["method.value_lr='a'", "method.value_lr='nan'", "seed='1.5'", "limit='none'",
                                   "eval_at=['a']", "tracker.log_updates='1'", "method.value_lr=''"])  # fmt: skip
def test_a_text_that_is_no_value_of_its_key_is_refused_by_its_key(given):
    with pytest.raises(BadInput, match=f"^{given.partition('=')[0]}"):
        compose([given])


def test_rows_that_only_the_run_itself_names_are_left_alone_until_the_command_names_them(tmp_path):
    (tmp_path / "my rows").mkdir()
    (tmp_path / "text.txt").write_text("A text.")
    named = [f"data={tmp_path}/my rows", f"held_out={tmp_path}/text.txt"]
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_bytes(as_yaml(compose([*named, NLI])))
    (run / "edits.jsonl").touch()
    pending = [f"replay.run={run}", "replay.pending=true"]
    with pytest.raises(BadInput) as refused:
        compose(pending)
    command = str(refused.value).partition("name them if they are yours: ")[2]
    assert command == f"python run.py {shlex.join([*pending, *named])}"
    assert compose([*pending, *named]).settings.data == f"{tmp_path}/my rows"
    with pytest.raises(BadInput, match="held_out"):
        compose([*pending, named[0]])
    assert compose([f"replay.run={run}", "replay.at=1", "task=none"]).settings.data == "mini"

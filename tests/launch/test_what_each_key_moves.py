"""Every key of the config, one after another: which of the three it moves, and that this is what its field says.

The three are the name of the run (what decides the weights), the name of the results file (what decides the
measurement), and the speed keys.  The names are made as a run makes them, with a model that is loaded.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from dataclasses import asdict, fields, replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from afteredit.edit.constraint import Unconstrained
from afteredit.edit.edit_set import OnBadRow
from afteredit.edit.subject_place import SubjectPlace
from afteredit.evaluate.abilities import lm_eval_tasks
from afteredit.launch.command_line import compose
from afteredit.launch.experiment import Dtype, Experiment, Rounding
from afteredit.launch.opening import decides_measurement, decides_weights
from afteredit.store.field_roles import COURSE, MEASUREMENT, NOTHING, SPEED, WEIGHTS, Role, role_of
from afteredit.store.user_cache import content_hash

CONF = Path(__file__).resolve().parents[2] / "conf"
MOVES = {WEIGHTS: {"weights"}, MEASUREMENT: {"measurement"}, SPEED: {"speed"}, COURSE: set(), NOTHING: set()}
DATED = '{{ strftime_now("%d %b %Y") }}{{ messages[0].content }}'


@pytest.fixture(scope="module")
def place(tmp_path_factory, save_tiny_llama) -> Path:
    """A model whose template asks for the date, two copies of the facts and of a text, and other ones."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny_llama(folder / "model")
    config = json.loads((folder / "model" / "tokenizer_config.json").read_text("utf-8"))
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": DATED}))
    for name, text in (("text.txt", "One old town. "), ("same.txt", "One old town. "), ("other.txt", "Two towns. ")):
        (folder / name).write_text(text * 900)
    data = CONF.parent / "data"
    for name in ("rows", "same_rows", "other_rows"):
        shutil.copytree(data, folder / name)
    for name in ("rows", "same_rows"):
        shutil.copy(data / "facts.jsonl", folder / name / "same.jsonl")
    train = (data / "facts_train.jsonl").read_text("utf-8")
    (folder / "rows" / "same_train.jsonl").write_text(train, encoding="utf-8")
    (folder / "rows" / "other_train.jsonl").write_text("".join(train.splitlines(True)[1:]), encoding="utf-8")
    tasks = (data / "sentiment.jsonl").read_text("utf-8")
    (folder / "other_rows" / "sentiment.jsonl").write_text("".join(tasks.splitlines(True)[1:]), encoding="utf-8")
    shutil.copytree(folder / "model", folder / "same_model")
    shutil.copytree(folder / "model", folder / "other_model")
    config = json.loads((folder / "model" / "config.json").read_text("utf-8"))
    (folder / "other_model" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    return folder


def composed(place: Path, *overrides: str) -> Experiment:
    return compose(["model=hf", f"model.source={place}/model", "task=[sentiment]", f"held_out={place}/text.txt",
                    "tracker=none", "device=cpu", f"data={place}/rows", *overrides])  # fmt: skip


def names(x: Experiment) -> dict[str, Any]:
    """Returns the three, as a run makes them."""
    lm = _loaded(x.model, x.settings.dtype.value, x.edits.separator.value)
    _, edits_sha256 = x.edits.read(x.settings.data, x.settings.seed)
    return {
        "weights": content_hash(decides_weights(x, lm, edits_sha256)),
        "measurement": content_hash(decides_measurement(x)),
        "speed": (asdict(x.speed), x.model.device_map, x.settings.device),
    }


def _loaded(model: Any, dtype: str, separator: str) -> Any:
    key = json.dumps([asdict(model), dtype, separator], default=str)
    if key not in _models:
        _models[key] = model.load("cpu", dtype, separator)
    return _models[key]


_models: dict[str, Any] = {}


def moved(before: Experiment, after: Experiment) -> set[str]:
    return difference(names(before), names(after))


def difference(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def another(value: Any) -> Any:
    """Returns another value of the same type."""
    if isinstance(value, Enum):
        return next(member for member in type(value) if member is not value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.7 + 0.011
    if isinstance(value, list):
        return [*value, "x"]
    return {**value, "x": "y"} if isinstance(value, dict) else f"{value}x"


# where `another` value would be refused, or the value is null
OTHERS: dict[str, Any] = {
    "model.start_token": "<s>", "model.chat_date": "1999-12-31", "model.device_map": "cpu",
    "model.shape": {"blocks": 1}, "settings.limit": 7, "settings.device": "cpu:0", "settings.dtype": Dtype.bfloat16,
    "method.layer": 2, "method.layers": [0, 2], "replay.at": 1, "replay.after": Rounding.int4, "locate.window": 2,
    "locate.methods": ["memit"], "plan.tflops": 1.0, "plan.gib": 1.0,
    "task.lm_eval": {"output_type": "x"},
}  # fmt: skip


def by_content(place: Path) -> dict[str, list[tuple[Any, set[str]]]]:
    """Returns values of the keys that only say where something is found, and what they move: nothing where they find
    the same."""
    return {
        "settings.data": [(f"{place}/same_rows", set()), (f"{place}/other_rows", {"measurement"})],
        "settings.held_out": [(f"{place}/same.txt", set()), (f"{place}/other.txt", {"measurement"})],
        "settings.harness": [(["arc_easy"], {"measurement"})],
        "settings.harness_path": [(f"{place}/rows", set())],  # with harness: tests/whole/test_template.py
        "model.source": [(f"{place}/same_model", set()), (f"{place}/other_model", {"weights"})],
        "model.revision": [("main", set())],  # of a folder there is one
        "model.edit": [({"rome": {"layer": 0}}, set())],  # the method's own fields hold what is read there
        "edits.file": [("same.jsonl", set()), ("facts_train.jsonl", {"weights"})],
        "edits.columns": [(FEWER_COLUMNS, {"weights"})],
        "edits.train": [("same.jsonl", set())],  # no text for ROME; for MEND see below
        "edits.train_columns": [({"subject": "subject"}, set())],
        "edits.train_on_bad_row": [(OnBadRow.skip, set())],
        "edits.hub": [("somebody/facts", set())],  # asked only with data=hub
        "edits.hub_split": [("test", set())],
        "edits.hub_columns": [({"subject": "name"}, set())],
        "edits.drop_unchanged": [(True, set())],  # no embedded row is dropped
        "edits.distinct": [(True, set())],
        "edits.on_bad_row": [(OnBadRow.skip, set())],  # and none is bad
        "edits.subject_place": [(SubjectPlace.last, set())],  # nor holds its subject twice
        "edits.in_data_folder": [(True, set())],  # where this is tested no such file is; tests/edit/test_own_rows.py
        "edits.fact": [(["The {sea} is → dry"], {"weights"})],
        # beside a fact: tests/edit/test_typed_facts.py
        "edits.fact_true": [(None, set())],
        "edits.fact_paraphrases": [([], set())],
        "edits.fact_neighbourhood": [([], set())],
        "edits.facts_in": [("paraphrases", {"weights"})],  # one fact for each
        "method.second_moment_text": [(f"{place}/same.txt", set()), (f"{place}/other.txt", {"weights"})],
    }


FEWER_COLUMNS = {name: name for name in ("subject", "prompt", "target_new", "target_true")}


def walked(place: Path, x: Experiment, part: str, default: Role) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what each field of a part of the experiment moves, and what it says that it does."""
    node, before, found, said = getattr(x, part), names(x), {}, {}
    for field in fields(node):
        key, values = f"{part}.{field.name}", by_content(place)
        if field.metadata.get("by_content") or key in values:
            cases = values[key]
            assert {role for _, moves in cases for role in moves} <= MOVES[role_of(field, default)] | {"weights"}
        else:
            cases = [(OTHERS.get(key, another(getattr(node, field.name))), MOVES[role_of(field, default)])]
        for value, moves in cases:
            found[key, str(value)] = difference(
                before, names(replace(x, **{part: replace(node, **{field.name: value})}))
            )
            said[key, str(value)] = moves
    return found, said


@pytest.fixture(autouse=True)
def shipped_tasks(monkeypatch):
    """lm-eval's shipped tasks need the hub; one of ours stands in."""
    task = compose(["task=[sentiment]"]).tasks["sentiment"]
    monkeypatch.setattr(lm_eval_tasks, "_task_by_name", lambda name: lm_eval_tasks.make_task(name, task, "mini"))
    monkeypatch.setattr(
        lm_eval_tasks,
        "_task_manager",
        lambda *_: SimpleNamespace(all_subtasks=["arc_easy"], all_groups=[], all_tags=[]),
    )


# the parts that stand in one file each, with the role of a field that names none
PARTS = {"settings": WEIGHTS, "model": WEIGHTS, "edits": WEIGHTS, "speed": SPEED, "tracker": NOTHING,
         "replay": NOTHING, "locate": NOTHING, "plan": NOTHING}  # fmt: skip
CHOSEN = {"method", "constraint", "tasks"}  # each of whose files is walked
COPIES = {"names", "resolved", "overrides"}  # of what the other parts are made from


def test_no_part_of_an_experiment_is_left_out_of_the_walk():
    assert sorted(field.name for field in fields(Experiment)) == sorted([*PARTS, *CHOSEN, *COPIES])


@pytest.mark.parametrize(("part", "default"), PARTS.items())
def test_each_key_moves_what_its_field_says(place, part, default):
    found, said = walked(place, composed(place, "model.prompt=chat"), part, default)
    assert found == said


@pytest.mark.parametrize("method", sorted(path.stem for path in (CONF / "method").glob("*.yaml")))
def test_each_key_of_a_method_moves_what_its_field_says(place, method):
    x = composed(place, f"method={method}")
    if hasattr(x.method, "second_moment_text"):
        x = replace(x, method=replace(x.method, second_moment_text=f"{place}/text.txt"))
    if hasattr(x.method, "rebuild_every"):  # refused without a weight
        x = replace(x, method=replace(x.method, second_moment_weight=3000.0))
    found, said = walked(place, x, "method", WEIGHTS)
    assert found == said and len(said) >= len(fields(x.method))


@pytest.mark.parametrize("constraint", sorted(path.stem for path in (CONF / "constraint").glob("*.yaml")))
def test_each_key_of_a_constraint_moves_what_it_changes(place, constraint):
    x = composed(place, f"constraint={constraint}")
    view = type(x.constraint).view is not Unconstrained.view
    found, said = walked(place, x, "constraint", MEASUREMENT if view else WEIGHTS)
    assert found == said
    expected = set() if constraint == "none" else {"measurement"} if view else {"weights"}
    assert moved(composed(place), x) == expected


def test_each_key_of_a_task_moves_the_measurement(place):
    x = composed(place)
    (ability,), before = x.tasks.values(), names(x)
    for field in fields(ability):
        value = OTHERS.get(f"task.{field.name}", another(getattr(ability, field.name)))
        after = names(replace(x, tasks={"sentiment": replace(ability, **{field.name: value})}))
        assert difference(before, after) == {"measurement"}
    assert moved(x, replace(x, tasks={"another": ability})) == {"measurement"}


def test_the_rows_that_a_method_learns_from_move_the_weights(place):
    x = composed(place, "method=mend")
    assert moved(x, replace(x, edits=replace(x.edits, train="same_train.jsonl"))) == set()
    assert moved(x, replace(x, edits=replace(x.edits, train="other_train.jsonl"))) == {"weights"}


def test_the_source_of_a_plug_in_moves_what_the_plug_in_decides(place, tmp_path, monkeypatch):
    """A method, a constraint or a task's function of the same name, from a file outside the program's wings."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module("mine")
    x = composed(place)
    (ability,) = x.tasks.values()
    task = replace(ability, lm_eval={**ability.lm_eval, "process_results": mine.score})
    with_all = {
        "method": replace(x, method=mine.MyRome(layer=1, second_moment_text=f"{place}/text.txt")),
        "constraint": replace(x, constraint=mine.Mine()), "task": replace(x, tasks={"sentiment": task}),
    }  # fmt: skip
    before = {name: names(with_plugin) for name, with_plugin in with_all.items()}
    (tmp_path / "mine.py").write_text(PLUGIN + "# changed")
    after = {name: names(with_plugin) for name, with_plugin in with_all.items()}
    changed = {name: difference(before[name], after[name]) for name in before}
    assert changed == {"method": {"weights"}, "constraint": {"weights"}, "task": {"measurement"}}
    del sys.modules["mine"]


PLUGIN = """
from dataclasses import dataclass
from afteredit.edit.constraint import Unconstrained
from afteredit.edit.edit_set import OnBadRow
from afteredit.edit.methods.rome import Rome

@dataclass(frozen=True)
class MyRome(Rome):
    pass

@dataclass(frozen=True)
class Mine(Unconstrained):
    def constrain(self, update, W_now, W_base):
        return update

def score(doc, results):
    return {"acc": 1.0}
"""

"""What `wandb agent` writes is what Hydra reads."""

from __future__ import annotations

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from afteredit.launch.sweep_agent import overrides_from_agent
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.composed import compose


@pytest.fixture
def handed(tmp_path, monkeypatch):
    """handed({parameter: value}, "fixed=1") -> our overrides of the command line that the agent makes of them."""

    def hand(parameters: dict, *fixed: str) -> list[str]:
        from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

        args = {key: {"value": value} for key, value in parameters.items()}
        path = tmp_path / "parameters.yaml"
        path.write_text(yaml.safe_dump({"wandb_version": 1, **args}))
        monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(path))
        return overrides_from_agent([*fixed, *create_sweep_command_args({"args": args})["args_no_hyphens"]])

    return hand


def test_without_an_agent_arguments_stay_as_they_are():
    assert overrides_from_agent(["limit=None", "overrides=[1]"], {}) == ["limit=None", "overrides=[1]"]


def test_dotted_and_nested_keys_lists_null_and_booleans_arrive_as_meant(handed):
    parameters = {"edits.order": "shuffled", "method": "memit", "method.layers": [2, 4], "limit": None, "seed": 3,
                  "task": ["sentiment", "nli"], "tracker.log_updates": True, "harness": [],
                  "tracker.tags": ["a b", "it's"]}  # fmt: skip
    nested = {"tracker": {"project": "other", "entity": None}, "edits": {"columns": {"id": "number"}}}
    overrides = handed(parameters | nested, "n_edits=4", "device=cpu")
    x = compose(overrides)
    assert x.edits.order.value == "shuffled" and x.method.layers == [2, 4] and x.settings.limit is None
    assert (x.settings.seed, x.settings.n_edits, x.settings.device) == (3, 4, "cpu")
    assert list(x.tasks) == ["sentiment", "nli"] and x.settings.harness == []
    assert x.tracker.log_updates is True and x.tracker.tags == ["a b", "it's"]
    assert (x.tracker.project, x.tracker.entity, x.edits.columns["id"]) == ("other", None, "number")


@pytest.mark.parametrize(("given", "meant"), [(1e-05, 1e-05), (3, 3.0), (0.25, 0.25)])
def test_numbers_are_the_same_numbers(handed, given, meant):
    assert compose(handed({"method.value_lr": given})).method.value_lr == meant


def test_numbers_that_yaml_reads_as_texts_are_stored_as_numbers(handed):
    """YAML 1.1 reads 1e-1, without a dot, as text."""
    parameters = yaml.safe_load("{method.value_lr: 1e-1, seed: '1', eval_at: ['1', 2], edits: {distinct: 'yes'}}")
    assert parameters["method.value_lr"] == "1e-1"
    x = compose(handed(parameters))
    assert x.resolved == compose(["method.value_lr=0.1", "seed=1", "eval_at=[1,2]", "edits.distinct=true"]).resolved


@pytest.mark.parametrize("text", ["/a/my rows (v1)", "/a/lr=0.1,seed=1", "<s>", "it's", "a\\", "a\\'b", "x,y", " x ",
                                  "1e3", "1_000", "[v1", "a#b", "Łódź {}", '"', "new\nline", ""])  # fmt: skip
def test_every_text_arrives_as_it_is(handed, text):
    assert compose(handed({"edits.hub": text}, "task=none")).edits.hub == text


@pytest.mark.parametrize(
    "text", ["[BOS]", "[INST]", "{a}", "{a:b}", "null", "true", "1e5", "nan", "[", "a,b", "\x1b[31m"]
)
@pytest.mark.parametrize("key", ["model.start_token", "tracker.project", "edits.columns.id", "data"])
def test_where_a_key_wants_a_text_every_text_is_one(handed, key, text):
    (override,) = handed({key: text})
    assert OverridesParser.create().parse_override(override).value() == text


def test_the_agents_own_way_to_write_arguments_is_read_too(handed):
    """${args}, which stands in a sweep's command unless it says ${args_no_hyphens}."""
    (override,) = handed({"seed": 3})
    assert override == "seed=3"
    assert overrides_from_agent(["--seed=3", "n_edits=2"]) == ["seed=3", "n_edits=2"]


def test_texts_in_a_list_stay_texts(handed):
    texts = ["null", "true", "1", "nan", "a b", "it's", "[x]", "{y}", "1e3", "", "a,b", "a:b"]
    (override,) = handed({"tracker.tags": [*texts, None, True, 1, 0.5]})
    read = OverridesParser.create().parse_override(override).value()
    assert read == [*texts, None, True, 1, 0.5]
    kept = [text for text in texts if text]
    assert compose(handed({"tracker.tags": kept})).tracker.tags == kept


@pytest.mark.parametrize(("number", "read"), [(float("nan"), "nan"), (float("inf"), "inf"), (-float("inf"), "-inf"),
                                              (10**30, str(10**30)), (1e-320, "1e-320")])  # fmt: skip
def test_numbers_at_the_rim_are_handed_on_as_numbers(handed, number, read):
    (override,) = handed({"method.value_lr": number})
    assert override == f"method.value_lr={read}"
    value = OverridesParser.create().parse_override(override).value()
    assert value == number or (value != value and number != number)


def test_a_parameter_whose_name_is_no_key_is_named(handed):
    with pytest.raises(BadInput, match=r"since 'x y' is no key: a key is words.*: \"xy='v'\"$"):
        compose(handed({"x y": "v"}))


def test_a_file_of_parameters_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "parameters.yaml"
    path.write_text("a: {value: " + "[" * 5000 + "]" * 5000 + "}")
    with pytest.raises(BadInput, match="WANDB_SWEEP_PARAM_PATH"):
        overrides_from_agent(["a=1"], {"WANDB_SWEEP_PARAM_PATH": str(path)})


def test_a_text_that_is_a_list_in_hydras_words_is_one(handed):
    assert list(compose(handed({"task": "[sentiment,nli]"})).tasks) == ["sentiment", "nli"]


def test_a_run_handed_out_again_is_begun_with_the_overrides_it_was_begun_with(handed):
    """Its whole config comes for arguments (wandb/wandb#9143)."""
    begun_with = ["device=cpu", "n_edits=4", "method=memit", "method.layers=[1,2]", "limit=null", "task=none"]
    begun = compose(begun_with)
    config = {**begun.resolved, **begun.names, "overrides": begun.overrides, "resolved": begun.resolved,
              "_wandb": {"cli_version": "0.31.0"}}  # fmt: skip
    overrides = handed(config, "device=cpu", "n_edits=4")
    assert overrides == begun_with
    assert compose(overrides).resolved == begun.resolved


@pytest.mark.parametrize("content", [None, "- 1", "{", "a: 1\nb: {c: 2}"])
def test_a_file_of_parameters_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "parameters.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match="WANDB_SWEEP_PARAM_PATH"):
        overrides_from_agent(["seed=1"], {"WANDB_SWEEP_PARAM_PATH": str(path)})


def test_whole_numbers_that_an_agent_writes_as_floats_are_whole(handed):
    x = compose(handed({"n_edits": 10.0, "seed": 3.0, "method.layer": 4.0, "method.value_lr": 1.0}))
    assert (x.settings.n_edits, x.settings.seed, x.method.layer, x.method.value_lr) == (10, 3, 4, 1.0)


@pytest.mark.parametrize("stored", ["seed=2", [1]])
def test_stored_overrides_that_are_no_list_of_texts_are_refused(handed, stored):
    with pytest.raises(BadInput, match="parameter overrides is .* must be a list of texts"):
        handed({"overrides": stored})


@pytest.mark.parametrize(("given", "text"), [(2024, "2024"), (1.5, "1.5"), (1000.0, "1000.0"), (True, "true"),
                                             ("1_0", "1_0"), ("1e3", "1e3"), ("true", "true")])  # fmt: skip
def test_what_a_key_of_texts_is_given_is_its_text(handed, given, text):
    assert compose(handed({"runs": given})).settings.runs == text
    assert compose(handed({"edits": {"columns": {"id": given}}})).edits.columns["id"] == text


@pytest.mark.parametrize("value", ["${oc.env:HOME}", ["${oc.env:HOME}"], {"file": "${oc.env:HOME}"}])
@pytest.mark.parametrize("key", ["edits", "tracker.tags", "data", "n_edits"])
def test_nothing_that_a_sweep_says_is_looked_up(handed, key, value):
    with pytest.raises(BadInput, match=rf"the sweep's parameter {key}.* holds .*oc\.env:HOME.* write the value itself"):
        handed({key: value})


def test_the_facts_of_a_sweep_are_texts(handed):
    fact = "The company behind ${AAPL} is → ${oc.env:HOME}"
    x = compose(handed({"edits.fact": fact, "edits.fact_true": "${seed}"}))
    assert (x.edits.fact, x.edits.fact_true) == ([fact], "${seed}")
    assert compose(handed({"overrides": list(x.overrides)})).edits == x.edits


def test_what_a_run_handed_out_again_looks_up_was_said_by_its_own_command(handed, monkeypatch):
    monkeypatch.setenv("PLACE", "/place")
    own = "runs=${oc.env:PLACE}/runs"
    assert compose(handed({"overrides": [own]}, own)).settings.runs == "/place/runs"
    with pytest.raises(BadInput, match="overrides holds .*PLACE"):
        handed({"overrides": [own]})


@pytest.mark.parametrize("parameters", [{"tracker.tags": [["a"]]}, {"harness": [["hellaswag"]]}, {"task": None},
                                        {"edits.distinct": 2}, {"on_collapse": 1.0}, {"model": ["hf", "gpt2"]},
                                        {"task": [["nli"]]}, {"eval_at": [[1]]}])  # fmt: skip
def test_values_of_another_kind_are_refused_by_their_key(handed, parameters):
    with pytest.raises(BadInput, match=f"^{next(iter(parameters))}"):
        compose(handed(parameters))

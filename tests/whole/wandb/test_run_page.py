"""What W&B shows of a run that collapses and is begun twice: its address, alerts, what it is made of, name, config."""

from __future__ import annotations

import contextlib
import io
import json

import pytest

from afteredit.run import main

BARELY_WORSE = "collapse_perplexity=1.0000001"  # times the unedited model's: a collapse


@pytest.fixture(scope="module")
def shown(make_server, fixed, place, tmp_path_factory):
    """Returns the server, W&B's run, and what the two commands printed."""
    import wandb

    server, runs, said = make_server(), tmp_path_factory.mktemp("runs"), []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment(runs).items():
            patch.setenv(name, value)
        for _ in range(2):
            wandb.teardown()
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert main([*fixed, "n_edits=2", BARELY_WORSE, "constraint=rect", f"runs={runs}"]) == 0
            said.append(out.getvalue())
        wandb.teardown()
    ((run_id, run),) = server.state()["runs"].items()
    return server, run_id, run, said


def test_the_address_is_said_before_the_first_edit(shown):
    server, run_id, _, said = shown
    url = f"W&B      {server.url}/default/afteredit/runs/{run_id}\n"
    assert said[0].index(url) < said[0].index("edit 1")


def test_alerts_are_sent_once_though_the_run_was_begun_twice(shown):
    _, _, run, said = shown
    assert run["begun"] == 2 and "finished already" in said[1]
    collapse, end = run["alerts"]
    assert collapse["severity"] == "WARN" and collapse["title"].startswith("the model collapsed at ")
    assert "times the unedited model's" in collapse["text"]
    assert (end["severity"], end["title"]) == ("INFO", "the run has ended after 2 edits")


def test_the_model_and_the_edit_set_are_its_inputs_without_their_contents(shown, place):
    server, _, run, _ = shown
    artifacts = server.state()["artifacts"]
    used = [artifacts[name] for name in dict.fromkeys(run["used"])]
    kinds = {artifact["type"]: artifact for artifact in used}
    assert set(kinds) == {"model", "edit-set"} and {tuple(artifact["files"]) for artifact in used} == {("source.json",)}
    config = {key: node["value"] for key, node in run["config"].items()}
    assert kinds["model"]["name"] == f"model-model-{config['fingerprint'][:8]}"
    assert kinds["edit-set"]["name"] == f"edit-set-facts-{config['facts'][:8]}"
    for number in run["used"]:
        described = (server.folder / "artifacts" / number / "source.json").read_text()
        assert json.loads(described)["source"] in ("model", "facts") and str(place) not in described


def test_its_name_says_what_it_is_and_its_config_leaves_out_long_texts(shown):
    _, run_id, run, _ = shown
    assert run["displayName"] == "rome · model · rect · sequential · seed 0"
    config = {key: node["value"] for key, node in run["config"].items()}
    assert run_id.startswith(config["run"])
    assert config["resolved"]["task"]["sentiment"]["lm_eval"]["num_fewshot"] == 4
    assert "samples" not in json.dumps(config) and "edit" not in config["resolved"]["model"]

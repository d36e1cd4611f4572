"""A sweep that stops runs early (sweeps/early_stop.yaml) under W&B's own agent; the server says what is to stop."""

from __future__ import annotations

import re

import pytest
import yaml

from afteredit.store.checked_lines import Lines

N_EDITS = 200


@pytest.fixture(scope="module")
def stopped(make_server, fixed, tmp_path_factory):
    """Returns the server, the run's folder, and what the agent said until it had no more to do."""
    place, server = tmp_path_factory.mktemp("sweep"), make_server()
    root = server.root
    config = yaml.safe_load((root / "sweeps" / "early_stop.yaml").read_text())
    given = [override for override in fixed if not override.startswith("method.layer")]
    config["command"][-1:-1] = [*given, "limit=8", "task.sentiment.chance=0.1", "edits.file=facts.jsonl",
                              f"runs={place}/runs"]  # fmt: skip
    config["parameters"] = {"method.layer": {"values": [1]}, "n_edits": {"value": N_EDITS}}
    (place / "sweep.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    path = re.search(r"wandb agent (\S+)", server.wandb(place, "sweep", str(place / "sweep.yaml")))[1]
    said = server.wandb(place, "agent", path)
    (folder,) = (journal.parent for journal in (place / "runs").glob("*/edits.jsonl"))
    return server, folder, said


def test_a_run_that_the_server_stops_ends_at_a_whole_edit_with_whole_rows(stopped, records_of):
    server, folder, said = stopped
    (run_id,) = server.state()["runs"]
    records = records_of(folder)  # each with its immediate success
    (results,) = folder.glob("results-*.jsonl")
    assert len(Lines(results).records) >= 3 and len(records) < N_EDITS
    server.holds_once(run_id, folder)
    assert f"stopped by W&B after {len(records)} edits" in " ".join(said.split())


def test_it_is_no_failure_and_is_not_handed_out_again(stopped):
    server, folder, said = stopped
    ((run_id, run),) = server.state()["runs"].items()
    assert (run["state"], run["stopped"], run["begun"]) == ("finished", True, 1)
    assert "Received exit command" in said and "failed" not in said
    kept = server.artifact(f"results-{run_id}")
    assert (kept / "edits.jsonl").read_bytes() == (folder / "edits.jsonl").read_bytes()


def test_it_has_no_summary_that_would_be_compared_with_whole_runs(stopped):
    server, *_ = stopped
    (run,) = server.state()["runs"].values()
    assert "ability/retained" in run["summary"] and not [key for key in run["summary"] if key.startswith("summary/")]

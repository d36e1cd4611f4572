"""Which saved models are one model: decided by the logits of plain transformers, and said by the fingerprint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM

from afteredit.model.loading.chat_template import render
from afteredit.model.loading.model_source import ModelSource, Prompt
from afteredit.tests.tiny.models import GATED, TOKENS, random_model, randomised, tiny_model

IDS = torch.tensor([[5, 17, 300, 42, 7, 91, 260, 33, 8, 120, 64, 2]])

# changes to config.json of a tiny model, by family
CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "rope_theta": ("llama", {"rope_parameters": {"rope_theta": 10.0, "rope_type": "default"}}),
    "rope scaling": ("llama", {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 4.0}}),
    "norm epsilon": ("llama", {"rms_norm_eps": 0.5}),
    "activation": ("llama", {"hidden_act": "relu"}),
    "multipliers": ("granite", {"residual_multiplier": 0.5}),
    "window": ("mistral", {"sliding_window": 3}),
    "soft cap": ("gemma2", {"final_logit_softcapping": 0.5}),
    "attention cap": ("gemma2", {"attn_logit_softcapping": 0.5}),
    "partial rotary": ("phi", {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default",
                                                   "partial_rotary_factor": 1.0}}),
    "layer norm of gpt2": ("gpt2", {"layer_norm_epsilon": 0.5}),
    "attention scale of gpt2": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    "another class": ("llama", {"model_type": "mistral", "architectures": None, "sliding_window": 3}),
    "helium": ("llama", {"model_type": "helium", "architectures": None}),
    "name": ("llama", {"_name_or_path": "somebody/else"}),
    "version": ("llama", {"transformers_version": "4.0.0"}),
    "architectures": ("llama", {"architectures": ["Another"]}),
    "dtype of the file": ("llama", {"dtype": "bfloat16"}),
    "unset default": ("llama", {"mlp_bias": None}),
}  # fmt: skip
PROVENANCE = ("name", "version", "architectures", "dtype of the file")


@pytest.fixture
def saved(tmp_path, tokenizer) -> Callable[[str], Path]:
    """saved(family) -> the folder of a tiny model."""

    def save(family: str) -> Path:
        folder = tmp_path / family
        if family in ("gpt2", "llama"):
            model: Any = tiny_model(family, len(tokenizer))
        else:
            model = randomised(random_model(family, len(tokenizer), **GATED, **TOKENS))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


def changed(folder: Path, file: str, change: dict[str, Any]) -> Path:
    """Returns a copy of the folder with other fields in one of its JSON files; None takes a field out."""
    copy = folder.with_name("changed")
    shutil.copytree(folder, copy)
    fields = json.loads((copy / file).read_text("utf-8")) | change
    kept = {key: value for key, value in fields.items() if value is not None}
    (copy / file).write_text(json.dumps(kept), encoding="utf-8")
    return copy


def fingerprint(folder: Path, **keys: Any) -> str:
    return ModelSource(name="hf", source=str(folder), **keys).load("cpu", "float32").fingerprint


@torch.no_grad()
def logits(folder: Path) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(IDS).logits


@pytest.mark.parametrize("what", CHANGES)
def test_models_are_one_where_their_logits_are(saved, what):
    family, change = CHANGES[what]
    folder = saved(family)
    other = changed(folder, "config.json", change)
    same_logits = torch.equal(logits(folder), logits(other))
    assert same_logits == (what in (*PROVENANCE, "unset default"))  # the change does what this test is about
    assert (fingerprint(folder) == fingerprint(other)) == same_logits


def test_a_model_in_another_folder_is_the_same_model(saved, tmp_path):
    folder = saved("llama")
    shutil.copytree(folder, tmp_path / "somewhere" / "else")
    assert fingerprint(tmp_path / "somewhere" / "else") == fingerprint(folder)


TOKENIZER = {
    "end of text": {"eos_token": "<s>"},
    "special tokens read as text": {"split_special_tokens": True},
    "clean up": {"clean_up_tokenization_spaces": True},
    "chat template": {"chat_template": "{{ messages[0].content }}"},
}


@pytest.mark.parametrize("what", TOKENIZER)
def test_what_the_tokenizers_config_says_of_ids_and_texts_is_in_the_fingerprint(saved, what):
    folder = saved("gpt2")
    assert fingerprint(changed(folder, "tokenizer_config.json", TOKENIZER[what])) != fingerprint(folder)


def test_tokenizers_that_decode_otherwise_are_two(saved):
    clean = changed(saved("gpt2"), "tokenizer_config.json", {"clean_up_tokenization_spaces": True})
    forced = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    other = changed(clean.rename(clean.with_name("clean")), "tokenizer_config.json", {forced: True})
    one, two = (ModelSource("hf", str(folder)).load("cpu", "float32") for folder in (clean.with_name("clean"), other))
    ids = one.tokenizer("a , b").input_ids
    assert (one.tokenizer.decode(ids), two.tokenizer.decode(ids)) == ("a , b", "a, b")
    assert one.fingerprint != two.fingerprint


DATED = '{{ strftime_now("%d %b %Y") }}: {{ messages[0].content }}'


def test_a_template_that_asks_for_the_date_is_told_the_day_that_the_run_keeps(saved):
    folder = changed(saved("gpt2"), "tokenizer_config.json", {"chat_template": DATED})
    lm = ModelSource(name="hf", source=str(folder), prompt=Prompt.chat, chat_date="1999-12-31").load("cpu", "float32")
    assert lm.tokens.in_prompt_mode("Hello") == ("31 Dec 1999: Hello", 13)
    assert render(lm.tokenizer, [{"role": "user", "content": "Hi"}], lm.tokens.chat_date) == "31 Dec 1999: Hi"
    assert lm.fingerprint != fingerprint(folder, prompt=Prompt.chat)


def test_the_date_renames_no_model_whose_template_does_not_ask_for_it(saved):
    folder = saved("gpt2")
    assert fingerprint(folder, chat_date="1999-12-31") == fingerprint(folder)


@pytest.mark.parametrize(
    ("template", "start_token", "expected"),
    [
        ("<s> $A", "auto", ["<s>"]),
        ("<s> $A <|endoftext|>", "auto", ["<s>"]),
        ("<|endoftext|> <s> $A", "auto", ["<|endoftext|>", "<s>"]),
        ("$A <|endoftext|>", "auto", []),
        ("<s> $A <s>", "auto", ["<s>"]),
        ("<s> <|endoftext|> <s> $A <s>", "auto", ["<s>", "<|endoftext|>", "<s>"]),
        ("x $A x", "auto", ["x"]),
        ("7 $A", "auto", ["7"]),
        ("$A x", "auto", []),
        ("$A", "auto", []),
        ("<s> $A", None, []),
        ("<s> $A", "<|endoftext|>", ["<|endoftext|>"]),
    ],
)
def test_auto_takes_what_the_tokenizer_puts_in_front_of_a_text(
    tmp_path, tokenizer, caplog, template, start_token, expected
):
    folder = tmp_path / "model"
    tiny_model("gpt2", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    special = [
        (token, tokenizer.vocab[token]) for token in ("<s>", "<|endoftext|>", "7", "x") if token in template.split()
    ]
    file["post_processor"] = json.loads(TemplateProcessing(template, special_tokens=special).__getstate__())
    (folder / "tokenizer.json").write_text(json.dumps(file), encoding="utf-8")
    # a BOS that is declared and not written changes nothing
    declared = json.loads((folder / "tokenizer_config.json").read_text("utf-8")) | {"bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(declared), encoding="utf-8")
    with caplog.at_level("INFO"):
        lm = ModelSource(name="hf", source=str(folder), start_token=start_token).load("cpu", "float32")
    ids = [tokenizer.vocab[token] for token in expected]
    assert lm.tokens.encode("Joe") == (*ids, *tokenizer("Joe").input_ids)
    assert lm.fingerprint_parts["start_token"] == expected
    said = f"start token: {' '.join(expected)}" if expected else "no start token"
    assert f"{said} (model.start_token={start_token or 'null'})" in caplog.text
    assert ("itself puts <s>" in caplog.text) == (start_token is None)

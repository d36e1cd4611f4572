"""Tiny random models of every family, with a tokenizer of their own: no network, no downloads, milliseconds."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.gemma2 import modeling_gemma2
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.gptj import modeling_gptj
from transformers.models.llama import modeling_llama

from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.tests.tiny.architectures import architecture  # noqa: F401
from afteredit.tests.tiny.plain_pass import one_thread, plain_nll, plain_pass  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("gpt2", "gptj", "llama")
WIDTH, INNER, LAYERS = 32, 48, 4

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
         "max_position_embeddings": 128}  # fmt: skip
GATED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_embd": 32, "n_inner": 48, "n_layer": 4, "n_head": 4, "n_positions": 128}
EXACT = {  # on which the shortcuts are held against plain passes
    "gpt2": ("gpt2", GPT),  # its head is tied to its embedding, as OPT's and Gemma 2's are
    "gptj": ("gptj", {**GPT, "rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", SHAPE),
    "opt": ("opt", {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "llama": ("llama", GATED),
    "llama-tied": ("llama", {**GATED, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", {**GATED, "sliding_window": 4096}),  # soft caps; its window is wider than any row
    "gemma2-windows": ("gemma2", {**GATED, "sliding_window": 9}),
}

torch.set_num_threads(1)  # tiny models: threads only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start, too


@pytest.fixture(autouse=True)
def log_as_imported():
    """A run sets up its process's log, and each test here finds it as it is before any run."""
    log = logging.getLogger("afteredit")
    log.setLevel(logging.NOTSET)
    log.handlers, log.propagate = [], True


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the embedded facts, as GPT-2's and SmolLM2's are."""
    lines = (ROOT / "data" / "facts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [text for line in lines for row in [json.loads(line)] for text in (row["prompt"], *row["paraphrases"])]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<s>"]
    raw.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", unk_token="<|endoftext|>")


def tiny_model(family: str, vocab: int, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A random model whose weights are the same each time."""
    heads = {"n_head": 4, "n_layer": LAYERS, "n_embd": WIDTH, "n_inner": INNER, "n_positions": 256}
    shapes = {
        "gpt2": heads,
        "gptj": {**heads, "rotary_dim": 4},
        "llama": {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": LAYERS, "hidden_size": WIDTH,
                  "intermediate_size": INNER, "max_position_embeddings": 256},
    }  # fmt: skip
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = AutoConfig.for_model(family, vocab_size=vocab, **tokens, **shapes[family])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():  # random biases too: a forgotten one must show
        if parameter.ndim == 1 and "bias" in name:
            torch.nn.init.normal_(parameter, std=0.5)
        elif parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.to(dtype).eval()


@pytest.fixture(scope="session")
def save_tiny_llama(tokenizer):
    """save_tiny_llama(folder): a random Llama that a run can load from there, the same each time."""

    def save(folder: Path) -> None:
        torch.manual_seed(0)
        shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
        tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
        config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), max_position_embeddings=1024,
                                      initializer_range=0.3, **shape, **tokens)  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return save


def exact_model(name: str, vocab: int, dtype: torch.dtype) -> torch.nn.Module:
    """Random, norms and biases too, but the same each time."""
    family, settings = EXACT[name]
    config = AutoConfig.for_model(family, vocab_size=vocab, pad_token_id=0, **settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
        else:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.to(dtype)


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def make_lm(tokenizer):
    """make_lm(family, start_token=None, dtype=torch.float32) -> LM."""

    def make(family: str, start_token: str | None = None, dtype: torch.dtype = torch.float32) -> LM:
        return LM(tiny_model(family, len(tokenizer), dtype), tokenizer, start_token=start_token)

    return make


@pytest.fixture(params=list(EXACT))
def exact_lm(request, tokenizer) -> LM:
    """In float64: what is the same mathematics is the same to ten digits."""
    return LM(exact_model(request.param, len(tokenizer), torch.float64), tokenizer)


class Wide:
    """`torch` to a modelling file whose hard-wired float32 islands (norms, attention scores) would hide 1e-9."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def float64_throughout(monkeypatch):
    """No step of an `exact_lm` is in less."""
    for module in (modeling_gemma2, modeling_gpt_neox, modeling_gptj, modeling_llama):
        monkeypatch.setattr(module, "torch", Wide())
    norm = modeling_gemma2.Gemma2RMSNorm
    monkeypatch.setattr(norm, "forward", lambda self, x: self._norm(x) * (1.0 + self.weight))


@pytest.fixture
def tiny_folder(tmp_path, tokenizer) -> Path:
    """A tiny Llama saved as `model=hf model.source=<this>` loads it."""
    folder = tmp_path / "tiny"
    tiny_model("llama", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def fact() -> EditRequest:
    return EditRequest(
        id="f1",
        subject="Joe DiMaggio",
        prompt="The sport that brought {} to fame is",
        target_new="boxing",
        target_true="baseball",
        relation="sport",
        paraphrases=("Young athletes who look up to Joe DiMaggio dream of a future in",),
        neighbourhood=("The trophies won by Barry Bonds were all awarded in", "Hank Aaron played"),
        neighbourhood_answers=("baseball", "baseball"),
    )


@pytest.fixture
def second_fact() -> EditRequest:
    """Another subject, of another length, at the front of its prompt."""
    return EditRequest(id="f2", subject="The Great Wall", prompt="{} is located in", target_new="Italy",
                       target_true="China", relation="country")  # fmt: skip

"""Tests models in GGUF files against plain transformers: tiny models, written by llama.cpp's rules (tests/tiny)."""

import logging
import os
import subprocess
import sys

import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import GPT2Tokenizer
from transformers.models.gemma.tokenization_gemma import GemmaTokenizer
from transformers.models.llama.tokenization_llama import LlamaTokenizer
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from afteredit.model.loading import gguf
from afteredit.model.loading.model_source import ModelSource
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.gguf_files import SHAPES, byte_level_vocabulary, sentencepiece, tiny, write_gguf

TEXTS = [
    "Joe DiMaggio is a baseball player",
    "Zürich  lies\n\nin 1969, don't it? 東京",
    " x",
    "cafe\u0301 <|endoftext|>!",
]
KINDS = {kind.name: kind for kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def described(tokenizer):
    """described(architecture) -> (tokenizer of its own class, its metadata)."""
    backend = tokenizer.backend_tokenizer.model
    vocab = tokenizer.get_vocab()

    def make(architecture):
        if architecture == "llama":
            return sentencepiece(LlamaTokenizer, ("<unk>", "<s>", "</s>"))
        if architecture == "gemma3":
            return sentencepiece(GemmaTokenizer, ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))
        kind, pre = (GPT2Tokenizer, "gpt-2") if architecture == "gpt2" else (Qwen2Tokenizer, "qwen2")
        metadata = byte_level_vocabulary(tokenizer, pre)
        merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
        made = kind(vocab=vocab, merges=merges)
        made.add_special_tokens({"additional_special_tokens": ["<|endoftext|>", "<s>"]})
        return made, metadata

    assert backend
    return make


def loaded(file):
    return ModelSource("hf", str(file), start_token="auto").load("cpu", "float32")


def assert_same(lm, model):
    """The weights are those to the bit, and so are the answers."""
    theirs = dict(model.named_parameters())
    assert {name for name, _ in lm.model.named_parameters()} == theirs.keys()
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name
    ids_BT = torch.arange(1, 49).reshape(2, 24)
    with torch.no_grad():
        assert torch.equal(lm.model(input_ids=ids_BT).logits, model(input_ids=ids_BT).logits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", SHAPES)
def test_a_file_answers_and_cuts_texts_as_the_model_that_was_written(architecture, kind, described, tmp_path):
    theirs, metadata = described(architecture)
    model = tiny(architecture, len(theirs))
    write_gguf(tmp_path / "m.gguf", architecture, model, metadata, KINDS[kind])
    lm = loaded(tmp_path / "m.gguf")
    assert_same(lm, model)
    assert lm.stored_as == {"Q8_0": "Q8_0, dequantised"}.get(kind, kind)
    for text in TEXTS:
        ids = theirs(text, add_special_tokens=False).input_ids
        assert lm.tokenizer(text, add_special_tokens=False).input_ids == ids, text
        assert lm.tokenizer.decode(ids) == theirs.decode(ids)
    bos = {"llama": ["<s>"], "gemma3": ["<bos>"]}.get(architecture, [])  # SentencePiece's, unless the file says no
    assert lm.tokenizer.convert_ids_to_tokens(lm.tokens.start_ids) == bos


@pytest.mark.parametrize("architecture", SHAPES)
def test_a_head_of_its_own_is_read(architecture, described, tmp_path):
    theirs, metadata = described(architecture)
    model = tiny(architecture, len(theirs), tie_word_embeddings=False)
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    write_gguf(tmp_path / "m.gguf", architecture, model, metadata)
    assert_same(loaded(tmp_path / "m.gguf"), model)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192, "rope_theta": 500000.0}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 10000.0}
SCALED = {
    "llama3": ("llama", LLAMA3, {}),
    "linear": ("llama", LINEAR, {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}),
    "gemma 3": ("gemma3", {"full_attention": {**LINEAR, "rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}},
                {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 4.0}),
    "yarn": ("qwen2", YARN, {"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0,
                             "qwen2.rope.scaling.original_context_length": 128}),
}  # fmt: skip


@pytest.mark.parametrize("case", SCALED)
def test_scaled_positions_are_read(case, described, tmp_path):
    architecture, rope, extra = SCALED[case]
    theirs, metadata = described(architecture)
    model = tiny(architecture, len(theirs), rope_parameters=rope, **({"head_dim": 64} if case == "llama3" else {}))
    if case == "llama3":  # the file holds by what each frequency is divided
        plain = 500000.0 ** -(torch.arange(0, 64, 2).float() / 64)
        model.rope_freqs = torch.nn.RMSNorm(32)
        model.rope_freqs.weight.data = plain / model.model.rotary_emb.inv_freq
    write_gguf(tmp_path / "m.gguf", architecture, model, metadata, extra=extra)
    model._modules.pop("rope_freqs", None)
    lm = loaded(tmp_path / "m.gguf")
    assert_same(lm, model)
    plain = tiny(architecture, len(theirs), **({"head_dim": 64} if case == "llama3" else {}))
    plain.load_state_dict(model.state_dict())
    with pytest.raises(AssertionError):
        assert_same(lm, plain)  # so the scale does count here


def test_a_factor_of_positions_without_a_kind_is_linear(described, tmp_path):
    theirs, metadata = described("llama")
    model = tiny("llama", len(theirs), rope_parameters=LINEAR)
    write_gguf(tmp_path / "m.gguf", "llama", model, metadata, extra={"llama.rope.scaling.factor": 4.0})
    assert_same(loaded(tmp_path / "m.gguf"), model)
    model = tiny("llama", len(theirs), rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    none = {"llama.rope.scaling.factor": 4.0, "llama.rope.scaling.type": "none"}
    write_gguf(tmp_path / "m.gguf", "llama", model, metadata, extra=none)
    assert_same(loaded(tmp_path / "m.gguf"), model)


def test_special_tokens_that_sentencepiece_does_not_name_are_its_own(described, tmp_path):
    theirs, metadata = described("llama")
    named = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0}
    assert {key: metadata.pop(key) for key in named} == named
    write_gguf(tmp_path / "m.gguf", "llama", tiny("llama", len(theirs)), metadata)
    lm = loaded(tmp_path / "m.gguf")
    assert lm.tokens.start_ids == [1] and lm.tokenizer("x").input_ids[0] == 1
    assert (lm.tokenizer.bos_token, lm.tokenizer.eos_token, lm.tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
    assert (lm.model.config.bos_token_id, lm.model.config.eos_token_id) == (1, 2)


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_biases_of_attention_are_read(architecture, described, tmp_path):
    theirs, metadata = described(architecture)
    model = tiny(architecture, len(theirs), attention_bias=True)
    write_gguf(tmp_path / "m.gguf", architecture, model, metadata)
    assert_same(loaded(tmp_path / "m.gguf"), model)


def test_llama_3s_vocabulary_holds_words_that_no_merges_make(tokenizer, described, tmp_path):
    metadata = byte_level_vocabulary(tokenizer, "llama-bpe")
    metadata["tokenizer.ggml.tokens"].append("Ġunheardof")
    metadata["tokenizer.ggml.token_type"].append(1)
    write_gguf(tmp_path / "m.gguf", "llama", tiny("llama", 601), metadata)
    lm = loaded(tmp_path / "m.gguf")
    assert lm.tokenizer("x unheardof", add_special_tokens=False).input_ids[1:] == [600]
    assert lm.tokens.start_ids == [0]  # a BOS, though the file does not say so


def test_any_part_of_a_split_model_loads_all_and_a_missing_one_is_named(described, tmp_path, caplog):
    theirs, metadata = described("qwen2")
    model = tiny("qwen2", len(theirs))
    write_gguf(tmp_path / "m.gguf", "qwen2", model, metadata, KINDS["Q8_0"], parts=3)
    names = sorted(path.name for path in tmp_path.glob("*.gguf"))
    assert names == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    with caplog.at_level(logging.INFO):
        for name in names:
            assert_same(loaded(tmp_path / name), model)
    assert "weights: Q8_0, dequantised" in caplog.text
    (tmp_path / names[1]).rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=r"3 parts, of which m-00002-of-00003.gguf is not beside it"):
        loaded(tmp_path / names[0])
    (tmp_path / names[2]).rename(tmp_path / names[1])
    (tmp_path / "elsewhere").rename(tmp_path / names[2])
    with pytest.raises(BadInput, match=r"m-00002-of-00003.gguf is part 2 \(split.no\), though its name says 1"):
        loaded(tmp_path / names[0])


def test_a_file_is_converted_once(described, tmp_path, monkeypatch):
    theirs, metadata = described("gpt2")
    write_gguf(tmp_path / "m.gguf", "gpt2", tiny("gpt2", len(theirs)), metadata)
    first = loaded(tmp_path / "m.gguf")
    monkeypatch.setattr(gguf, "_convert", None)
    (tmp_path / "m.gguf").rename(tmp_path / "other.gguf")
    (tmp_path / "cache" / "models").joinpath("m").mkdir()
    assert gguf.converted(tmp_path / "other.gguf", "m").name.startswith("m-")
    assert first.stored_as == "F32"


def test_a_converted_model_that_was_altered_in_the_cache_is_named_and_made_anew(described, tmp_path, caplog):
    theirs, metadata = described("llama")
    model = tiny("llama", len(theirs))
    write_gguf(tmp_path / "m.gguf", "llama", model, metadata)
    folder = gguf.converted(tmp_path / "m.gguf")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert_same(loaded(tmp_path / "m.gguf"), model)
    assert f"{folder} does not match its checksum" in caplog.text


PEAK = """
import sys, torch, transformers
from pathlib import Path
from transformers import AutoModelForCausalLM
from afteredit.model.loading.gguf import converted
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
before = peak()
converted(Path(sys.argv[1]))
print(peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux for the peak of memory")
def test_converting_peaks_at_under_twice_the_weights(described, tmp_path):
    theirs, metadata = described("llama")
    model = tiny("llama", len(theirs), hidden_size=512, intermediate_size=2048, num_hidden_layers=8)
    write_gguf(tmp_path / "m.gguf", "llama", model, metadata, KINDS["F16"])
    size = sum(4 * parameter.numel() for parameter in model.parameters())
    made = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "m.gguf")], capture_output=True, text=True, check=True
    )
    assert size > 1e8 and int(made.stdout) < 2 * size

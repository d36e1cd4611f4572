"""GGUF files of strangers: damaged, lying or of models that cannot be edited; each is refused by a sentence."""

import math
import random
import struct

import pytest
from transformers.models.gemma.tokenization_gemma import GemmaTokenizer

from afteredit.model.loading import gguf_header
from afteredit.model.loading.gguf import converted
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.gguf_files import byte_level_vocabulary, sentencepiece, tiny, write_gguf


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory):
    """The bytes of a good file."""
    file = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write_gguf(file, "qwen2", tiny("qwen2", len(tokenizer)), byte_level_vocabulary(tokenizer, "qwen2"))
    return file.read_bytes()


def text(word: str) -> bytes:
    return struct.pack("<Q", len(word)) + word.encode()


def header(metadata: bytes = b"", n_metadata: int = 0, tensors: bytes = b"", n_tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_metadata) + metadata + tensors


def tensor(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


LIES = {
    "a million million metadata": (header(n_metadata=10**12), "counts 1000000000000 metadata entries"),
    "as many tensors": (header(n_tensors=2**63), "counts 9223372036854775808 tensor entries"),
    "a name longer than the file": (header(struct.pack("<Q", 2**62), 1), "has a text of 4611686018427387904 bytes"),
    "a list that never ends": (header(text("x") + struct.pack("<IIQ", 9, 4, 2**40), 1), "of 1099511627776 entries"),
    "a list longer than the file": (header(text("x") + struct.pack("<IIQ", 9, 10, 2**20), 1), "is cut off"),
    "lists in lists": (header(text("x") + struct.pack("<IIQ", 9, 9, 1), 1), "list of type 9"),
    "an unknown type": (header(text("x") + struct.pack("<I", 77), 1), "value of type 77"),
    "one key twice": (header((text("x") + struct.pack("<IB", 0, 1)) * 2, 2), "names 'x' twice"),
    "no UTF-8": (header(struct.pack("<Q", 2) + b"\xff\xfe", 1), "is damaged"),
    "a tensor of a trillion": (header(tensors=tensor("a", (2**32, 2**32)), n_tensors=1), "is cut off: 'a' ends"),
    "a tensor of nothing": (header(tensors=tensor("a", (0,)), n_tensors=1), "tensor of \\[0\\] as F32"),
    "a tensor of many dimensions": (header(tensors=text("a") + struct.pack("<I", 2**31), n_tensors=1), "of 2147483648"),
    "a tensor far away": (header(tensors=tensor("a", (1,), 0, 2**63), n_tensors=1), "is cut off"),
    "half a block": (header(tensors=tensor("a", (31,), 8), n_tensors=1), "as Q8_0, whose rows come in blocks of 32"),
    "an unknown kind": (header(tensors=tensor("a", (32,), 999), n_tensors=1), "type 999"),
    "one on the other": (header(tensors=tensor("a", (8,)) + tensor("b", (8,)), n_tensors=2) + bytes(200), "another"),
    "alignment": (header(text("general.alignment") + struct.pack("<II", 4, 3), 1), "general.alignment of 3"),
    "version": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648"),
    "a picture": (b"\x89PNG" + bytes(100), "is no GGUF file"),
    "nothing": (b"", "is no GGUF file"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:46", "a pointer of Git LFS.*git lfs pull"),
    "no architecture": (header(), "architecture None"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_costs_neither_time_nor_memory(lie, tmp_path):
    content, words = LIES[lie]
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(BadInput, match=f"m.gguf.*{words}"):
        converted(tmp_path / "m.gguf")
    assert not list((tmp_path / "cache" / "models").glob("*/*"))


def test_a_file_cut_off_anywhere_is_refused(whole, tmp_path):
    lengths = [random.Random(0).randrange(len(whole)) for _ in range(30)]
    for n in [*range(0, 200, 7), *lengths, len(whole) - 1]:
        (tmp_path / "m.gguf").write_bytes(whole[:n])
        with pytest.raises(BadInput, match="is cut off|is no GGUF file"):
            gguf_header.read_header([tmp_path / "m.gguf"])


def test_flipped_bits_of_the_header_are_refused_or_harmless(whole, tmp_path):
    draw = random.Random(0)
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[draw.choice([draw.randrange(600), draw.randrange(30000)])] ^= 1 << draw.randrange(8)
        (tmp_path / "m.gguf").write_bytes(flipped)
        try:
            gguf_header.read_header([tmp_path / "m.gguf"])
        except BadInput as problem:
            assert "m.gguf" in str(problem)


def rewritten(tmp_path, tokenizer, architecture="qwen2", extra=None, vocabulary=None, **changes):
    file = tmp_path / "m.gguf"
    metadata = {**byte_level_vocabulary(tokenizer, "qwen2"), **(vocabulary or {})}
    model = tiny(architecture, len(tokenizer), **changes)
    write_gguf(file, architecture, model, {k: v for k, v in metadata.items() if v is not None}, extra=extra)
    return file


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"qwen2.expert_count": 8}, "mixture of experts"),
        ({"qwen2.logit_scale": 2.0}, "logit_scale='2.0', which cannot be read and changes what the model answers"),
        ({"qwen2.rope.scaling.type": "longrope"}, "rope.scaling.type='longrope' cannot be read"),
        ({"qwen2.attention.causal": False}, "no decoder"),
        ({"qwen2.rope.dimension_count": 4}, "only 4 of 16 entries of a head turn"),
        ({"general.type": "adapter"}, "holds no model but 'adapter'"),
        ({"qwen2.attention.causal": "false"}, "causal='false'; it must be true or false, no text"),
        ({"qwen2.rope.freq_base": "10000"}, "freq_base='10000'; it must be a finite number"),
        ({"qwen2.rope.scaling.type": 3}, "rope.scaling.type=3; it must be a text"),
        ({"qwen2.context_length": 0}, "context_length=0; it must be a whole number of at least 1"),
        ({"qwen2.embedding_length": 64.0}, "embedding_length=64.0; it must be a whole number"),
        ({"qwen2.attention.head_count_kv": [2, 2, 2]}, r"head_count_kv=\[2, 2, 2\]; it must be a whole number"),
        ({"qwen2.attention.layer_norm_rms_epsilon": math.nan}, "epsilon=nan; it must be at least 0 and below 1"),
        ({"qwen2.rope.scaling.factor": math.inf}, "factor=inf; it must be a finite number"),
        ({"tokenizer.ggml.add_bos_token": "false"}, "add_bos_token='false'; it must be true or false"),
        ({"tokenizer.ggml.add_eos_token": 1}, "add_eos_token=1; it must be true or false"),
        ({"tokenizer.chat_template": True}, "chat_template=True; it must be a text"),
        ({"split.count": 3}, "is of a model in 3 files, but 1 are given"),
        ({"split.tensors.count": 3}, "counts 3 tensors in all parts"),
    ],
)
def test_what_the_config_cannot_say_is_refused(extra, words, tmp_path, tokenizer):
    with pytest.raises(BadInput, match=words):
        converted(rewritten(tmp_path, tokenizer, extra=extra))


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ({"tokenizer.ggml.pre": "new-in-2030"}, "pre='new-in-2030' is no known way of cutting"),
        ({"tokenizer.ggml.model": "bert"}, "holds no tokenizer that can be made"),
        ({"tokenizer.ggml.merges": None}, "tokenizer.ggml.merges does not fit"),
        ({"tokenizer.ggml.merges": ["a b c d"]}, "cannot be converted"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "tokenizer.ggml.token_type does not fit its 600 tokens"),
        ({"tokenizer.ggml.pre": None}, "pre=None is no known way of cutting"),
        ({"tokenizer.ggml.tokens": ["x", "twice", *map(str, range(597)), "twice"]}, "holds 'twice' more than once"),
        (
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None},
            "puts its BOS around a text, but lacks tokenizer.ggml.bos_token_id",
        ),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "eos_token_id=1000000, but there are 600 tokens"),
    ],
)
def test_a_tokenizer_that_cannot_be_made_is_refused(vocabulary, words, tmp_path, tokenizer):
    with pytest.raises(BadInput, match=words):
        converted(rewritten(tmp_path, tokenizer, vocabulary=vocabulary))


NEEDED = ["context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count"]


@pytest.mark.parametrize(
    ("architecture", "key"),
    [
        *((architecture, key) for architecture in ("qwen2", "gpt2") for key in NEEDED),
        ("qwen2", "attention.layer_norm_rms_epsilon"),
        ("gpt2", "attention.layer_norm_epsilon"),
        ("gemma3", "attention.sliding_window"),
    ],
)
def test_a_file_without_a_key_that_has_no_default_is_refused_by_its_name(architecture, key, tmp_path, tokenizer):
    pre = {"gpt2": "gpt-2"}.get(architecture, "qwen2")
    file = rewritten(tmp_path, tokenizer, architecture, vocabulary={"tokenizer.ggml.pre": pre})
    old = f"{architecture}.{key}".encode()
    file.write_bytes(file.read_bytes().replace(old, b"general." + b"x" * (len(old) - 8)))
    with pytest.raises(BadInput, match=f"m.gguf lacks {architecture}.{key},"):
        converted(file)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"attention.sliding_window": 0}, "sliding_window=0; it must be a whole number of at least 1"),
        ({"attention.sliding_window_pattern": 0}, "sliding_window_pattern=0; it must be a whole number"),
        ({"attention.sliding_window_pattern": [True, False]}, "or true or false for each of 7 blocks"),
        ({"attention.sliding_window_pattern": "6"}, "sliding_window_pattern='6'"),
    ],
)
def test_a_window_that_no_pass_can_look_through_is_refused(extra, words, tmp_path, tokenizer):
    extra = {f"gemma3.{key}": value for key, value in extra.items()}
    with pytest.raises(BadInput, match=words):
        converted(rewritten(tmp_path, tokenizer, "gemma3", extra=extra))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer.ggml.bos_token_id": None}, "lacks tokenizer.ggml.bos_token_id; llama.cpp takes 1 then.*<eos>"),
        ({"tokenizer.ggml.unknown_token_id": None}, "lacks tokenizer.ggml.unknown_token_id; llama.cpp takes 0"),
        ({"tokenizer.ggml.scores": math.nan}, "tokenizer.ggml.scores holds a number that is not finite"),
    ],
)
def test_a_sentencepiece_that_cannot_be_told_is_refused(change, words, tmp_path):
    theirs, metadata = sentencepiece(GemmaTokenizer, ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))
    for key, value in change.items():
        metadata[key] = [*metadata[key][:-1], value] if value is not None else None
    metadata = {key: value for key, value in metadata.items() if value is not None}
    write_gguf(tmp_path / "m.gguf", "gemma3", tiny("gemma3", len(theirs)), metadata)
    with pytest.raises(BadInput, match=words):
        converted(tmp_path / "m.gguf")


@pytest.mark.parametrize("name", ["mamba", "qwen2moe", "bert", "../../etc"])
def test_another_architecture_is_refused_by_name(name, whole, tmp_path):
    file = tmp_path / "m.gguf"
    file.write_bytes(header(text("general.architecture") + struct.pack("<I", 8) + text(name), 1))
    with pytest.raises(BadInput, match=f"architecture '{name}'.*llama, qwen2, qwen3, gemma3, gpt2 can be read"):
        converted(file)


def test_blocks_that_are_not_there_and_tensors_without_a_place_are_refused(whole, tmp_path):
    file = tmp_path / "m.gguf"
    for old, new, words in [
        (b"blk.2.ffn_down.weight", b"blk.2.ffn_dawn.weight", "holds 'blk.2.ffn_dawn.weight', which has no place"),
        (b"qwen2.block_count\4\0\0\0\3", b"qwen2.block_count\4\0\0\0\2", "holds 'blk.2.*', which has no place"),
        (b"qwen2.block_count\4\0\0\0\3\0\0\0", b"qwen2.block_count\4\0\0\0\xff\xff\xff\x7f", "block_count=2147483647"),
        (b"qwen2.feed_forward_length\4\0\0\0\x60", b"qwen2.feed_forward_length\4\0\0\0\x40", "but the metadata make"),
        (b"qwen2.attention.head_count\4\0\0\0\4", b"qwen2.attention.head_count\4\0\0\0\0", "head_count=0"),
    ]:  # fmt: skip
        assert old in whole
        file.write_bytes(whole.replace(old, new, 1))
        with pytest.raises(BadInput, match=words):
            converted(file)


def test_no_name_in_a_file_leads_out_of_the_cache(tmp_path, tokenizer):
    folder = tmp_path / ".. odd name;$(x)"
    folder.mkdir()
    file = rewritten(tmp_path, tokenizer, extra={"general.name": "../../../outside"}).rename(folder / "..x .gguf")
    made = converted(file)
    assert made.parent == tmp_path / "cache" / "models" and made.name.startswith("_x_-")
    written = {path.name for path in made.iterdir()}
    assert written == {"config.json", "gguf.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}

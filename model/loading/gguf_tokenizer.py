"""Makes a tokenizer from the metadata of a GGUF file.

transformers builds its vocabulary, merges and rules of cutting.  It leaves out the following, which is put right here:
whole words of Llama 3's vocabulary before merges, the normal form of Qwen's, what stands in front of a text, and names
of special tokens in letters of other alphabets.  It cuts texts as GPT-2 does where it does not know how: refused here.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from afteredit.model.loading.gguf_header import Header
from afteredit.store.errors import BadInput

# ways of cutting a text (tokenizer.ggml.pre); smollm's single digits come out alike, but after several spaces
AS_GPT2 = {"gpt-2", "smollm"}
# of llama.cpp's ways of cutting, those with the whole words of the vocabulary first, and a BOS unless the file says no
WORDS_FIRST = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken"}
KINDS = {"gpt2", "llama"}  # byte-level BPE, and SentencePiece's
# SentencePiece's own, which llama.cpp takes where a file does not name them
DEFAULTS = {"bos": (1, "<s>"), "eos": (2, "</s>"), "unknown": (0, "<unk>")}
ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def save_tokenizer(header: Header, folder: Path, file: str) -> None:
    """Saves the tokenizer that the metadata describe.  Raises BadInput where they describe none that can be made."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

    metadata = header.metadata
    given = {name: metadata[f"tokenizer.{key}"] for key, name in GGUF_TOKENIZER_MAPPING["tokenizer"].items()
             if f"tokenizer.{key}" in metadata}  # fmt: skip
    kind, pre, tokens = given["tokenizer_type"], given.get("pre_tokenizer_type", "default"), given["tokens"]
    special = special_ids(header, file)
    given |= {f"{role}_id": index for role, index in special.items() if index is not None}
    backend, _ = convert_gguf_tokenizer(metadata["general.architecture"], given)
    rules = json.loads(backend.to_str())
    _name_special_tokens(rules, tokens, [index for index in special.values() if index is not None])
    if pre == "qwen2":
        rules["normalizer"] = {"type": "NFC"}
    if kind == "gpt2":
        rules["model"]["ignore_merges"] = pre in WORDS_FIRST
    if kind == "llama" and given.get("add_prefix_space") is False and rules["pre_tokenizer"]["type"] == "Metaspace":
        rules["pre_tokenizer"]["prepend_scheme"] = "never"
        rules["decoder"]["decoders"] = [step for step in rules["decoder"]["decoders"] if step["type"] != "Strip"]
    puts = {"bos": kind == "llama" or pre in WORDS_FIRST, "eos": False}
    around = {end: special[f"{end}_token"] if metadata.get(f"tokenizer.ggml.add_{end}_token", default) else None
              for end, default in puts.items()}  # fmt: skip
    for end, default in puts.items():
        if around[end] is None and metadata.get(f"tokenizer.ggml.add_{end}_token", default):
            raise BadInput(f"{file} puts its {end.upper()} around a text, but lacks tokenizer.ggml.{end}_token_id; "
                           "write it to the file, or give another file")  # fmt: skip
    rules["post_processor"] = _around(around["bos"], around["eos"], tokens)
    names = {role: tokens[index] for role, index in special.items() if index is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(rules)), **names)
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    tokenizer.save_pretrained(folder)


def special_ids(header: Header, file: str) -> dict[str, int | None]:
    """Returns the ids of the special tokens by transformers' names of their roles; None where there is no such token.

    Raises BadInput where an id is none of a token, or the lists of the vocabulary do not fit.
    """
    metadata = header.metadata
    _check(metadata, file)
    tokens, ids = metadata["tokenizer.ggml.tokens"], {}
    for role, name in ROLES.items():
        key = f"tokenizer.ggml.{name}_token_id"
        index = metadata.get(key)
        if index is None and metadata["tokenizer.ggml.model"] == "llama" and name in DEFAULTS:
            index, default = DEFAULTS[name]
            if tokens[index : index + 1] != [default]:
                raise BadInput(f"{file} lacks {key}; llama.cpp takes {index} then, SentencePiece's {default!r}, but "
                               f"here that is {tokens[index : index + 1]}; write it to the file, or give another "
                               "file")  # fmt: skip
        if index is not None and not (type(index) is int and 0 <= index < len(tokens)):
            raise BadInput(f"{file}: {key}={index!r}, but there are {len(tokens)} tokens; fetch it again")
        ids[role] = index
    return ids


def _check(metadata: dict[str, Any], file: str) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    kind, pre, tokens = (metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre", "tokens"))
    if kind not in KINDS or not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise BadInput(f"{file} holds no tokenizer that can be made (tokenizer.ggml.model={kind!r}; "
                       f"{' and '.join(sorted(KINDS))} can); give the model as a folder of safetensors")  # fmt: skip
    named = Counter(token for token in tokens if token)  # llama.cpp gives the empty ones names of their own
    if named and named.most_common(1)[0][1] > 1:
        raise BadInput(f"{file}: tokenizer.ggml.tokens holds {named.most_common(1)[0][0]!r} more than once; fetch it "
                       "again")  # fmt: skip
    lists = [("merges", str)] if kind == "gpt2" else [("scores", float)]
    for name, item in [*lists, ("token_type", int)]:
        values = metadata.get(f"tokenizer.ggml.{name}", [] if name == "token_type" else None)
        whole = name == "merges" or len(values or tokens) == len(tokens)
        if not isinstance(values, list) or not whole or not all(type(value) is item for value in values):
            raise BadInput(f"{file}: tokenizer.ggml.{name} does not fit its {len(tokens)} tokens; fetch it again")
        if name == "scores" and not all(map(math.isfinite, values)):
            raise BadInput(f"{file}: tokenizer.ggml.scores holds a number that is not finite; fetch it again")
    plain = metadata["general.architecture"] == "gpt2" and pre in (None, "default")
    if kind == "gpt2" and not plain and pre not in AS_GPT2 | set(GGUF_PRE_TOKENIZER_SPLITS):
        raise BadInput(f"{file}: tokenizer.ggml.pre={pre!r} is no known way of cutting a text before its tokens are "
                       "found; give the model as a folder of safetensors")  # fmt: skip


def _name_special_tokens(rules: dict[str, Any], tokens: list[str], special: list[int]) -> None:
    """Leaves out tokens that transformers adds to the file's own, and adds the special ones that it left out."""
    added = {token["id"]: token for token in rules["added_tokens"] if token["id"] < len(tokens)}
    by_id = {index: token for token, index in rules["model"]["vocab"].items() if index < len(tokens)}
    for index in special:
        by_id[index] = tokens[index]
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added.setdefault(index, {"id": index, "content": tokens[index], **flags})["special"] = True
    rules["added_tokens"] = [added[index] for index in sorted(added)]
    rules["model"]["vocab"] = {token: index for index, token in sorted(by_id.items())}


def _around(bos: int | None, eos: int | None, tokens: list[str]) -> dict[str, Any]:
    """Returns the rule that puts these tokens around a text."""
    ends = [
        [{"SpecialToken": {"id": tokens[index], "type_id": 0}}] if index is not None else [] for index in (bos, eos)
    ]
    single = [*ends[0], {"Sequence": {"id": "A", "type_id": 0}}, *ends[1]]
    named = {tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]} for i in (bos, eos) if i is not None}
    pair = [*single, *ends[0], {"Sequence": {"id": "B", "type_id": 1}}, *ends[1]]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named}

"""A tokenizer trained on the embedded facts: byte-level BPE, as GPT-2's and SmolLM2's are."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FACTS = Path(__file__).resolve().parents[2] / "data" / "facts.jsonl"


def byte_level() -> PreTrainedTokenizerFast:
    """Returns a fast tokenizer of 600 tokens, of which two are special."""
    lines = FACTS.read_text(encoding="utf-8").splitlines()
    texts = [text for line in lines for row in [json.loads(line)] for text in (row["prompt"], *row["paraphrases"])]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<s>"]
    raw.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=special,
                                                       initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", unk_token="<|endoftext|>")

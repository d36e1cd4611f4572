"""Finds the tokens that stand in front of every text, those that end one, and those that are no part of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from afteredit.store.errors import BadInput

AUTO = "auto"
NOTHING = ("none", "null", "~", "no", "off", "false")  # words that mean no token, in YAML and elsewhere


def start_ids(tokenizer: Any, start_token: str | None) -> list[int]:
    """Returns the ids that stand in front of every text: nothing for None, one token's, or for "auto" those that the
    tokenizer itself puts there.

    Raises BadInput where the token is unknown, or what the tokenizer puts there cannot be told.
    """
    if start_token is None:
        return []
    if start_token == AUTO:
        return _own_start_ids(tokenizer)
    if start_token.lower() in NOTHING and start_token not in special_tokens(tokenizer):
        raise BadInput(f"model.start_token={start_token!r} would put this word in front of every text; null means no "
                       "start token: model.start_token=null")  # fmt: skip
    if start_token.isdigit() and start_token not in special_tokens(tokenizer):
        text = tokenizer.convert_ids_to_tokens([int(start_token)])[0] if int(start_token) < len(tokenizer) else "<s>"
        raise BadInput(f"model.start_token={start_token!r} is a number; a token is named by its text, such as "
                       f"model.start_token={text!r}")  # fmt: skip
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    token_id = tokenizer.get_vocab().get(start_token)
    if token_id is None or start_token not in added | special_tokens(tokenizer):  # a plain word, such as true, is none
        raise BadInput(f"model.start_token={start_token!r} is no special token of this tokenizer; those it has: "
                       f"{sorted(added)[:20]}; auto takes what it puts in front of a text itself, null takes "
                       "none")  # fmt: skip
    return [token_id]


def end_ids(model: Any) -> set[int]:
    """Returns the ids at which transformers' `generate` would stop, as the model says: several in chat models.

    Raises BadInput where it says anything else than ids.
    """
    given = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = [] if given is None else given if isinstance(given, list | tuple) else [given]
    if not all(type(end) is int for end in ends):
        raise BadInput(f"the model's eos_token_id is {given!r} (generation_config.json, or config.json where that file "
                       "is missing); it must be a token's id, a whole number, or a list of ids")  # fmt: skip
    return set(ends)


def special_tokens(tokenizer: Any) -> set[str]:
    """Returns the texts of special tokens, named ones and others."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


def special_ids(tokenizer: Any, ends: Iterable[int]) -> frozenset[int]:
    """Returns the ids of special tokens, named ones and others: the ends, the begins of turns, `<s>`, `<mask>`.

    What is special as padding or unknown token only is none of them: it may be a plain word (`"pad_token": "!"`).
    """
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    only_named = {tokenizer.pad_token_id, tokenizer.unk_token_id} - {tokenizer.bos_token_id}
    return frozenset(((added | set(tokenizer.all_special_ids)) - only_named) | set(ends))


def in_words(ids: list[int], tokenizer: Any, start_token: str | None) -> str:
    """Returns which tokens stand in front of every text and who chose them, for the log."""
    text = " ".join(tokenizer.convert_ids_to_tokens(ids))
    chosen = f"{f'start token: {text}' if ids else 'no start token'} (model.start_token={start_token or 'null'})"
    if start_token is not None:
        return chosen
    try:
        own = " ".join(tokenizer.convert_ids_to_tokens(_own_start_ids(tokenizer)))
    except BadInput:
        return chosen
    return f"{chosen}, though the tokenizer itself puts {own} in front of a text" if own else chosen


def _own_start_ids(tokenizer: Any) -> list[int]:
    """Returns the ids by which a text with special tokens begins and the same text without them does not: Llama's
    `<s>`, GLM's two, nothing for GPT-2, whatever the tokenizer declares as its BOS."""
    found: list[set[tuple[int, ...]]] = []  # a text may be the very token that is put around it: several are tried
    for text in ("x", "7", "The"):
        bare = tokenizer(text, add_special_tokens=False).input_ids
        ids = tokenizer(text).input_ids
        found.append({tuple(ids[:n]) for n in range(len(ids)) if ids[n : n + len(bare)] == bare})
    common = found[0] & found[1] & found[2]
    if len(common) != 1:
        raise BadInput(f"model.start_token=auto: the tokenizer's ids of 'The' are {ids} with its special tokens and "
                       f"{bare} without: what it puts in front cannot be told; set model.start_token=<token> or "
                       "null")  # fmt: skip
    start = list(common.pop())
    unknown = [i for i in start if tokenizer.convert_ids_to_tokens(i) is None]
    if unknown:
        raise BadInput(f"model.start_token=auto: the tokenizer itself puts id {unknown[0]} in front of a text, which "
                       "is no token of its own; mend its tokenizer.json (post_processor), or set "
                       "model.start_token=<token> or null")  # fmt: skip
    return start

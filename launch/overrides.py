"""Hydra's grammar of overrides: which texts it cannot read, and how they are quoted for it and for the shell."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from afteredit.launch.compose import as_text, is_open, takes_text, takes_texts
from afteredit.launch.help.unknown_names import unknown_key
from afteredit.record.settings import Mode
from afteredit.store.errors import BadInput
from afteredit.store.rows.row_files import KINDS

QUOTED = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
IN_LIST = re.compile(rf"""{QUOTED}|()([^\[\],'"]+)""")  # what is quoted, or nothing and a word
IN_MAPPING = re.compile(rf"""{QUOTED}|([{{,][^:,{{}}'"]+:)([^,{{}}'"]+)""")  # what is quoted, or a key and a word
FACT_KEYS = ("edits.fact", "edits.fact_paraphrases", "edits.fact_neighbourhood")  # each takes sentences as typed
SENTENCES = (*FACT_KEYS, "edits.fact_true")  # ${ is two letters of their text
FREE_TEXTS = SENTENCES[1:]  # may begin with what is quoted
CLOSING = {"“": "”", "„": "“", "”": "”", "«": "»", "‘": "’", "‚": "‘"}  # by the mark that opens
LISTS = "a list is written [a,b], with -m values to try one by one a,b"
SPACES = "no space stands around the sign = or between a list's entries: n_edits=3, task=[nli,sentiment]"


def refuse_carriage_returns(arguments: Sequence[str]) -> None:
    """Raises BadInput for what a script with Windows line ends hands over."""
    for argument in arguments:
        if argument.endswith("\r"):
            raise BadInput(f"{argument!r} ends with a carriage return: the script that calls has Windows line ends; "
                           "give it Unix ones: sed -i 's/\\r$//' SCRIPT")  # fmt: skip


def refuse_hydras_keys(overrides: Sequence[str]) -> None:
    """Raises BadInput for a key of Hydra's own where one run is composed, in which none but its search path acts."""
    for given in overrides:
        key = given.partition("=")[0].lstrip("+~")
        if key.startswith(("hydra.", "hydra/")) and key != "hydra.searchpath":
            raise BadInput(f"{given!r}: Hydra's own keys act where it begins several runs; add -m, or leave it out")


def refuse_typographic_quotes(arguments: Sequence[str]) -> None:
    """Raises BadInput where a shell was given “…” for "…", as word processors write it: it reads them as letters, and
    cuts what stands between them at its spaces."""
    for place, argument in enumerate(arguments):
        key, equals, value = argument.partition("=")
        text = value if equals and key[:1] not in CLOSING else argument
        closing = CLOSING.get(text[:1])
        if closing is None or closing in text[1:-1] or (closing in text and key.lstrip("+") in FREE_TEXTS):
            continue
        if text is argument or text.endswith(closing) or any(closing in later for later in arguments[place + 1 :]):
            raise BadInput(f"{argument!r} begins with {text[0]}, a typographic quote, which is a letter like others to "
                           'a shell; write " or \' instead')  # fmt: skip


def as_typed(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with quotes around what Hydra would read as a number or a boolean where a text is wanted
    (`runs=2024_01` is no 202401, `model.revision=1e5` no 100000.0) and around the sentences of facts, and with ++ where
    a map of texts is given names that may be new to it."""
    multirun = bool({"-m", "--multirun"} & set(arguments))
    arguments = [as_text(each) if each.partition("=")[0].lstrip("+") in SENTENCES else each for each in arguments]
    return [_as_typed(argument, multirun=multirun) for argument in _with_sentences(arguments, multirun=multirun)]


def _with_sentences(arguments: Sequence[str], *, multirun: bool) -> list[str]:
    """Returns the arguments with all sentences that each of FACT_KEYS is given as one list, where the first stood."""
    lists: dict[str, list[str]] = {}
    placed = []
    for argument in arguments:
        given, equals, value = argument.partition("=")
        key = given.lstrip("+")
        read = _sentences(argument, value, multirun=multirun) if equals and key in FACT_KEYS else None
        if read is None or key not in lists:
            placed.append(argument)
        if read is not None:
            lists.setdefault(key, []).extend(read)
    given_lists = {key: f"++{key}=[{','.join(map(in_quotes, sentences))}]" for key, sentences in lists.items()}
    return [given_lists.get(argument.partition("=")[0].lstrip("+"), argument) for argument in placed]


def _sentences(argument: str, value: str, *, multirun: bool) -> list[str] | None:
    """Returns the sentences of a list, or the one that was typed, with or without quotes; with -m None for quoted ones
    to be tried one by one.  Raises BadInput for what looks like a list of sentences and is none."""
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString

    override = _parsed(argument)
    read = None if override is None else override.value()
    if multirun and isinstance(read, ChoiceSweep) and all(isinstance(one, QuotedString | list) for one in read.list):
        return None
    if isinstance(read, list) and all(isinstance(one, str) for one in read):
        return read
    if value[:1] + value[-1:] == "[]":
        raise BadInput(f"{argument!r} is no list of sentences; put each of them into quotes, "
                       f"{argument.partition('=')[0]}=['…','…'], or give the key once for each")  # fmt: skip
    return [read if isinstance(read, str) and value[:1] in "'\"" else value]


def _as_typed(argument: str, *, multirun: bool) -> str:
    given, equals, value = argument.partition("=")
    key = given.lstrip("+")
    wanted = not key.startswith(("-", "~")) and (takes_text(key) or takes_texts(key))
    override = _parsed(argument) if equals and wanted else None
    is_map = override is not None and isinstance(override.value(), dict)
    if override is not None and given == key and is_open(key) and (takes_text(key) or is_map):
        return _as_typed(f"++{argument}", multirun=multirun)
    unquoted = re.sub(QUOTED, "", value)
    unread = override is None or (override.is_sweep_override() and not multirun)
    if key == "edits.fact_true" and (unread or "${" in unquoted or value.startswith(("[", "{"))):
        return quoted(given, value)
    if unread or "(" in unquoted or "${" in unquoted:  # Hydra's functions and interpolations
        return argument
    if value.lstrip().startswith(("[", "{")) and takes_text(key):  # refused as what it is
        return argument
    pattern = IN_MAPPING if value.lstrip().startswith("{") else IN_LIST
    return f"{given}={pattern.sub(_word_as_text, value)}"


def _word_as_text(piece: re.Match[str]) -> str:
    word = (piece[2] or "").strip()
    override = _parsed(f"x={word}") if word else None
    is_other = override is not None and not override.is_sweep_override() and isinstance(override.value(), int | float)
    return piece[1] + in_quotes(word) if is_other else piece[0]


def quoted(key: str, value: str) -> str:
    """Returns the override that gives `key` this text, in quotes where Hydra would read anything else."""
    override = _parsed(f"{key}={value}")
    plain = override is not None and not override.is_sweep_override() and override.value() == value
    return f"{key}={value if plain else in_quotes(value)}"


def quoted_entries(key: str, value: str) -> str:
    """Returns the override that gives `key` this list or mapping, with quotes around what Hydra cannot read of it."""

    def readable(entry: str) -> str:
        name, colon, text = entry.partition(":") if value[0] == "{" else ("", "", entry)
        text = text.strip()
        return name.strip() + colon + (text if _parsed(f"x={text}") else in_quotes(text))

    return f"{key}={value[0]}{','.join(map(readable, value[1:-1].split(',')))}{value[-1]}"


def as_meant(key: str, value: str) -> str:
    """Returns the override of a text that stands where a key wants no text: a list, a mapping, a boolean or null in
    Hydra's words is one."""
    override = _parsed(f"{key}={value}")
    if override is not None and not override.is_sweep_override():
        read = override.value()
        if read is None or isinstance(read, bool | list | dict):
            return f"{key}={value}"
    return quoted(key, value)


def in_quotes(value: str) -> str:
    """Returns the text in single quotes.  Hydra unescapes a backslash only before a quote and at the end."""
    escaped = re.sub(r"(\\+)$", r"\1\1", re.sub(r"(\\*)'", r"\1\1\\'", value))
    return f"'{escaped}'"


def for_shell(override: str) -> str:
    """Returns the override as a shell takes it: in double quotes where that is enough, since Hydra's are single, and as
    $'…' where it holds control characters, which are spelled out."""
    if not override.isprintable():
        return "$'" + "".join(map(_in_ansi_quotes, override)) + "'"
    if shlex.quote(override) == override:
        return override
    return shlex.quote(override) if re.search(r'["$`\\!]', override) else f'"{override}"'


def _in_ansi_quotes(letter: str) -> str:
    if letter in "\\'":
        return "\\" + letter
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"


def choices(arguments: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """Yields the key, the argument and each value that it gives, of several to be tried one by one each."""
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString

    for argument in arguments:
        override = None if argument.startswith(("-", "~", "=")) else _parsed(argument)
        if override is not None:
            value = override.value()
            for one in value.list if isinstance(value, ChoiceSweep) else [value]:
                yield override.key_or_group, argument, one.text if isinstance(one, QuotedString) else one


def unreadable(overrides: Sequence[str], *, multirun: bool) -> str | None:
    """Returns a sentence about the first override that Hydra cannot read, with a remedy; None where it reads all."""
    for given in overrides:
        key, equals, value = given.partition("=")
        override = _parsed(given)
        if not given.strip():
            return f"{given!r} is blank: is there a space behind a backslash that was to end the line? Take it out"
        if given[:1] in ("'", '"'):
            return f"{given} holds quotes that the shell has left in it: write {for_shell(given.strip(given[0]))}"
        if override is None and (not equals or given.startswith("~")):
            return f"{given!r} is no override (missing EQUAL): write key=value; {SPACES}"
        if override is None and _parsed(f"{key}=0") is None:
            meant = f"{_as_key(key)}={value}"
            meant = meant if _parsed(meant) else quoted(_as_key(key), value)
            return (f"{given!r} cannot be read, since {key!r} is no key: a key is words of letters, digits and _, "
                    f"joined by dots, with no space before the sign =: {for_shell(meant)}")  # fmt: skip
        if override is None:
            end = None if takes_text(key.lstrip("+")) else {"[": "]", "{": "}"}.get(value[:1])
            if end and not value.endswith(end):
                return f"{given!r} cannot be read, since its {end} is missing; {SPACES}"
            return (f"{given!r} cannot be read; a text that holds signs of Hydra's own grammar is quoted, also for the "
                    f"shell: {for_shell((quoted_entries if end else quoted)(key, value))}; {LISTS}")  # fmt: skip
        if not multirun and override.is_sweep_override():
            if re.fullmatch(r"\d{1,3}(,\d{3})+", value):
                return f"{given!r} is several values; a number has no commas: {given.replace(',', '')}; {LISTS}"
            return (f"{given!r} gives {key} several values; {LISTS}; a text that holds a comma is quoted, also for "
                    f"the shell: {for_shell(quoted(key, value))}")  # fmt: skip
    return None


def unknown_entry(group: str, name: str, entries: Sequence[str]) -> str:
    """Returns the message about a name that a group does not have; a model's source or a file of rows stands in keys
    of their own."""
    if group == "tracker" and name in Mode.__members__:
        return (
            f"tracker={name} names no entry of tracker; how W&B is spoken to is a key of its own: tracker.mode={name}"
        )
    if group == "model" and ("/" in name or name.lower().endswith(".gguf") or os.path.exists(name)):
        return (f"model={name} names no entry of model; a hub id, a folder or a GGUF file is given as model=hf "
                f"{for_shell(quoted('model.source', name))}")  # fmt: skip
    if group == "edits" and (set(KINDS) & {suffix.lower() for suffix in Path(name).suffixes} or os.path.exists(name)):
        return (f"edits={name} names no entry of edits; a file of rows is given as edits=my "
                f"{for_shell(quoted('edits.file', name))}")  # fmt: skip
    return unknown_key(f"{group}={name}", [f"{group}={entry}" for entry in entries], "entry")


def _as_key(text: str) -> str:
    """Returns what may have been meant by a text that is no key."""
    return re.sub(r"[^\w.@/+~]", "", text.lstrip("-")).strip(".") or "key"


def _parsed(override: str) -> Any:
    """Returns Hydra's reading of an override, None where it has none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(override)
    except (HydraException, RecursionError):
        return None

"""Renders a tokenizer's chat template: a small program that comes with a model, which may raise, or never end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any

from afteredit.store.errors import BadInput

CPU_SECONDS, SECONDS, MEMORY_GIB = 15, 60, 8  # of the trial; importing transformers takes most of it
CHAT_DATE = "2024-07-26"  # what Llama 3's template says where nobody tells it the date
REMEDY = "use model.prompt=plain, or mend the template"
TRIAL = """
import json, resource, sys
from transformers.utils.chat_template_utils import render_jinja_template
given = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_AS, (given["gib"] << 30,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"],) * 2)
def render():
    return render_jinja_template(conversations=[[{"role": "user", "content": "What is it?"}]],
                                 add_generation_prompt=True, chat_template=given["template"], **given["tokens"])[0][0]
try:
    if len({render() for _ in range(8)}) > 1:
        sys.exit("it writes one question in several ways, by chance")
except Exception as problem:
    sys.exit(f"it raises {type(problem).__name__}: {problem}"[:300])
"""


def drop_marks(tokenizer: Any) -> None:
    """Leaves out the byte-order mark with which a template's file may begin: it is no text of the template."""
    given = tokenizer.chat_template
    if isinstance(given, str):
        tokenizer.chat_template = given.lstrip("\ufeff")
    elif isinstance(given, dict):
        tokenizer.chat_template = {name: template.lstrip("\ufeff") for name, template in given.items()}


def check_template(tokenizer: Any) -> None:
    """Raises BadInput where the template raises, does not end, or draws at random, for one plain question.

    It is tried in a process of its own: no time limit reaches into one long operation.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as problem:
        raise BadInput(f"model.prompt=chat: no chat template can be chosen ({problem}); {REMEDY}") from None
    reason = _trial(json.dumps({"template": template, "tokens": tokenizer.special_tokens_map, "gib": MEMORY_GIB,
                                "seconds": CPU_SECONDS}))  # fmt: skip
    if reason:
        raise BadInput(f"model.prompt=chat: the chat template of this model cannot be used: {reason}; {REMEDY}")


@lru_cache
def _trial(given: str) -> str | None:
    """Returns what is wrong with a template; None where it renders."""
    try:
        ended = subprocess.run([sys.executable, "-c", TRIAL], input=given, text=True, capture_output=True,
                               check=False, timeout=SECONDS)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it has not ended after {SECONDS} s"
    if ended.returncode == 0:
        return None
    said = ended.stderr.strip().splitlines()
    return said[-1] if said else "it does not end, or needs more memory than there is"


def render(
    tokenizer: Any, messages: list[dict[str, str]], chat_date: str = CHAT_DATE, add_generation_prompt: bool = True
) -> str:
    """Returns the text of a chat as the template writes it on `chat_date`, whatever day it is: a number must not change
    at midnight.  Raises BadInput where the template raises."""
    try:
        with _today_is(chat_date):
            text: str = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
    except Exception as problem:  # a template is a program: whatever it raises
        raise BadInput(f"the chat template of this model raises {type(problem).__name__} ({problem}) for "
                       f"{messages[-1]['content']!r}; {REMEDY}") from None  # fmt: skip
    return text


@contextmanager
def _today_is(day: str) -> Iterator[None]:
    """Makes the clock that transformers gives to chat templates (`strftime_now`) stand at the beginning of a day."""
    from transformers.utils import chat_template_utils

    class Clock:
        @staticmethod
        def now() -> datetime:
            return datetime.fromisoformat(day)

    before = vars(chat_template_utils)["datetime"]
    vars(chat_template_utils)["datetime"] = Clock
    try:
        yield
    finally:
        vars(chat_template_utils)["datetime"] = before

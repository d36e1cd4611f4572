"""A chat template that raises, does not end or eats all memory is refused before any work."""

import copy

import pytest

from afteredit.model.loading import chat_template
from afteredit.model.loading.chat_template import render
from afteredit.model.loading.model_source import ModelSource, Prompt
from afteredit.model.tokens import Tokens
from afteredit.store.errors import BadInput

LOOP = "{% for i in range(99999) %}"
BAD = {
    "raises": ("{{ raise_exception('no system message') }}", "it raises TemplateError: no system message"),
    "no template": ("{% if %}", "it raises TemplateSyntaxError"),
    "asks for what is not there": ("{{ messages[0].tools.first.name }}", "it raises UndefinedError"),
    "divides by nothing": ("{{ 1 / 0 }}", "it raises ZeroDivisionError"),
    "never ends": (3 * LOOP + "x" + 3 * "{% endfor %}", "it does not end"),
    "one operation that never ends": ("{{ (9 ** (9 ** 9)) | string | length }}", "it does not end"),
    "draws at random": ("{{ range(9999) | random }}", "it writes one question in several ways"),
    "eats all memory": ("{{ 'x' * 10 ** 12 }}", "it raises MemoryError"),
}


@pytest.fixture
def chatty(tokenizer):
    return copy.deepcopy(tokenizer)


@pytest.mark.parametrize("name", BAD)
def test_a_template_that_cannot_be_used_is_refused_with_the_reason(name, chatty, monkeypatch):
    monkeypatch.setattr(chat_template, "CPU_SECONDS", 3)
    chatty.chat_template, reason = BAD[name]
    with pytest.raises(BadInput, match=f"model.prompt=chat: the chat template .*{reason}.*; use model.prompt=plain"):
        Tokens(chatty, prompt="chat")
    assert Tokens(chatty).question_ids("What is it?")  # as plain text it is not asked


@pytest.mark.parametrize("start_token", ["<s>", "auto"])
def test_a_byte_order_mark_is_no_text_of_a_template(tiny_folder, start_token):
    template = "<s>{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant]"
    (tiny_folder / "chat_template.jinja").write_text(f"\ufeff{template}", encoding="utf-8")
    source = ModelSource("hf", str(tiny_folder), start_token=start_token, prompt=Prompt.chat)
    lm = source.load("cpu", "float32")
    plain = lm.tokenizer("<s>[user] What is it?\n[assistant]", add_special_tokens=False).input_ids
    assert lm.tokens.question_ids("What is it?") == tuple(plain)


def test_several_templates_of_which_none_is_the_default_are_refused(chatty):
    chatty.chat_template = {"tools": "{{ messages[0].content }}", "rag": "{{ messages[0].content }}"}
    with pytest.raises(BadInput, match="model.prompt=chat: no chat template can be chosen"):
        Tokens(chatty, prompt="chat")


def test_a_template_that_raises_for_one_question_names_it(chatty):
    chatty.chat_template = "{% if 'Z' in messages[0].content %}{{ 1 / 0 }}{% endif %}[{{ messages[0].content }}]"
    assert render(chatty, [{"role": "user", "content": "What?"}]) == "[What?]"
    with pytest.raises(BadInput, match=r"raises ZeroDivisionError \(division by zero\) for 'Who is Z\?'"):
        Tokens(chatty, prompt="chat").question_ids("Who is Z?")

"""Tests the token ids of prompts and answers, and where the subject ends, for three kinds of tokenizer."""

import copy
import json
import re
import string
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from afteredit.model.lm import LM
from afteredit.model.tokens import Tokens
from afteredit.store.errors import BadInput

FACTS = Path(__file__).resolve().parents[2] / "data" / "facts.jsonl"
SPECIAL = ["<unk>", "<s>", "</s>"]


def facts_texts() -> list[str]:
    rows = [json.loads(line) for line in FACTS.read_text(encoding="utf-8").splitlines()]
    questions = [text for row in rows for text in (row["prompt"].replace("{}", row["subject"]), *row["paraphrases"])]
    answers = [row[name] for row in rows for name in ("target_new", "target_true")]
    return [*questions, *answers, *string.ascii_lowercase]


def sentencepiece(kind: str) -> PreTrainedTokenizerFast:
    """unigram: T5's and Gemma's shape.  bpe: Llama 2's, whose space is put in front by the normaliser."""
    raw = Tokenizer(models.Unigram() if kind == "unigram" else models.BPE(unk_token="<unk>", fuse_unk=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    raw.decoder = decoders.Metaspace(prepend_scheme="always")
    settings = {"vocab_size": 500, "special_tokens": SPECIAL, "show_progress": False}
    if kind == "unigram":
        raw.train_from_iterator(facts_texts(), trainers.UnigramTrainer(unk_token="<unk>", **settings))
    else:
        raw.train_from_iterator(facts_texts(), trainers.BpeTrainer(**settings))
        raw.pre_tokenizer = None
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def tokenizers(tokenizer) -> dict[str, PreTrainedTokenizerFast]:
    return {"byte_level": tokenizer, "unigram": sentencepiece("unigram"), "bpe": sentencepiece("bpe")}


@pytest.fixture(params=["byte_level", "unigram", "bpe"])
def kind(request) -> str:
    return request.param


@pytest.fixture(params=[None, "<s>"])
def lm(request, kind, tokenizers, make_lm) -> LM:
    return LM(make_lm("gpt2").model, tokenizers[kind], start_token=request.param)


def test_a_text_is_the_start_token_and_its_own_ids(lm):
    ids = lm.tokenizer("Fenrir is a famous character in", add_special_tokens=False).input_ids
    assert lm.tokens.encode("Fenrir is a famous character in") == (*lm.tokens.start_ids, *ids)
    assert [lm.tokenizer.convert_ids_to_tokens(i) for i in lm.tokens.start_ids] in ([], ["<s>"])


def test_ids_that_the_tokenizer_itself_adds_are_left_out(tokenizer, make_lm):
    from tokenizers.processors import TemplateProcessing

    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", other.vocab["<s>"])])
    assert other("China").input_ids[0] == other.vocab["<s>"]
    lm = LM(make_lm("gpt2").model, other)
    assert lm.tokens.encode("China") == make_lm("gpt2").tokens.encode("China")
    assert lm.tokens.answer_ids("boxing", "It is") == make_lm("gpt2").tokens.answer_ids("boxing", "It is")
    assert lm.tokens.locate("China is", 0, 5) == make_lm("gpt2").tokens.locate("China is", 0, 5)


@pytest.mark.parametrize("answer", ["boxing", "Aztec", "ice hockey", "the United States"])
def test_answer_ids_continue_the_prompt(lm, kind, answer):
    prompt = "The sport that brought Joe DiMaggio to fame is"
    assert (*lm.tokens.encode(prompt), *lm.tokens.answer_ids(answer, prompt)) == lm.tokens.encode(f"{prompt} {answer}")
    assert lm.tokenizer.decode(lm.tokens.answer_ids(answer, prompt)).strip() == answer
    if kind == "byte_level":
        assert lm.tokenizer.decode(lm.tokens.answer_ids(answer, prompt)) == f" {answer}"


def test_spaces_around_an_answer_do_not_count(lm):
    assert lm.tokens.answer_ids(" boxing ", "It is") == lm.tokens.answer_ids("boxing", "It is")


@pytest.mark.parametrize(("front", "subject", "back"), [
    ("", "Fenrir", " is a famous character in"),
    ("", "Joe DiMaggio", " is a"),
    ("The sport that brought ", "Joe DiMaggio", " to fame is"),
    ("The mother tongue of ", "Ann Smith", ", who lives in Peru, is"),
    ("The works of ", "Homer", "'s day"),
    ("People say much about ", "Joe DiMaggio", ""),
    ("Joe DiMaggio is a man. The sport that brought ", "Joe DiMaggio", " to fame is"),
])  # fmt: skip
def test_subject_last_ends_the_subject(lm, front, subject, back):
    question = front + subject + back
    ids, last = lm.tokens.locate(question, len(front), len(subject))
    assert tuple(ids) == lm.tokens.encode(question)
    assert lm.tokenizer.decode(ids[len(lm.tokens.start_ids) : last + 1]) == front + subject
    assert lm.tokenizer.decode([ids[last]]).strip() in subject


@pytest.mark.parametrize("subject", ["Kraków", "Łódź", "東京"])
def test_a_subject_whose_letters_are_several_tokens_is_taken_whole(make_lm, subject):
    lm = make_lm("gpt2")
    ids, last = lm.tokens.locate(f"The river in {subject} is", 13, len(subject))
    assert lm.tokenizer.decode(ids[: last + 1]) == f"The river in {subject}"


def test_a_subject_outside_the_question_is_refused(make_lm):
    with pytest.raises(BadInput, match="no token of 'China is'"):
        make_lm("gpt2").tokens.locate("China is", 20, 5)


def test_an_unknown_start_token_is_refused_with_the_allowed_ones(make_lm):
    with pytest.raises(BadInput, match=r"start_token='<bos>'.*'<s>', '<\|endoftext\|>'"):
        make_lm("gpt2", start_token="<bos>")


@pytest.mark.parametrize("word", ["none", "None", "null", "~", "no"])
def test_a_word_for_no_start_token_is_none_of_the_vocabulary(tokenizer, word):
    other = copy.deepcopy(tokenizer)
    other.add_tokens([word])
    with pytest.raises(BadInput, match="model.start_token=null"):
        Tokens(other, word)
    other.add_special_tokens({"bos_token": word})
    assert Tokens(other, word).start_ids == [other.get_vocab()[word]]


@pytest.mark.parametrize("word", ["a", "in"])  # as true and yes are of larger ones
def test_a_plain_word_of_the_vocabulary_is_no_start_token(tokenizer, word):
    assert word in tokenizer.get_vocab()
    with pytest.raises(BadInput, match=f"start_token='{word}' is no special token of this tokenizer; those it has: .*"
                                       "auto takes"):  # fmt: skip
        Tokens(tokenizer, word)


@pytest.mark.parametrize("number", ["0", "1", "128000"])
def test_a_start_token_is_not_named_by_its_id(tokenizer, number):
    other = copy.deepcopy(tokenizer)
    other.add_tokens([number])
    named = other.convert_ids_to_tokens([int(number)])[0] if int(number) < len(other) else "<s>"
    with pytest.raises(BadInput, match=f"start_token='{number}' is a number; .*model.start_token='{re.escape(named)}'"):
        Tokens(other, number)


@pytest.fixture
def chat_lm(tokenizer, make_lm) -> LM:
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant] "
    return LM(make_lm("gpt2").model, chatty, prompt="chat")


def test_chat_mode_asks_in_a_turn_and_answers_without_a_space(chat_lm):
    ids, last = chat_lm.tokens.locate("The sport of Joe DiMaggio is", 13, 12)
    assert chat_lm.tokenizer.decode(ids) == "[user] The sport of Joe DiMaggio is\n[assistant] "
    assert chat_lm.tokenizer.decode(ids[: last + 1]) == "[user] The sport of Joe DiMaggio"
    assert chat_lm.tokens.question_ids("The sport of Joe DiMaggio is") == tuple(ids)
    assert chat_lm.tokenizer.decode(chat_lm.tokens.answer_ids(" boxing", "It is")) == "boxing"


USER = "{% if m['role'] == 'user' %}USER: {{ m['content'] }}B{% endif %}"
MODEL = "{% if m['role'] != 'user' %}MODEL:A{{ m['content'] }}</s>{% endif %}"
TURNS = f"{{% for m in messages %}}{USER}{MODEL}{{% endfor %}}{{% if add_generation_prompt %}}MODEL:{{% endif %}}"


@pytest.mark.parametrize(("before", "after"), [("\n", ""), ("\n", "\n"), (" ", " ")])
def test_in_a_chat_an_answer_has_the_ids_that_the_template_gives_it(kind, tokenizers, make_lm, before, after):
    """After a line break SentencePiece puts no space on it; where the template writes a space, there is one."""
    chatty = copy.deepcopy(tokenizers[kind])
    chatty.chat_template = TURNS.replace("B", before).replace("MODEL:A", f"MODEL:{after}")
    if after == "\n":
        chatty.chat_template = chatty.chat_template.replace("MODEL:{% endif", "MODEL:\n{% endif")
    lm = LM(make_lm("gpt2").model, chatty, prompt="chat")
    turns = [{"role": "user", "content": "The sport is"}, {"role": "assistant", "content": "boxing"}]
    whole = chatty(chatty.apply_chat_template(turns, tokenize=False), add_special_tokens=False).input_ids
    asked = lm.tokens.question_ids("The sport is")
    answer = lm.tokens.answer_ids("boxing", "The sport is")
    assert [*asked, *answer] == whole[: len(asked) + len(answer)]
    assert lm.tokenizer.decode(whole[len(asked) + len(answer) :]).strip() == "</s>"


def test_an_answer_that_the_tokenizer_cannot_write_is_refused(tokenizers, make_lm):
    lm = LM(make_lm("gpt2").model, tokenizers["bpe"])
    with pytest.raises(BadInput, match="no token for a letter of the answer '北京'"):
        lm.tokens.answer_ids("北京", "The capital of China is")


@pytest.mark.parametrize(("prompt", "between"), [
    ("法国的首都是", ""), ("法国的首都是：", ""), ("问题：法国的首都是？答案: ", ""), ("フランスの首都は", ""),
    ("เมืองหลวงของฝรั่งเศสคือ", ""), ("ປະເທດລາວ", ""), ("รถไฟฟ้า 2", ""), ("Paris 的中文名是", ""), ("東京タワー", ""),
    ("프랑스의 수도는", " "), ("Thủ đô của Pháp là", " "), ("عاصمة فرنسا هي", " "), ("The name of 巴黎 is", " "),
    ("फ़्रांस की राजधानी", " "), ("2 + 2 =", " "),
])  # fmt: skip
def test_nothing_stands_before_an_answer_where_the_prompt_ends_in_a_script_without_spaces(make_lm, prompt, between):
    lm = make_lm("gpt2")
    assert lm.tokens.between(prompt) == between
    for answer in ("巴黎", "Paris", "1879"):
        assert lm.tokenizer.decode(lm.tokens.answer_ids(answer, prompt)) == between + answer


@pytest.mark.parametrize(("separator", "between"), [("space", " "), ("none", "")])
def test_a_separator_that_is_named_stands_everywhere(tokenizer, make_lm, chat_lm, separator, between):
    lms = [LM(make_lm("gpt2").model, own, prompt=prompt, separator=separator)
           for own, prompt in ((tokenizer, "plain"), (chat_lm.tokenizer, "chat"))]  # fmt: skip
    for lm in lms:
        for prompt in ("法国的首都是", "The capital of France is"):
            for answer in ("巴黎", "Paris", "1879"):
                assert lm.tokenizer.decode(lm.tokens.answer_ids(answer, prompt)) == between + answer


def test_sentencepiece_marks_no_space_where_none_stands(lm, kind):
    answer = LM(lm.model, lm.tokenizer, separator="none").tokens.answer_ids("boxing", "The sport is ")
    assert lm.tokenizer.decode(answer) == "boxing"
    assert lm.tokenizer.convert_ids_to_tokens(answer)[0][0] not in "▁Ġ"


def test_a_start_token_that_the_template_writes_itself_is_there_once(tokenizer, make_lm):
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "<s>{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    lm = LM(make_lm("gpt2").model, chatty, start_token="<s>", prompt="chat")
    ids, last = lm.tokens.locate("The sport of Joe DiMaggio is", 13, 12)
    assert ids[0] == lm.tokens.start_ids[0] and ids.count(lm.tokens.start_ids[0]) == 1
    assert lm.tokenizer.decode(ids[: last + 1]) == "<s>The sport of Joe DiMaggio"
    assert lm.tokens.question_ids("The sport of Joe DiMaggio is") == tuple(ids)
    assert lm.tokens.encode("Joe")[:1] == tuple(lm.tokens.start_ids)


def test_chat_mode_without_a_template_is_refused(tokenizer, make_lm):
    with pytest.raises(BadInput, match="prompt=chat.*no chat template"):
        LM(make_lm("gpt2").model, tokenizer, prompt="chat")


def test_a_start_token_of_the_tokenizers_own_that_no_token_has_is_refused(tokenizer):
    from tokenizers.processors import TemplateProcessing

    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 99999)])
    with pytest.raises(BadInput, match="model.start_token=auto: the tokenizer itself puts id 99999 in front"):
        Tokens(other, "auto")
    assert Tokens(other).start_ids == []


def test_a_text_of_its_own_begins_with_the_start_token_else_with_the_end_of_the_text_before(tokenizer):
    assert Tokens(tokenizer, "<s>").opening_ids() == [tokenizer.vocab["<s>"]]
    assert Tokens(tokenizer).opening_ids() == [tokenizer.eos_token_id]
    without, beyond = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    without.eos_token = None
    with pytest.raises(BadInput, match="neither a start token nor"):
        Tokens(without).opening_ids()
    beyond.add_special_tokens({"eos_token": "[end]"})
    with pytest.raises(BadInput, match=r"end of text.*'\[end\]' \(id 600\)"):
        Tokens(beyond, n_rows=600).opening_ids()


def test_a_tokenizer_that_draws_at_random_is_refused(tokenizer):
    drawing = copy.deepcopy(tokenizer)
    drawing.backend_tokenizer.model.dropout = 0.5
    assert len({tuple(drawing("The mother tongue of Danielle").input_ids) for _ in range(40)}) > 1
    with pytest.raises(BadInput, match=r"drops merges by chance \(dropout=0.5 in tokenizer.json\)"):
        Tokens(drawing)

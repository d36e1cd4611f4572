"""The paper's tasks give what follows from their rows for models that always say one word, nothing, or every name.

What is expected is computed here from the raw rows; on the real rows too, where they are at hand.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from afteredit.evaluate.abilities import paper_scores
from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.answer_scores import mean_of_ratios
from afteredit.evaluate.abilities.build import build_tasks, with_chance
from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.abilities.lm_eval_model import LmEvalModel
from afteredit.launch.command_line import compose
from afteredit.launch.opening import decides_measurement
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.models import constant_model
from afteredit.tests.tiny.tokenizers import byte_level

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"
FILES = {"reasoning": "gsm8k.jsonl", "nli": "paper/rte.jsonl", "open_qa": "paper/nq_open.jsonl",
         "closed_qa": "boolq.jsonl", "dialogue": "mutual.jsonl", "summarization": "paper/samsum.jsonl",
         "ner": "paper/conll2003.jsonl", "sentiment": "sst2.jsonl"}  # fmt: skip
LENGTHS = {"reasoning": 5, "nli": 1, "open_qa": 20, "closed_qa": 1, "dialogue": 1, "summarization": 25, "ner": 10,
           "sentiment": 1}  # fmt: skip
FIRST = 70  # rows
KINDS = ("PER", "LOC", "ORG", "MISC")
ROWS = {
    "reasoning": [{"question": "Tom has 2 pens and buys 3. How many?", "answer": "He has 2 + 3 = <<2+3=5>>5.\n#### 5"},
                  {"question": "A week and a day?", "answer": "7 + 8 = <<7+8=15>>15\n#### 15"}],
    "nli": [{"premise": "It rained.", "hypothesis": "It was wet.", "label": "entailment"},
            {"premise": "It rained.", "hypothesis": "It was dry.", "label": "not_entailment"},
            {"premise": "He slept.", "hypothesis": "He was awake.", "label": "not_entailment"}],
    "open_qa": [{"question": "capital of france", "answers": ["Paris"], "passage": "\n\nIt is on the Seine."},
                {"question": "who wrote it", "answers": ["the Ann Lee", "Lee"], "passage": "\n\nAnn Lee did."}],
    "closed_qa": [{"passage": "Water is wet.", "question": "is water wet", "answer": True},
                  {"passage": "Ice is cold.", "question": "is ice hot", "answer": False},
                  {"passage": "Ice is cold.", "question": "is ice warm", "answer": False}],
    "dialogue": [{"dialogue": "m : hi", "options": ["f : a", "f : b", "f : c", "f : d"], "answer": "C"},
                 {"dialogue": "m : bye", "options": ["f : e", "f : f", "f : g", "f : h"], "answer": "A"}],
    "summarization": [{"dialogue": "A: I ate.\nB: Good.", "summary": "A ate. B is glad."}],
    "ner": [
        {"tokens": ["Ann", "Lee", "met", "Bob", ",", "in", "Rome", "."],
         "ner_tags": ["B-PER", "I-PER", "O", "B-PER", "O", "O", "B-LOC", "O"]},
        {"tokens": ["Result", ":", "Ajax", "Roma", "Turin"],  # two adjacent; at the end, one token less
         "ner_tags": ["O", "O", "B-ORG", "B-ORG", "B-LOC"]},
        {"tokens": ["A", "Dutch", "player", "left", "Paris"],  # of one token at the end nothing is left
         "ner_tags": ["O", "B-MISC", "O", "O", "B-LOC"]},
        {"tokens": ["It", "rained"], "ner_tags": ["O", "O"]},
    ],
    "sentiment": [{"sentence": "a joy", "label": 1}, {"sentence": "dull", "label": 0}, {"sentence": "fun", "label": 1}],
}  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Returns a folder of the rows above."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "paper").mkdir()
    for task, rows in ROWS.items():
        (folder / FILES[task]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(params=["own", "shared"])
def folder(request, own) -> Path:
    if request.param == "shared" and not (SHARED / "paper").is_dir():
        pytest.skip(f"the real rows are not at hand ({SHARED})")
    return own if request.param == "own" else SHARED


def rows_of(folder: Path, task: str) -> list[dict]:
    return [json.loads(line) for line in (folder / FILES[task]).read_text(encoding="utf-8").split("\n") if line][:FIRST]


@cache
def ability_of(name: str) -> Ability:
    return compose([f"task=[{name}]"]).tasks[name]


def built(task: str, folder: Path | str, limit: int | None = None) -> BuiltAbility:
    name = f"paper_{task}"
    return BuiltAbility(name, ability_of(name), str(folder), limit)


def measured(task: str, folder: Path, lm: LM) -> dict[str, float]:
    """Returns the row without the paths of its keys; the examples must make the headline."""
    name = f"ability/paper_{task}"
    scores = built(task, folder, FIRST).measure(lm)
    ratio = sum(e.numerator for e in scores.examples) / sum(e.denominator for e in scores.examples)
    assert scores.row[name] == pytest.approx(ratio)
    return {key.removeprefix(name).removeprefix("/"): value for key, value in scores.row.items()}


@pytest.fixture(scope="module")
def saying():
    """saying(text): a model that writes this token after any text, "" for the one that ends it."""
    words = byte_level()
    words.add_tokens([AddedToken(word, normalized=False) for word in (" no", " yes", " True", " positive", " 5", " C")])

    def make(text: str) -> LM:
        token = words.convert_tokens_to_ids(text) if text else words.eos_token_id
        return LM(constant_model(len(words), token), words)

    return make


def share(rows: list[dict], is_right) -> float:
    return sum(map(is_right, rows)) / len(rows)


CONSTANT = {
    ("closed_qa", " no"): lambda row: not row["answer"],
    ("closed_qa", " yes"): lambda row: row["answer"],
    ("nli", " True"): lambda row: row["label"] == "entailment",
    ("sentiment", " positive"): lambda row: row["label"] == 1,
    ("dialogue", " C"): lambda row: row["answer"] == "C",
    ("reasoning", " 5"): lambda row: row["answer"].split()[-1] == "5",  # five tokens: " 5 5 5 5 5"
}


@pytest.mark.parametrize(("task", "word"), CONSTANT)
def test_a_model_that_always_says_one_word_is_right_where_that_is_the_answer(task, word, folder, saying):
    row = measured(task, folder, saying(word))
    expected = share(rows_of(folder, task), CONSTANT[task, word])
    assert 0 < expected < 1 and row[""] == pytest.approx(expected)
    assert row["unparseable"] == 0.0
    assert row.get("before_rule", expected) == pytest.approx(expected)
    assert "ran_out" not in row and row["gold_nll"] > 0


def names_by_kind(row: dict) -> dict[str, list[str]]:
    """A name is a B and what follows up to the next O; one that no O ends lacks its last token."""
    names = {}
    for kind in KINDS:
        signs = "".join({f"B-{kind}": "B", "O": "O"}.get(tag, "x") for tag in row["ner_tags"])
        spans = [(found.start(), found.end()) for found in re.finditer("B[^O]*", signs)]
        names[kind] = [" ".join(row["tokens"][a : b if b < len(signs) else b - 1]) for a, b in spans]
    return names


def mean_recall(rows: list[dict], found) -> float:
    """The mean over kinds of Σ found / Σ names; a sentence without miscellaneous names counts as one not found."""
    by_row = [names_by_kind(row) for row in rows]
    recalls = []
    for kind in KINDS:
        names = [name for row in by_row for name in row[kind]]
        none = sum(not row[kind] for row in by_row) if kind == "MISC" else 0
        recalls.append(sum(map(found, names)) / (len(names) + none))
    return sum(recalls) / 4


@pytest.mark.parametrize("task", FILES)
def test_a_model_that_says_nothing_scores_chance_and_cannot_be_read(task, folder, saying):
    ability = compose([f"task=[paper_{task}]"]).tasks[f"paper_{task}"]
    settings = compose([f"data={folder}", f"limit={FIRST}"]).settings
    chance = with_chance({"x": ability}, settings)["x"].chance
    expected = mean_recall(rows_of(folder, "ner"), lambda name: name == "") if task == "ner" else 0.0
    row = measured(task, folder, saying(""))
    assert (row[""], chance) == (pytest.approx(expected), pytest.approx(expected))
    assert row["unparseable"] == 1.0
    assert (expected > 0) == (task == "ner")


def test_a_model_that_copies_every_name_reaches_the_ceiling_of_ner(folder, saying, monkeypatch):
    rows = rows_of(folder, "ner")
    copies = [" ".join(row["tokens"]) for row in rows for _kind in KINDS]
    monkeypatch.setattr(LmEvalModel, "generate_until", lambda self, requests, **_: copies[: len(requests)])
    row = measured("ner", folder, saying(""))
    assert row[""] == pytest.approx(mean_recall(rows, lambda _name: True))
    assert 0.75 < row[""] < 1 and row["unparseable"] == 0.0


def test_the_floor_and_ceiling_of_the_papers_own_sentences():
    """Its 3466 blocks hold these numbers of names, of which so many are empty, and 2771 without miscellaneous ones."""
    names, empty = {"PER": 1842, "LOC": 1837, "ORG": 1341, "MISC": 918}, {"PER": 14, "LOC": 38, "ORG": 10, "MISC": 2}
    for found, expected, rounded_by in ((empty, 0.0091, 1e-4), (names, 0.812, 5e-4)):
        docs = [{"kind": kind, "names": [""] * found[kind] + ["Zoe"] * (names[kind] - found[kind])} for kind in KINDS]
        docs += [{"kind": "MISC", "names": []}] * 2771
        triples = [paper_scores.ner(doc, ["<|endoftext|>"])["score"] for doc in docs]
        assert mean_of_ratios(triples) == pytest.approx(expected, abs=rounded_by)


def test_names_are_cut_out_as_the_published_code_does(own):
    assert [names_by_kind(row) for row in ROWS["ner"]] == [
        {"PER": ["Ann Lee", "Bob"], "LOC": ["Rome"], "ORG": [], "MISC": []},
        {"PER": [], "LOC": [""], "ORG": ["Ajax Roma"], "MISC": []},
        {"PER": [], "LOC": [""], "ORG": [], "MISC": ["Dutch"]},
        {"PER": [], "LOC": [], "ORG": [], "MISC": []},
    ]
    docs = built("ner", own).task.eval_docs
    assert [doc["names"] for doc in docs] == [names_by_kind(row)[kind] for row in ROWS["ner"] for kind in KINDS]


def test_the_limit_of_ner_counts_sentences(own, saying):
    scores = built("ner", own, limit=2).measure(saying(""))
    assert [example.doc_id for example in scores.examples] == list(range(8))
    assert scores.row["ability/paper_ner"] == pytest.approx((0 + 1 / 2 + 0 + 0) / 4)  # PER, LOC, ORG, MISC of two rows


def prompts(task: str, rows: list[dict]) -> list[str]:
    """The prompts of the published code, for rows as it reads them."""
    return {
        "reasoning": lambda r: (f"Q: {r['question']} A:Let's think step by step. {r['answer'].split('#### ')[0]} "
                                "Therefore, the answer (arabic numerals) is:"),
        "nli": lambda r: f"{r['premise']} entails the {r['hypothesis']}. True or False? answer:",
        "open_qa": lambda r: ("Refer to the passage below and answer the following question. Passage: "
                              f"{r['passage']} Question: {r['question']}"),
        "closed_qa": lambda r: ("Please answer the given question based on the passage. The answer should be exact "
                                f"'yes' or 'no'. passage: {r['passage']} question: {r['question']}. answer:"),
        "dialogue": lambda r: (f"Q: {r['dialogue']} Which choice is correct? Answer Chioces: (A){r['options'][0]}"
                               f"(B){r['options'][1]}(C){r['options'][2]}(D){r['options'][3]} A: Among A through D, "
                               "the answer is"),
        "summarization": lambda r: f"{r['dialogue']}\nTL;DR:",
        "sentiment": lambda r: ("For each snippet of text,label the sentiment of the text as positive or negative."
                                "The answer should be exact 'positive' or 'negative'. text: "
                                f"{r['sentence']}  answer:"),
    }[task]  # fmt: skip


@pytest.mark.parametrize("task", FILES)
def test_prompts_and_lengths_are_the_papers(task, own, saying):
    ability = built(task, own)
    ability.measure(saying(""))
    requests = sorted(ability.task.instances, key=lambda request: request.doc_id)
    if task == "ner":
        sentences = ["Ann Lee met Bob, in Rome.", "Result : Ajax Roma Turin", "A Dutch player left Paris", "It rained"]
        expected = [f"Please identify {word} Entity from the given text. Text: {sentence} Entity:" for sentence in
                    sentences for word in ("Person", "Location", "Organization", "Miscellaneous")]  # fmt: skip
    else:
        expected = [prompts(task, [row])(row) for row in ROWS[task]]
    assert [request.args[0] for request in requests] == expected
    for request in requests:
        assert request.args[1]["until"] == [] and request.args[1]["max_gen_toks"] == LENGTHS[task]
        assert request.args[1].get("eos_text", paper_scores.EOS) == paper_scores.EOS


PARIS = {
    "passage": "The city of Paris is large.",
    "question": "capital of france",
    "answers": ["Paris", "the Big Town"],
}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (" Answer: Paris, of course.", 1), (" Answer: The Paris.", 1), ("\nAnswer:\nBig town it is", 1), ("Paris", 0),
        (" It is Paris", 1), (" It is Paris<|endoftext|>", 0), (" Answer: Paris<|endoftext|>", 0), ("", 0),
        (" Answer: Paris is it<|endoftext|>", 1), (" Answer: It is Paris now", 0), (" Answer: no. Answer: Paris x", 1),
        (" Answer: Paris. Answer: Rome or so", 0), (" Answer: it is Big Town", 0), ("<|endoftext|>", 0),
    ],
)  # fmt: skip
def test_an_open_answer_must_begin_with_an_accepted_one_or_end_with_its_word(answer, right):
    scores = paper_scores.open_qa(PARIS, [answer])
    assert scores["score"] == right
    assert scores["unparseable"] == (answer in ("", "<|endoftext|>"))


@pytest.mark.parametrize(
    ("task", "doc", "answer", "expected"),
    [
        ("reasoning", {"answer": "x\n#### 5"}, " 15", (1, 0)), ("reasoning", {"answer": "x\n#### 5"}, " six", (0, 1)),
        ("nli", {"label": "not_entailment"}, "FALSE", (1, 0)), ("nli", {"label": "entailment"}, " Yes", (0, 1)),
        ("closed_qa", {"answer": False}, " not", (1, 0, 0)), ("closed_qa", {"answer": True}, " Yes", (1, 0, 1)),
        ("closed_qa", {"answer": True}, "yes", (1, 0, 0)), ("closed_qa", {"answer": False}, " maybe", (0, 1, 0)),
        ("dialogue", {"answer": "C"}, " Chi", (0, 1, 1)), ("dialogue", {"answer": "C"}, "(C", (1, 0, 1)),
        ("dialogue", {"answer": "A"}, " B", (0, 0, 0)), ("dialogue", {"answer": "A"}, " the", (0, 1, 0)),
        ("sentiment", {"label": 0}, " Negative", (1, 0)), ("sentiment", {"label": 1}, " good", (0, 1)),
    ],
)  # fmt: skip
def test_short_answers_are_looked_for_within_the_text(task, doc, answer, expected):
    scores = getattr(paper_scores, task)(doc, [answer])
    assert (scores["score"], scores["unparseable"], *expected[2:]) == expected
    if len(expected) == 3:
        assert scores["before_rule"] == expected[2]


def test_an_ending_of_thirteen_characters_is_cut_off_a_summary():
    doc = {"summary": "the cat sat. a dog ran"}
    ended, not_ended = (
        paper_scores.summarization(doc, [" the cat ran<|endoftext|>"]),
        paper_scores.summarization(doc, [" the cat ran 12345678901.."]),
    )
    # 3 of 3 and 6 words; 1 of 2 and 5 pairs, which reach over the full stop; "the cat" and "ran" of the two sentences
    expected = (2 * 3 / (3 + 6) + 2 * 1 / (2 + 5) + 2 * 3 / (3 + 6)) / 3
    assert ended == not_ended == {"score": pytest.approx(expected), "unparseable": 0.0}


@pytest.mark.parametrize(
    "answer", ["", "<|endoftext|>", "x<|endoftext|>", "13 characters", "... ..<|endoftext|>", "...<|endoftext|>"]
)
def test_a_summary_of_nothing_or_dots_scores_nothing(answer):
    assert paper_scores.summarization({"summary": "The cat sat."}, [answer]) == {"score": 0.0, "unparseable": 1.0}


def answer_of(lm: LM, prompt: str, **rule) -> str:
    request = Instance("generate_until", {}, (prompt, {"until": [], "do_sample": False, "max_gen_toks": 3, **rule}), 0)
    return LmEvalModel(lm).generate_until([request])[0]


def test_an_answer_that_the_model_ended_shows_it_where_the_task_asks_for_it(saying):
    assert answer_of(saying(""), "Text:", eos_text="<end>") == "<end>"
    assert answer_of(saying(""), "Text:") == ""
    assert answer_of(saying(" no"), "Text:", eos_text="<end>") == " no no no"


def test_a_tokenizer_that_drops_the_space_at_a_texts_begin_gives_the_same_answers(own):
    """Llama 2's decodes its token for " no" alone as "no", which the rule of before editing would not take."""
    raw = Tokenizer(models.Unigram([("<unk>", 0.0), ("\u2581no", -1.0), ("\u2581", -2.0), ("</s>", -9.0),
                                    *((char, -5.0) for char in map(chr, range(33, 127)))], unk_id=0))  # fmt: skip
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    raw.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")
    assert tokenizer.decode([1]) == "no"
    lm = LM(constant_model(len(tokenizer), 1), tokenizer)
    assert answer_of(lm, "answer:") == " no no no"
    row = measured("closed_qa", own, lm)
    assert row[""] == row["before_rule"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("limit", [None, 1])
def test_the_floor_of_the_rows_in_use_is_recorded_as_chance(own, limit):
    measurement = decides_measurement(compose(["task=paper", f"data={own}", f"limit={limit or 'null'}"]))
    chance = {name: task["chance"] for name, task in measurement["tasks"].items()}
    floor = (0 / 2 + 2 / 3 + 0 / 1 + 0 / 4) / 4 if limit is None else 0.0
    assert chance == {f"paper_{task}": pytest.approx(floor) if task == "ner" else 0.0 for task in FILES}


def test_a_gold_answer_begins_with_a_space_but_in_a_chat(own):
    for task, gold in (("closed_qa", "yes"), ("nli", "True"), ("open_qa", "Answer: Paris"), ("ner", "Ann Lee, Bob")):
        ability = built(task, own)
        request = SimpleNamespace(doc=ability.task.eval_docs[0])
        assert (ability._gold_answer(True, request), ability._gold_answer(False, request)) == (gold, f" {gold}")


def test_the_file_published_with_the_paper_is_asked_as_the_folders_rows_are(own, tmp_path, monkeypatch):
    """A file at an address, in the published form: `answer`, and `output`, a list that holds the passage."""
    published = [{"question": row["question"], "answer": row["answers"], "output": [row["passage"]]}
                 for row in ROWS["open_qa"]]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in published))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    address = f"file://{tmp_path}/rows.jsonl"
    ability = compose(["task=[paper_open_qa]", f"task.paper_open_qa.hub.path='{address}'"]).tasks["paper_open_qa"]
    fetched = BuiltAbility("paper_open_qa", ability, "hub", None)
    folder = built("open_qa", own).task
    asked = [[task.doc_to_text(doc) for doc in task.eval_docs] for task in (fetched.task, folder)]
    assert asked[0] == asked[1] and [doc["answers"] for doc in fetched.task.eval_docs] == [
        row["answers"] for row in ROWS["open_qa"]]  # fmt: skip


def test_what_the_papers_tasks_cannot_have_is_refused_by_name(own, tmp_path):
    (tmp_path / "rte.jsonl").write_text((own / "paper" / "rte.jsonl").read_text())
    with pytest.raises(BadInput, match=r"task=paper_nli.*looked for nli.jsonl or paper/rte.jsonl"):
        built("nli", tmp_path)
    for row, problem in (
        ({"tokens": ["Ann", "met"], "ner_tags": ["B-PER"]}, "it has 2 tokens and 1 tags"),
        ({"tokens": None, "ner_tags": ["B-PER"]}, "its tokens are no list of texts"),
        ({"tokens": [""], "ner_tags": ["O"]}, "field sentence is ''"),
    ):
        (tmp_path / "ner.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (*ROWS["ner"], row)))
        with pytest.raises(BadInput, match=rf"ner.jsonl:5: does not fit task=paper_ner: {problem}.*holds"):
            build_tasks(compose(["task=[paper_ner]"]).tasks, compose([f"data={tmp_path}"]).settings)
    with pytest.raises(BadInput, match="chance=null, but its answers are not generated"):
        with_chance(compose(["task=[nli]", "task.nli.chance=null"]).tasks, compose([]).settings)


def test_a_name_that_begins_with_an_i_is_one_as_in_conll_2003s_own_files():
    iob1 = {"tokens": ["Ann", "Lee", "met", "Bob", "Ray", "here", "."],
            "ner_tags": ["I-PER", "I-PER", "O", "I-PER", "B-PER", "O", "O"]}  # fmt: skip
    docs = paper_scores.ner_docs([iob1])
    assert {doc["kind"]: doc["names"] for doc in docs}["PER"] == ["Ann Lee", "Bob Ray"]

"""Every task file is measured on a tiny model through lm-eval; gold answers have the NLL of plain forward passes."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import jinja2
import pytest
import torch
import yaml

from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.answer_scores import entity_f1
from afteredit.evaluate.abilities.build import check_files
from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.abilities.lm_eval_tasks import harness_abilities, with_functions
from afteredit.evaluate.measure import Measure
from afteredit.evaluate.settings import MeasureSettings
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM
from afteredit.store.errors import BadInput

ROOT = Path(__file__).resolve().parents[3]
TASKS = sorted(path.stem for path in (ROOT / "conf" / "task").glob("*.yaml") 
               if path.stem not in ("all", "none", "paper"))  # fmt: skip


@pytest.fixture
def lm(make_lm) -> LM:
    lm = make_lm("llama", start_token="<|endoftext|>")
    lm.model.config.max_position_embeddings = 4096  # rotary: any length goes, and nothing is cut off
    return lm


def built(name: str, limit: int = 3) -> BuiltAbility:
    return BuiltAbility(name, compose([f"task=[{name}]"]).tasks[name], "mini", limit)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_file_measures_what_it_promises(name, lm):
    ability = built(name)
    calls = []
    original = ability.task.fewshot_context
    ability.task.fewshot_context = lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)

    scores = ability.measure(lm)
    row, examples = scores.row, scores.examples
    assert 0 <= row[f"ability/{name}"] <= 1
    assert math.isfinite(row[f"ability/{name}/gold_nll"]) and row[f"ability/{name}/gold_nll"] > 0
    generative = ability.task.OUTPUT_TYPE == "generate_until"
    assert (f"ability/{name}/unparseable" in row) == generative
    n_docs = len(ability.task.eval_docs)  # of three rows
    assert [example.doc_id for example in examples] == list(range(n_docs))
    assert n_docs == (12 if name == "paper_ner" else 3)
    denominator = sum(example.denominator for example in examples)
    assert row[f"ability/{name}"] == pytest.approx(
        sum(e.numerator for e in examples) / denominator if denominator else 0
    )
    assert row[f"ability/{name}/gold_nll"] == pytest.approx(sum(e.gold_nll for e in examples) / n_docs)
    assert len(calls) == n_docs

    assert ability.measure(lm) == scores
    assert len(calls) == n_docs  # requests are built once per run


@pytest.mark.parametrize("name", ["sentiment", "open_qa"])
def test_gold_nll_is_the_mean_of_plain_forward_passes(name, lm):
    scores = built(name, limit=2).measure(lm)
    config = compose([f"task=[{name}]"]).tasks[name].lm_eval
    ask = jinja2.Template(config["doc_to_text"], keep_trailing_newline=True)

    def gold(doc) -> str:
        return config["doc_to_choice"][doc["label"]] if name == "sentiment" else doc["answers"][0]

    shots = "".join(f"{ask.render(doc)} {gold(doc)}\n\n" for doc in config["fewshot_config"]["samples"])
    rows = (ROOT / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    nlls = []
    for doc in map(json.loads, rows):
        context, whole = (lm.tokens.encode(shots + ask.render(doc) + end) for end in ("", f" {gold(doc)}"))
        with torch.no_grad():
            log_p_TV = lm.model(torch.tensor([whole])).logits[0, len(context) - 1 : -1].log_softmax(-1)
        nlls.append(-float(log_p_TV[range(len(whole) - len(context)), whole[len(context) :]].mean()))
    assert [example.gold_nll for example in scores.examples] == pytest.approx(nlls, abs=1e-5)
    assert scores.row[f"ability/{name}/gold_nll"] == pytest.approx(sum(nlls) / 2, abs=1e-5)


@pytest.mark.parametrize("positions", [4096, 160])
def test_gold_answers_are_scored_in_the_pass_that_generates_unless_their_context_is_cut(lm, separately, positions):
    lm.model.config.max_position_embeddings = positions
    scores = built("open_qa").measure(lm)
    assert sum(separately) == (0 if positions == 4096 else 3)
    assert all(example.gold_nll > 0 for example in scores.examples)


def test_scores_are_of_the_weights_as_they_are_now(lm):
    """lm-eval's response cache would give the old answers back."""
    from afteredit.edit.update import LowRank

    ability = built("sentiment")
    before = ability.measure(lm).row
    D, F = lm.widths(1)
    lm.weights.add({lm.mlp_out_name(1): LowRank(torch.ones(D, 1), torch.ones(F, 1))})
    after = ability.measure(lm).row
    assert after["ability/sentiment/gold_nll"] != before["ability/sentiment/gold_nll"]


def test_a_headline_the_task_does_not_give_is_refused_with_those_it_gives(lm):
    ability = compose(["task=[sentiment]", "task.sentiment.headline=f1"]).tasks["sentiment"]
    with pytest.raises(BadInput, match=r"headline 'f1'.*acc"):
        BuiltAbility("sentiment", ability, "mini", 2).measure(lm)


def test_dotted_paths_into_this_project_become_functions_and_nothing_else_is_imported():
    sys.modules.pop("this", None)
    value = {"a": ["afteredit.evaluate.abilities.answer_scores.entity_f1"], "b": "this.s", "c": "os.system", "d": 3}
    assert with_functions(value) == {"a": [entity_f1], "b": "this.s", "c": "os.system", "d": 3}
    assert "this" not in sys.modules


@pytest.fixture
def few_shipped(monkeypatch, tmp_path):
    """Gives lm-eval's own task manager two tasks of ours instead of its thousands, which take seconds to read."""
    import lm_eval.tasks

    rows = [{"q": f"Is {n} even?", "label": n % 2} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("evenness", "oddness"):
        (tmp_path / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
            "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_target: label\n"
            "doc_to_choice: ['yes', 'no', maybe, never]\n"
            "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\ntag: parity\n"
        )
    (tmp_path / "group.yaml").write_text("group: both\ntask: [evenness, oddness]\n")
    original = lm_eval.tasks.TaskManager
    monkeypatch.setattr(
        lm_eval.tasks, "TaskManager", lambda **_: original(include_path=str(tmp_path), include_defaults=False)
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def shipped(name: str) -> Ability:
    settings = MeasureSettings(data="mini", limit=None, harness=[name], harness_path=None, held_out=None,
                               held_out_tokens=8, change_shares=[])  # fmt: skip
    return harness_abilities(settings)[name]


def test_an_unknown_shipped_task_is_refused_with_near_names(few_shipped):
    with pytest.raises(BadInput, match=r"'evennes' is not one that lm-eval ships; did you mean \['evenness'"):
        shipped("evennes")
    with pytest.raises(BadInput, match=r"'zzz' is not one that lm-eval ships; `lm-eval ls tasks` lists"):
        shipped("zzz")
    with pytest.raises(BadInput, match=r"'parity' is a group .*: name them one by one, as \['evenness', 'oddness'\]"):
        shipped("parity")
    with pytest.raises(BadInput, match="'both' is a group of lm-eval's tasks"):
        shipped("both")


def test_a_task_file_with_a_key_that_lm_eval_does_not_know_is_refused_with_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\noutput_type: multiple_choice\nnum_fewshots: 0\n"
    )
    settings = MeasureSettings(data="mini", limit=None, harness=["mine"], harness_path=str(tmp_path), held_out=None,
                               held_out_tokens=8, change_shares=[])  # fmt: skip
    with pytest.raises(BadInput, match="harness task 'mine' could not be loaded .*unexpected keyword.*num_fewshots"):
        harness_abilities(settings)
    (tmp_path / "mine.yaml").write_text("a: &a [x, *a]\n")
    with pytest.raises(BadInput, match=r"mine.yaml make it more than 10,000 values"):
        check_files({}, settings)


def test_a_shipped_task_is_measured_by_its_name_alone(few_shipped, lm):
    ability = shipped("evenness")
    assert (ability.headline, ability.chance) == ("acc", 0.25)
    scores = BuiltAbility("evenness", ability, "mini", None).measure(lm)
    assert scores.row["ability/evenness"] == sum(example.numerator for example in scores.examples) / 4


def test_the_answer_of_every_row_is_kept_and_the_question_can_be_had(lm):
    config = compose(["task=[open_qa]"]).tasks["open_qa"].lm_eval
    ability = built("open_qa", limit=2)
    example = ability.measure(lm).examples[1]
    questions = ability.questions()
    assert len(questions) == 2 and questions[1].keys() == {"question", "wanted"}
    row = json.loads((ROOT / "data" / "open_qa.jsonl").read_text(encoding="utf-8").splitlines()[1])
    assert questions[1]["question"] == f"Question: {row['question']}?\nAnswer:"
    assert questions[1]["wanted"] == " | ".join(row["answers"])
    shots = "".join(f"Question: {shot['question']}?\nAnswer: {shot['answers'][0]}\n\n"
                    for shot in config["fewshot_config"]["samples"])  # fmt: skip
    assert example.answer == greedy_text(lm, shots + questions[1]["question"], 32).split("\n")[0]
    assert example.choice is None and example.log_likelihoods is None


def test_of_choices_the_one_taken_and_all_log_likelihoods_are_kept(lm):
    ability = built("dialogue", limit=1)
    (example,), (asked,) = ability.measure(lm).examples, ability.questions()
    row = json.loads((ROOT / "data" / "dialogue.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert json.loads(asked["choices"]) == row["options"] and asked["question"] == row["dialogue"]
    assert asked["wanted"] == row["options"]["ABCD".index(row["answer"])]
    sums = []
    for option in row["options"]:
        context, whole = (lm.tokens.encode(row["dialogue"] + end) for end in ("", f" {option}"))
        with torch.no_grad():
            log_p_TV = lm.model(torch.tensor([whole])).logits[0, len(context) - 1 : -1].log_softmax(-1)
        sums.append(float(log_p_TV[range(len(whole) - len(context)), whole[len(context) :]].sum()))
    assert example.log_likelihoods == pytest.approx(sums, abs=1e-4)
    assert example.choice == sums.index(max(sums)) and example.answer is None


def test_rows_that_are_not_there_are_refused_before_anything_is_built(tmp_path):
    with pytest.raises(BadInput, match=r"task=nli.*nli.jsonl or rte.jsonl.*data=mini"):
        BuiltAbility("nli", compose(["task=[nli]"]).tasks["nli"], str(tmp_path), None)
    with pytest.raises(BadInput, match="names no hub data set"):
        BuiltAbility("x", Ability("acc", 0.5, compose(["task=[nli]"]).tasks["nli"].lm_eval), "hub", None)


EXACT_MATCH = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]


def plain_ability(lm, output_type: str, **config) -> BuiltAbility:
    """Returns an ability over three questions of 4, 16 and 40 words."""
    rows = [{"q": "word " * n, "answers": ["yes"], "label": n % 2} for n in (4, 16, 40)]
    ability = Ability("acc" if output_type == "multiple_choice" else "exact_match", 0.0, {
        "output_type": output_type, "doc_to_text": "{{q.strip()}}",
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)}, **config,
    })  # fmt: skip
    return BuiltAbility("plain", ability, "mini", None)


def n_ids(lm, text: str) -> int:
    return len(lm.tokens.encode(text))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_rows_that_are_longer_than_the_model_reads_are_counted(make_lm, family, caplog):
    lm = make_lm(family)
    lengths = [n_ids(lm, " ".join(["word"] * n) + " no") for n in (4, 16, 40)]
    choices = {"doc_to_choice": ["no", "yes"], "doc_to_target": "label",
               "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}  # fmt: skip
    for positions, n_cut in ((lengths[2] - 1, 0), (lengths[2] - 2, 1), (lengths[1] - 2, 2)):
        caplog.clear()
        short = make_lm(family, positions=positions)
        built = plain_ability(short, "multiple_choice", **choices)
        row = Measure(short, [built], [((1,), (2, 3))], [], seed=0).checkpoint([], last=False).row
        assert row.get("ability/plain/cut", 0.0) == pytest.approx(n_cut / 3)
        assert (f"task=plain: {n_cut} of 3 rows cut on the left" in caplog.text) == bool(n_cut)
        assert math.isfinite(row["ability/plain/gold_nll"])


def greedy_text(lm, prompt: str, n_tokens: int) -> str:
    ids = list(lm.tokens.encode(prompt))
    n_prompt = len(ids)
    with torch.no_grad():
        for _ in range(n_tokens):
            ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
    return lm.tokenizer.decode(ids[n_prompt:])


def test_answers_that_did_not_end_within_their_tokens_are_counted(make_lm, caplog):
    """They end at a text that the first row's answer holds; the model's own greedy text says which others hold it."""
    lm = make_lm("llama")
    texts = [greedy_text(lm, " ".join(["word"] * n), 5) for n in (4, 16, 40)]
    stop = texts[0].strip()[-3:]
    expected = [float(stop not in text) for text in texts]
    assert expected[0] == 0.0 and 1.0 in expected
    built = plain_ability(lm, "generate_until", doc_to_target="answers",
                          generation_kwargs={"until": [stop], "do_sample": False, "max_gen_toks": 5},
                          metric_list=EXACT_MATCH)  # fmt: skip
    caplog.set_level("INFO")
    assert [example.ran_out for example in built.measure(lm).examples] == expected
    row = Measure(lm, [built], [((1,), (2, 3))], [], seed=0).checkpoint([], last=False).row
    assert row["ability/plain/ran_out"] == pytest.approx(sum(expected) / 3)
    assert "ability/plain/cut" not in row
    assert f"task=plain: {sum(expected):.0f} of 3 answers did not end within the tokens" in caplog.text


@pytest.mark.parametrize("given, refused", [
    ({"num_beams": 4}, "num_beams: 4"), ({"repetition_penalty": 1.3}, "repetition_penalty: 1.3"),
    ({"do_sample": True, "temperature": 0.7}, "do_sample: True"), ({"num_return_sequences": 2}, "num_return_sequences"),
    ({"penalty_alpha": 0.6}, "penalty_alpha: 0.6"),
    ({"num_beams": 1, "repetition_penalty": 1.0, "temperature": 0.0, "top_p": 0.95, "do_sample": False}, None),
])  # fmt: skip
def test_answers_that_are_not_to_be_greedy_are_refused(make_lm, given, refused):
    built = plain_ability(make_lm("llama"), "generate_until", doc_to_target="answers", metric_list=EXACT_MATCH,
                          generation_kwargs={"until": ["."], "max_gen_toks": 5, **given})  # fmt: skip
    if refused is None:
        assert len(built.measure(make_lm("llama")).examples) == 3
        return
    with pytest.raises(BadInput, match=f"task=plain asks for answers with {refused}.*greedy: take .* out"):
        built.measure(make_lm("llama"))


def test_an_answer_may_take_half_of_what_the_model_reads(make_lm):
    lm = make_lm("gpt2", positions=24)
    built = plain_ability(lm, "generate_until", doc_to_target="answers",
                          generation_kwargs={"until": ["never"], "do_sample": False, "max_gen_toks": 256},
                          metric_list=EXACT_MATCH)  # fmt: skip
    scores = built.measure(lm)
    assert [example.ran_out for example in scores.examples] == [1.0] * 3
    assert [example.cut for example in scores.examples] == [float(n_ids(lm, " ".join(["word"] * n)) > 12)
                                                            for n in (4, 16, 40)]  # fmt: skip
    answer = built.task.instances[0].resps[0]
    prompt = lm.tokens.encode(" ".join(["word"] * 4))[-12:]
    assert answer == greedy_text(lm, lm.tokenizer.decode(prompt), 12)


@pytest.mark.parametrize("name", [name for name in TASKS if not name.startswith("paper_")])
def test_every_generating_task_leaves_room_for_its_gold_answers(name, lm):
    """The embedded rows' are short; conf/task says beside each number how long the real ones are.

    The paper's lengths are part of its scoring.
    """
    ability = built(name, limit=None)
    if ability.task.OUTPUT_TYPE == "generate_until":
        room = ability.task.config.generation_kwargs["max_gen_toks"]
        golds = [ability._gold_answer(False, SimpleNamespace(doc=doc)) for doc in ability.task.eval_docs]
        assert max(len(lm.tokenizer(gold).input_ids) for gold in golds if gold) <= room


@pytest.mark.parametrize(("name", "room"), [("reasoning", 256), ("ner", 192), ("open_qa", 32), ("summarization", 96)])
def test_a_generating_task_leaves_the_room_that_real_gold_answers_take(name, room):
    """docs/results.md (room for answers): measured on the real rows.  With 96, 64 % of GSM8K's solutions were cut."""
    task = yaml.safe_load((ROOT / "conf" / "task" / f"{name}.yaml").read_text("utf-8"))
    assert task["lm_eval"]["generation_kwargs"]["max_gen_toks"] == room

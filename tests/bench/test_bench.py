"""Tests what `make bench` computes from its times: tables, differences, batch sizes, growth, arithmetic."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from afteredit.bench import difference, edits, evaluation, filled, gptj, growth, hflm, second_moment, table
from afteredit.bench.machine import block_parameters
from afteredit.edit.update import Dense, LowRank, Update

ROOT = Path(__file__).resolve().parents[2]
TIMED = {
    "ours_s": 2.0,
    "baseline_s": 8.0,
    "speedup": 4.0,
    "bound_speedup": 10.0,
    "gflops": 30.0,
    "machine_gflops": 90.0,
}


class Request:
    """Of lm-eval's Instance what is looked at."""

    def __init__(self, doc_id: int, kind: str = "loglikelihood"):
        self.doc_id, self.request_type = doc_id, kind


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "bench").glob("*.py")))
def test_every_module_imports(name):
    importlib.import_module(f"afteredit.bench.{name}")


# ---- the table


def test_rows_replace_those_of_their_name_and_keep_the_others(tmp_path):
    path = tmp_path / "results.json"
    table.write_rows([{"name": "a", "n": 1}, {"name": "b", "n": 2}], path)
    table.write_rows([{"name": "c", "n": 3}, {"name": "a", "n": 4}], path)
    rows = json.loads(path.read_text())
    assert [(row["name"], row["n"]) for row in rows] == [("a", 4), ("b", 2), ("c", 3)]
    assert all(row.keys() >= set(table.COLUMNS) for row in rows)


def test_tables_stand_between_the_marks_and_nothing_else_changes(tmp_path):
    page, path = tmp_path / "speed.md", tmp_path / "results.json"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_rows([{"name": "edits", **TIMED}], path, page)
    once = page.read_text()
    table.write_rows([{"name": "edits", **TIMED}], path, page)
    assert page.read_text() == once
    assert once.startswith(f"before\n{table.BEGIN}\n") and once.endswith(f"{table.END}\nafter\n")
    assert "old" not in once and "| edits | 2.00 s | 8.00 s | **4.0 ×** | 10.0 × | 30 of 90 |" in once


def test_a_page_without_marks_is_left_as_it_is(tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="must hold"):
        table.write_rows([{"name": "edits", **TIMED}], tmp_path / "results.json", page)
    assert page.read_text() == "no marks"


def test_the_page_on_speed_has_the_marks():
    assert table.with_tables(table.PAGE.read_text(encoding="utf-8"), [])


def test_rows_without_a_baseline_are_told_in_words():
    untimed = dict.fromkeys(table.COLUMNS)
    rows = [{**untimed, "name": "growth", "n_edits": 1000, "edit_growth": 1.25},
            {**untimed, "name": "run", "neither_share": 0.0213, "wall_s": 480.0, "peak_gib": 1.5,
             "peak_over_model": 3.0},
            {**untimed, "name": "half known", "wall_s": 480.0}]  # fmt: skip
    said = table.sentences(rows)
    assert "| growth | of 1000 edits one of the last hundred takes 1.25 times one of the first hundred |" in said
    assert "2.1% of 480 s are neither editing nor measuring; peak memory 1.50 GiB, 3.0 times the model's own" in said
    assert "half known" not in said and "growth" not in table.speeds(rows)


def test_every_sentence_speaks_of_fields_that_a_script_writes():
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bench").glob("*.py"))
    for name in set().union(*map(table.fields, table.SENTENCES)):
        assert f'"{name}"' in written, name


# ---- differences


def test_a_likelihood_is_compared_per_token():
    found = difference.of_likelihoods([Request(0), Request(1)], [(-1.0, True), (-4.0, False)],
                                      [(-1.0, True), (-4.4, False)], [1, 4], lambda i: 0.0)  # fmt: skip
    assert found.worst_nats_per_token == pytest.approx(0.1) and not found.margins


def test_a_greedy_flag_that_differs_is_explained_by_its_margin_alone():
    requests, ours, theirs = [Request(0), Request(1)], [(-1.0, True), (-1.0, True)], [(-1.0, False), (-1.0, False)]
    found = difference.of_likelihoods(requests, ours, theirs, [1, 1], {0: 5e-5, 1: 0.3}.__getitem__)
    assert len(found.margins) == 2 and found.n_unexplained == 1


@pytest.mark.parametrize(("gap", "unexplained"), [(1e-4, 0), (1e-2, 1)])
def test_a_choice_that_differs_is_explained_where_the_two_choices_are_all_but_equal(gap, unexplained):
    requests = [Request(0), Request(0)]
    found = difference.of_likelihoods(
        requests, [(-2.0, False), (-2.0 - gap, False)], [(-2.0 - gap, False), (-2.0, False)], [2, 2], lambda i: 0.0
    )
    assert len(found.margins) == 1 and found.n_unexplained == unexplained


def test_texts_that_differ_are_counted_once_each():
    found = difference.of_texts(["a", "b", "c"], ["a", "x", "y"], {1: 0.0, 2: 1.0}.__getitem__)
    assert (len(found.margins), found.n_unexplained) == (2, 1)


def test_the_margin_of_a_token_is_to_the_best_other_one():
    log_p_V = torch.tensor([-1.0, -3.0, -1.5])
    assert difference.margin_of(log_p_V, 0) == pytest.approx(0.5)
    assert difference.margin_of(log_p_V, 1) == pytest.approx(2.0)


def test_the_margin_of_a_continuation_is_the_least_over_its_tokens(make_lm):
    lm = make_lm("llama")
    context, continuation = [5, 6, 7], [8, 9, 10]
    logits_TV = lm.model(torch.tensor([context + continuation])).logits[0].log_softmax(-1)
    each = [difference.margin_of(logits_TV[2 + i], token) for i, token in enumerate(continuation)]
    assert difference.margin_of_greedy(lm, context, continuation) == pytest.approx(min(each), abs=1e-5)


def test_texts_part_where_the_plain_continuation_leaves_one_of_them(make_lm):
    """Margins behind that place do not count: the first token decides where it is the one that differs."""
    lm = make_lm("llama")
    context = list(lm.tokens.encode("The sport that brought Joe DiMaggio to fame is"))
    ids, margins = [], []
    for _ in range(6):
        top = lm.model(torch.tensor([context + ids])).logits[0, -1].log_softmax(-1).topk(2)
        margins.append(float(top.values[0] - top.values[1]))
        ids.append(int(top.indices[0]))
    assert lm.tokenizer.eos_token_id not in ids
    whole, three = lm.tokenizer.decode(ids), lm.tokenizer.decode(ids[:3])
    assert "\ufffd" not in whole

    def margin(other: str) -> float:
        return difference.margin_of_texts(lm, context, (whole, other), len(ids))

    assert margin("~") == pytest.approx(margins[0], abs=1e-5)
    assert margin(three + "~") == pytest.approx(min(margins[:4]), abs=1e-5)


def test_complaints_name_the_task():
    fine = {"task": "nli", "worst_nats_per_token": 1e-5, "unexplained_differences": 0, "kept_differences": 0}
    assert difference.complaints([fine, {**fine, "worst_nats_per_token": None}]) == []
    wrong = [{**fine, "worst_nats_per_token": 2e-4}, {**fine, "unexplained_differences": 1},
             {**fine, "kept_differences": 2}, {**fine, "worst_nats_per_token": float("nan")}]  # fmt: skip
    said = difference.complaints(wrong)
    assert len(said) == 4 and all(line.startswith("nli: ") for line in said)


# ---- edits


def test_an_edits_arithmetic_is_that_of_the_blocks_above_it_and_of_the_head(make_lm, fact):
    """Two losses and the gradient of the first are three passes; two operations belong to every parameter and token."""
    lm = make_lm("llama")
    ids, last = lm.tokens.locate(fact.question, fact.subject_start, len(fact.subject))
    kl_ids, kl_last = lm.tokens.locate(f"{fact.subject} is a", 0, len(fact.subject))
    target = lm.tokens.answer_ids(fact.target_new, fact.question)
    n_tokens = len(ids) + len(target) - 1 - last + len(kl_ids) - kl_last
    layer = lm.n_blocks - 2
    block, head = block_parameters(lm, layer), lm.model.get_output_embeddings().weight.numel()
    expected = 3 * 2 * (block * n_tokens + head * (len(target) + 1))
    assert edits.flops(lm, [fact], ("",), layer, [1]) == expected
    assert edits.flops(lm, [fact], ("",), layer - 1, [1]) == expected + 3 * 2 * block * n_tokens


# ---- the evaluation's other parts


def test_the_fastest_size_wins():
    assert hflm.fastest((1, 4, 8), {1: 3.0, 4: 1.0, 8: 2.0}.__getitem__) == 4


@pytest.mark.parametrize(("per_batch_s", "per_row_s", "best"), [(0.0, 1.0, 1), (1.0, 0.0, 64)])
def test_the_best_batch_size_is_found_on_documents_that_fill_it(per_batch_s, per_row_s, best, monkeypatch):
    """Seconds as if every batch cost so much, and every row in proportion to the batch's size."""
    requests = [Request(i, "generate_until") for i in range(64)]

    class Theirs:
        batch_size_per_gpu = 0
        asked: list[tuple[int, int]] = []

        def generate_until(self, asked, disable_tqdm):
            self.asked.append((self.batch_size_per_gpu, len(asked)))
            return ["answer"] * len(asked)

    theirs = Theirs()

    def pretended(work):
        answers = work()
        size = theirs.batch_size_per_gpu
        return per_batch_s * -(-len(answers) // size) + per_row_s * len(answers) * size, answers

    monkeypatch.setattr(hflm, "seconds", pretended)
    size, taken_s, answers = hflm.best_answers(theirs, requests)
    assert size == best and len(answers) == 64
    assert taken_s == per_batch_s + per_row_s * 64
    assert all(n >= size for size, n in theirs.asked if size in hflm.LARGE)


def test_documents_are_taken_whole():
    requests = [Request(doc) for doc in (3, 3, 1, 1, 2, 2)]
    assert [r.doc_id for r in hflm.of_first_documents(requests, 2)] == [1, 1, 2, 2]


def test_a_finished_task_is_found_again_only_under_the_same_settings():
    rows = [{"task": "nli", "data": "mini", "limit": 2, "cold_s": 1.0}]
    assert evaluation.finished_row(rows, {"task": "nli", "data": "mini", "limit": 2}) == rows[0]
    assert evaluation.finished_row(rows, {"task": "nli", "data": "mini", "limit": 64}) is None
    assert evaluation.finished_row(rows, {"task": "ner", "data": "mini", "limit": 2}) is None


def test_summaries_add_up_the_tasks_of_each_kind():
    one = {"task": "nli", "kind": "loglikelihood", "n": 4, "hflm_s": 6.0, "cold_s": 3.0, "kept_s": 2.0,
           "cold_flops": 30.0, "kept_flops": 20.0, "hflm_batch_size": 8, "worst_nats_per_token": 1e-6,
           "answers_that_differ": 1, "unexplained_differences": 0}  # fmt: skip
    two = {**one, "task": "ner", "kind": "generate_until", "hflm_s": 4.0, "cold_s": 2.0, "answers_that_differ": 2,
           "worst_nats_per_token": None}  # fmt: skip
    rows = {row["name"]: row for row in evaluation.summary_rows([one, two], rate=10.0)}
    assert len(rows) == 6
    cold = rows["evaluation, all tasks, cold"]
    assert cold["speedup"] == 2.0 and cold["bound_speedup"] == pytest.approx(10 * 10 / 60)
    assert cold["worst_nats_per_token"] == 1e-6
    assert "worst_nats_per_token" not in rows["evaluation, generation, cold"]
    assert cold["answers_that_differ"] == 3 and rows["evaluation, multiple choice, cold"]["answers_that_differ"] == 1
    assert rows["evaluation, multiple choice, kept"]["ours_s"] == 2.0
    assert "answers_that_differ" not in rows["evaluation, generation, kept"]  # HFLM was asked before the edit


# ---- second moments, growth, GPT-J


def test_few_tokens_are_held_against_others(make_lm):
    lm = make_lm("gpt2")
    torch.manual_seed(0)
    rows = torch.randint(2, 500, (6, second_moment.LENGTH)).tolist()
    found = second_moment.error_of_few(lm, [1], rows, n_few=1, n_many=20)
    per_row = second_moment.LENGTH / lm.widths(1)[1]
    assert found["few_per_dimension"] == per_row and found["many_per_dimension"] == 5 * per_row
    assert found["relative_error_of_few"] > 0
    twice = second_moment.error_of_few(lm, [1], [rows[0], rows[0]], n_few=1, n_many=1)
    assert twice["relative_error_of_few"] < 1e-6


def test_all_that_a_short_text_holds_is_taken(make_lm, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Joe DiMaggio played baseball. " * 100)
    lm = make_lm("gpt2")
    some = second_moment.first_rows(lm, str(text), 2 * second_moment.LENGTH)
    every = second_moment.first_rows(lm, str(text), 10**6)
    assert len(some) == 2 < len(every) and every[:2] == some


def test_growth_compares_ends_by_their_medians_and_checkpoints_by_what_they_ask_about():
    edit_s = [1.0, 2.0, 9.0, 5.0, 5.0, 5.0, 3.0, 4.0, 50.0]  # one in three holds a checkpoint
    asked = {
        0: (0.1, 9),
        3: (1.0, 3),
        6: (2.0, 6),
        9: (4.0, 8),
        12: (6.0, 10),
        15: (5.0, 10),
        18: (6.0, 8),
        21: (99, 30),
    }
    found = growth.growth(edit_s, asked, every=3)
    assert found["edit_growth"] == 4 / 2
    assert found["checkpoint_growth"] == pytest.approx(((5 / 10 + 6 / 8) / 2) / ((4 / 8 + 6 / 10) / 2))
    assert (found["early_to"], found["late_from"], found["last_checkpoint_s"]) == (12, 15, 99)


def test_gptjs_bytes():
    assert gptj.FACTOR_BYTES == 4 * 6 * (4096 + 16384)
    assert gptj.MASTER_BYTES == 4 * 6 * 4096 * 16384


def test_gptjs_share_is_what_is_neither_over_all():
    assumed = gptj.Assumed(n_edits=10, eval_every=5)
    found = gptj.gptj_share(journal_s=0.5, hash_s=2.0, other_s=20.0, assumed=assumed)
    neither_s = 10 * 0.5 + 3 * 2.0 + 20 + assumed.loading_s + assumed.constants_s
    evaluating_s = 3 * assumed.n_rows * assumed.row_s
    editing_s = 10 * assumed.edit_s
    assert found["evaluating_s"] == pytest.approx(evaluating_s) and found["editing_s"] == pytest.approx(editing_s)
    assert found["arithmetic_share"] == pytest.approx(neither_s / (neither_s + evaluating_s + editing_s))
    at_the_bar = replace(assumed, n_rows=found["rows_from_which_under_bar"])
    assert gptj.gptj_share(0.5, 2.0, 20.0, at_the_bar)["arithmetic_share"] == pytest.approx(gptj.BAR)


# ---- a filled state


def test_a_made_up_update_has_the_tensors_of_a_real_one_and_moves_next_to_nothing():
    real = Update({"a": LowRank(torch.ones(3, 2), torch.ones(4, 2)), "b": Dense(torch.ones(3, 4))},
                  {"keys/1": torch.ones(4, 1)})  # fmt: skip
    made, other = filled.made_up(real), filled.made_up(real)
    shapes = [{name: tensor.shape for name, tensor in update.flat().items()} for update in (real, made)]
    assert shapes[0] == shapes[1]
    assert all(0 < change.norm() < 1e-5 for change in made.changes.values())
    assert not torch.equal(made.adds["keys/1"], other.adds["keys/1"]) and (made.adds["keys/1"] > 0).all()

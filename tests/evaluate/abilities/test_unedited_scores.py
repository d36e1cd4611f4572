"""The unedited model's scores are read where they were measured before, and only where they would be the same."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from afteredit.edit.update import LowRank
from afteredit.evaluate.abilities import unedited_scores as module
from afteredit.evaluate.abilities.ability import Ability
from afteredit.evaluate.abilities.built_ability import BuiltAbility
from afteredit.evaluate.abilities.unedited_scores import decides, prompts_known, unedited_scores
from afteredit.launch.command_line import compose
from afteredit.model.lm import LM

START = "<|endoftext|>"
NAME = "sentiment"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def lm(make_lm) -> LM:
    return make_lm("llama", start_token=START)


@pytest.fixture(autouse=True)
def measured(monkeypatch) -> list[str]:
    """Collects the names of the abilities that were measured and not read."""
    names: list[str] = []
    original = BuiltAbility.measure

    def measure(self: BuiltAbility, *args):
        names.append(self.name)
        return original(self, *args)

    monkeypatch.setattr(BuiltAbility, "measure", measure)
    return names


def built(limit: int = 2, **settings: str) -> BuiltAbility:
    """Returns the sentiment task with other `settings` of lm-eval's."""
    ability = compose([f"task=[{NAME}]"]).tasks[NAME]
    return BuiltAbility(NAME, replace(ability, lm_eval={**ability.lm_eval, **settings}), "mini", limit)


def files(cache: Path) -> set[Path]:
    return set((cache / "unedited_scores").glob("*.json"))


def disturb(lm: LM) -> None:
    """Changes the last block's matrix by a random rank-one change."""
    D, F = lm.widths(3)
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(D, 1, generator=generator), torch.randn(F, 1, generator=generator)
    lm.weights.add({lm.mlp_out_name(3): LowRank(left, right)})


def test_a_second_run_reads_what_the_first_measured(lm, make_lm, measured, cache):
    first = unedited_scores(built(), lm)
    assert measured == [NAME]
    again = unedited_scores(built(), make_lm("llama", start_token=START))
    assert again == first == built().measure(lm)
    assert measured == [NAME, NAME] and len(files(cache)) == 1  # the second of them by this test itself


def with_chat_template(lm: LM, template: str) -> LM:
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.chat_template = template
    return LM(lm.model, tokenizer, start_token=START)


def with_another_weight(lm: LM) -> LM:
    """Changes one column of one matrix, as KN writes one."""
    lm.mlp_out(1).weight[:, 7] *= 1.5
    return LM(lm.model, lm.tokenizer, start_token=START)


OTHERS: dict[str, Callable[[LM], tuple[BuiltAbility, LM]]] = {
    "limit": lambda lm: (built(limit=3), lm),
    "prompt": lambda lm: (built(doc_to_text="{{sentence}} Is this good?"), lm),
    "weights": lambda lm: (built(), with_another_weight(lm)),
    "start token": lambda lm: (built(), LM(lm.model, lm.tokenizer)),
    "chat template": lambda lm: (built(), with_chat_template(lm, "{{ messages[0].content }}!")),
    "dtype": lambda lm: (built(), LM(lm.model.double(), lm.tokenizer, start_token=START)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_whatever_decides_the_scores_names_another_file(what, lm, measured, cache):
    unedited_scores(built(), lm)
    task, other = OTHERS[what](lm)
    scores = unedited_scores(task, other)
    assert measured == [NAME, NAME] and len(files(cache)) == 2
    assert scores == task.measure(other)


def test_other_hardware_threads_and_code_name_another_file(lm, monkeypatch):
    task, before = built(), torch.get_num_threads()
    named = [decides(task, lm)]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER")
    named.append(decides(task, lm))
    torch.set_num_threads(before + 1)
    named.append(decides(task, lm))
    torch.set_num_threads(before)
    monkeypatch.setattr(module, "measuring_version", lambda: {"code": "another"})
    named.append(decides(task, lm))
    assert all(first != second for i, first in enumerate(named) for second in named[:i])


def test_an_edited_model_is_neither_read_nor_kept(lm, measured, cache):
    unedited = unedited_scores(built(), lm)
    stored = files(cache)
    disturb(lm)
    edited = unedited_scores(built(), lm)
    assert edited != unedited and measured == [NAME, NAME] and files(cache) == stored
    lm.weights.restore()
    assert unedited_scores(built(), lm) == unedited and len(measured) == 2


def test_an_edited_model_does_not_come_first_either(lm, cache):
    disturb(lm)
    unedited_scores(built(), lm)
    assert not files(cache)


@pytest.mark.parametrize("damage", ["", "{", '{"row": {}, "examples": []}'], ids=["empty", "cut", "altered"])
def test_a_damaged_file_is_named_and_made_anew(damage, lm, measured, cache, caplog):
    first = unedited_scores(built(), lm)
    (path,) = files(cache)
    whole = json.loads(path.read_bytes())
    path.write_text(damage)
    with caplog.at_level(logging.WARNING, logger="afteredit.store.user_cache"):
        assert unedited_scores(built(), lm) == first
    assert str(path) in caplog.text
    again = json.loads(path.read_bytes())
    assert again | {"seconds": whole["seconds"]} == whole and measured == [NAME, NAME]
    unedited_scores(built(), lm)
    assert len(measured) == 2


def test_examples_that_a_shipped_task_draws_itself_are_unknown(lm, measured, cache, monkeypatch):
    def task(num_fewshot: int | None, lm_eval: object) -> SimpleNamespace:
        config = SimpleNamespace(num_fewshot=num_fewshot)
        return SimpleNamespace(task=SimpleNamespace(config=config), ability=Ability("acc", 0.5, lm_eval))

    cases = [(0, "hellaswag"), (None, "hellaswag"), (5, {"num_fewshot": 5}), (5, "hellaswag")]
    assert [prompts_known(task(*case)) for case in cases] == [True, True, True, False]
    monkeypatch.setattr(module, "prompts_known", lambda _built: False)
    for _ in range(2):
        unedited_scores(built(), lm)
    assert measured == [NAME, NAME] and not files(cache)

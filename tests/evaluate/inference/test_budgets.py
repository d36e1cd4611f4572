"""The rule of evaluation budgets on accelerators; on a CPU they are what they were."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from afteredit.evaluate.inference import budgets
from afteredit.evaluate.inference.batches import Budgets, RowSize, batches_of_like_length
from afteredit.evaluate.inference.budgets import Device, budgets_of, bytes_of, rule

GIB = 2**30


def test_on_a_cpu_the_budgets_are_the_constants(make_lm, family):
    assert budgets_of(make_lm(family)) == Budgets(1024, 16384, 24)


def test_bytes_are_those_of_the_models_shape(make_lm):
    lm = make_lm("gpt2", dtype=torch.bfloat16)
    assert bytes_of(lm) == (2 * (4 * 48 + 8 * 32) + 12 * len(lm.tokenizer), 2 * 2 * 4 * 32)


GPTJ = 12 * GIB, 2 * (4 * 16384 + 8 * 4096) + 12 * 50400, 2 * 2 * 28 * 4096  # bfloat16


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Device(140 * GIB, 132), Budgets(64 * 132, 128 * GIB // 4 // GPTJ[2], 198)),  # the multiprocessors decide
        (Device(16 * GIB, 132), Budgets(GIB // 2 // GPTJ[1], GIB // GPTJ[2], 15)),  # the memory that is left does
        (Device(12 * GIB, 132), Budgets(64, 1024, 1)),  # none is left: few rows at a time
    ],
)  # fmt: skip
def test_budgets_follow_the_devices_memory_and_multiprocessors(device, expected):
    assert rule(device, *GPTJ) == expected


def test_a_sharded_model_has_the_memory_of_all_its_devices(monkeypatch):
    cards = {0: SimpleNamespace(total_memory=80, multi_processor_count=132),
             1: SimpleNamespace(total_memory=40, multi_processor_count=108)}  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: cards[device.index])
    assert budgets.device_of([torch.device("cuda:0"), torch.device("cuda:1")]) == Device(120, 108)


def test_more_rows_stand_together_within_larger_budgets():
    sizes = {row: RowSize(100, 100) for row in range(40)}
    assert list(map(len, batches_of_like_length(sizes))) == [10, 10, 10, 10]
    assert list(map(len, batches_of_like_length(sizes, Budgets(4000, 16384, 96)))) == [40]
    assert list(map(len, batches_of_like_length(sizes, Budgets(4000, 2000, 96)))) == [20, 20]

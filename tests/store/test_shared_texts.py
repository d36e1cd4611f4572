"""Texts by their content: each stands once, a damaged one is named, one that a copy left out can come back."""

from __future__ import annotations

import json

import pytest

from afteredit.store.checked_lines import Lines
from afteredit.store.errors import BadInput
from afteredit.store.shared_texts import SharedTexts, read_texts, reference


def test_a_text_stands_once_however_often_it_is_kept(tmp_path):
    texts = SharedTexts(tmp_path)
    texts.keep(["Lima", "Oslo", "Lima"])
    texts.keep(["Oslo"])
    texts.keep(["Oslo", "Bern\n"])
    lines = [json.loads(line)["texts"] for line in (tmp_path / "texts.jsonl").read_text().splitlines()]
    assert [sorted(line.values()) for line in lines] == [["Lima", "Oslo"], ["Bern\n"]]
    again, faults = read_texts(tmp_path)
    assert not faults and again == SharedTexts(tmp_path).texts == {reference(t): t for t in ("Lima", "Oslo", "Bern\n")}


def test_a_text_that_is_not_that_of_its_reference_is_named(tmp_path):
    Lines(tmp_path / "texts.jsonl").append({"texts": {reference("Lima"): "Oslo"}})
    with pytest.raises(BadInput, match=r"texts.jsonl:1 is damaged: .*is not the reference to 'Oslo'"):
        SharedTexts(tmp_path)
    texts, faults = read_texts(tmp_path)
    assert texts == {} and "texts.jsonl:1" in faults[0]


def test_a_text_that_a_copy_left_out_comes_back_when_it_is_said_again(tmp_path):
    Lines(tmp_path / "texts.jsonl").append({"texts": {reference("Lima"): None}})
    texts = SharedTexts(tmp_path)
    assert texts.texts == {reference("Lima"): None}
    texts.keep(["Lima"])
    assert SharedTexts(tmp_path).texts == {reference("Lima"): "Lima"}

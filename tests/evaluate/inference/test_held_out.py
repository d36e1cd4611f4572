"""The held-out text is the text that was asked for, without marks of the file."""

import codecs
import gzip
from dataclasses import replace

import pytest

from afteredit.evaluate.inference.held_out import held_out, held_out_text
from afteredit.evaluate.settings import MeasureSettings
from afteredit.store.errors import BadInput

TEXT = "The old town of Córdoba has a market.\n\n  People come to buy fish. \n"
SETTINGS = MeasureSettings(
    data="mini", limit=None, harness=[], harness_path=None, held_out=None, held_out_tokens=8, change_shares=[]
)
FILES = {
    "plain": TEXT.encode(),
    "mark": codecs.BOM_UTF8 + TEXT.encode(),
    "two marks": 2 * codecs.BOM_UTF8 + TEXT.encode(),
    "windows": codecs.BOM_UTF8 + TEXT.replace("\n", "\r\n").encode(),
    "utf16": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "compressed": gzip.compress(TEXT.encode()),
}


@pytest.mark.parametrize("name", FILES)
def test_the_text_is_the_same_whatever_the_file(tmp_path, name):
    (tmp_path / "text.txt").write_bytes(FILES[name])
    assert held_out_text(replace(SETTINGS, held_out=str(tmp_path / "text.txt"))) == TEXT


@pytest.mark.parametrize("given", ["", "/nowhere.txt", "/"])
def test_the_embedded_text_takes_the_place_of_no_other(given):
    assert len(held_out_text(SETTINGS)) > 1000
    with pytest.raises(BadInput, match=f"held_out={given}: .*or null for the embedded text"):
        held_out_text(replace(SETTINGS, held_out=given))


def test_a_text_of_ones_own_that_is_shorter_than_asked_for_is_said_to_be(tmp_path, make_lm, caplog):
    lm = make_lm("llama", start_token="<|endoftext|>")
    (tmp_path / "short.txt").write_text("Of markets. " * 80)
    n_tokens = len(lm.tokens.text_ids("Of markets. " * 80))
    given = replace(SETTINGS, held_out=str(tmp_path / "short.txt"))
    held_out(lm, replace(given, held_out_tokens=n_tokens))
    held_out(lm, replace(SETTINGS, held_out_tokens=10**6))
    assert not caplog.records
    held_out(lm, replace(given, held_out_tokens=n_tokens + 1))
    assert f"short.txt holds {n_tokens} tokens, fewer than held_out_tokens={n_tokens + 1}" in caplog.text

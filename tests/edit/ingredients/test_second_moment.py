"""Tests C = E[k kᵀ] against plain forward passes, and that it is made once, from the same text each time."""

import codecs
import gzip
import itertools
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from afteredit.edit.ingredients import sampled_text, second_moment
from afteredit.edit.ingredients.sampled_text import identity, sequences
from afteredit.edit.ingredients.second_moment import estimate, second_moments
from afteredit.edit.method import Given
from afteredit.edit.methods.memit import Memit
from afteredit.edit.methods.rome import Rome
from afteredit.store.errors import BadInput
from afteredit.store.progress import kept_progress


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text_file(tmp_path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("The sport that brought Joe DiMaggio to fame is an old one.\n" * 60, encoding="utf-8")
    return str(path)


def test_the_estimate_is_the_mean_over_tokens_of_plain_forward_passes(exact_lm, plain_pass, monkeypatch):
    monkeypatch.setattr(second_moment, "BATCH", 2)
    lm, before = exact_lm, n_hooks(exact_lm)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(2, 200, (5, 12), generator=generator).tolist()
    moments = estimate(lm, [1, 3], iter(rows))
    assert moments.keys() == {1, 3}
    for layer, moment_FF in moments.items():
        keys_NF = torch.cat([plain_pass(lm, row, layer, 0).keys_TF for row in rows]).double()
        expected_FF = torch.einsum("nf,ng->fg", keys_NF, keys_NF) / len(keys_NF)
        assert_close(moment_FF, expected_FF, rtol=1e-5, atol=1e-5 * float(expected_FF.abs().max()))
    assert n_hooks(lm) == before


def n_hooks(lm) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in lm.model.modules())


def test_one_pass_serves_all_layers_and_stops_after_the_last(exact_lm):
    lm, ran = exact_lm, []
    for i, block in enumerate(lm.anatomy.blocks):
        block.register_forward_pre_hook(lambda _m, _a, i=i: ran.append(i))
    estimate(lm, [2, 1], iter([[5, 6, 7]] * 3))
    assert ran == [0, 1, 2]


def test_a_second_call_finds_the_file_and_runs_no_forward_pass(make_lm, family, text_file, monkeypatch):
    lm = make_lm(family)
    first, digest = second_moments(lm, [1, 2], text_file, 4)
    assert all(moment.shape == (48, 48) and moment.dtype == torch.float32 for moment in first.values())

    def forward(*_args, **_kwargs):
        raise AssertionError("the model ran again")

    monkeypatch.setattr(lm, "forward", forward)
    again, digest_again = second_moments(lm, [1, 2], text_file, 4)
    assert digest_again == digest
    assert again.keys() == first.keys()
    assert all(torch.equal(again[layer], first[layer]) for layer in first)
    for other in (([1], text_file, 4), ([1, 2], text_file, 3)):
        with pytest.raises(AssertionError, match="ran again"):
            second_moments(lm, *other)


def test_the_file_is_named_by_the_weights_and_the_text(make_lm, text_file):
    lm = make_lm("gpt2")
    _, digest = second_moments(lm, [1], text_file, 3)
    with open(text_file, "a", encoding="utf-8") as more:
        more.write("One more line.\n")
    other = make_lm("gpt2", start_token="<s>")
    assert len({digest, second_moments(lm, [1], text_file, 3)[1], second_moments(other, [1], text_file, 3)[1]}) == 3


def test_a_text_too_short_is_refused(make_lm, text_file, cache):
    with pytest.raises(BadInput, match=r"second_moment_text=.*text.txt.*48000.*tokens_per_key_dim"):
        second_moments(make_lm("gpt2"), [1], text_file, 1000)
    assert not list(cache.rglob("*.safetensors"))


def test_a_text_that_is_not_there_is_refused_with_what_is_allowed(make_lm):
    with pytest.raises(BadInput, match="second_moment_text=nowhere.txt.*sampled, hub"):
        second_moments(make_lm("gpt2"), [1], "nowhere.txt", 1)


def test_a_text_file_is_cut_into_rows_that_start_with_the_start_token(make_lm, text_file):
    lm = make_lm("gpt2", start_token="<s>")
    rows = list(sequences(lm, text_file, 300))
    assert [len(row) for row in rows] == [128] * 3
    assert {row[0] for row in rows} == set(lm.tokens.start_ids)
    body = list(itertools.chain.from_iterable(row[1:] for row in rows))
    with open(text_file, encoding="utf-8") as file:
        assert file.read().startswith(lm.tokenizer.decode(body))


def test_marks_and_line_ends_of_a_text_file_change_neither_its_tokens_nor_its_name(make_lm, text_file, tmp_path):
    lm, content = make_lm("gpt2"), Path(text_file).read_bytes()
    other = tmp_path / "other.txt"
    for changed in (codecs.BOM_UTF8 + content, content.replace(b"\n", b"\r\n"), gzip.compress(content)):
        other.write_bytes(changed)
        assert list(sequences(lm, str(other), 300)) == list(sequences(lm, text_file, 300))
        assert identity(str(other)) == identity(text_file)


def test_sampled_text_is_the_same_each_time_whatever_torchs_seed(make_lm, family, tmp_path, monkeypatch):
    lm = make_lm(family)
    torch.manual_seed(1)
    first = list(sequences(lm, "sampled", 300))
    torch.manual_seed(2)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "another"))
    assert list(sequences(lm, "sampled", 300)) == first
    assert [len(row) for row in first] == [128] * 3
    assert len({tuple(row) for row in first}) == 3
    assert {row[0] for row in first} == {lm.tokenizer.eos_token_id}


def test_sampled_text_is_written_once_for_all_layers(make_lm, monkeypatch):
    lm, writings, write = make_lm("gpt2"), [], sampled_text.continue_rows
    monkeypatch.setattr(sampled_text, "continue_rows", lambda *args: writings.append(1) or write(*args))
    moments = [second_moments(lm, [layer], "sampled", 3)[0][layer] for layer in (1, 2)]
    assert len(writings) == 1
    assert not torch.equal(*moments)


def test_another_model_writes_its_own_text(make_lm):
    assert len({str(list(sequences(make_lm(family), "sampled", 100))) for family in ("gpt2", "gptj", "llama")}) == 3


def test_a_second_moment_is_factorised_once(make_lm, monkeypatch, text_file, fact):
    """It is factorised before the first edit, however many edits follow."""
    factorised, cholesky_ex = [], torch.linalg.cholesky_ex
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda A: factorised.append(A.shape) or cholesky_ex(A))
    lm, keys = make_lm("gpt2"), {"second_moment_text": text_file, "value_steps": 2}
    F = lm.widths(1)[1]
    for method in (Rome(layer=1, contexts_short=0, contexts_long=0, **keys), Memit(layers=[0, 1], contexts=0, **keys)):
        lm.weights.keep_base(method.edited(lm))
        factorised.clear()
        prepared = method.prepare(lm, Given(0, list))
        assert factorised.count((F, F)) == len(method.edited(lm))
        for _ in range(3):
            update = method.update(lm, [fact], prepared, {})
            lm.weights.add(update.changes)
        assert factorised.count((F, F)) == len(method.edited(lm))


class Killed(Exception):
    pass


def dying(function, after: int):
    """Returns `function`, which works `after` times."""
    calls = itertools.count()

    def call(*args, **kwargs):
        if next(calls) == after:
            raise Killed
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize("at", [1, 4])
def test_a_killed_sampling_goes_on_after_the_last_piece_to_the_bit(make_lm, tmp_path, monkeypatch, at):
    """Nine rows in groups of five, and in pieces of two: 2, 2, 1, then 2, 2."""
    monkeypatch.setattr(sampled_text, "GROUP", 5)
    monkeypatch.setattr(sampled_text, "PIECE", {"cpu": 2})
    lm, write = make_lm("gpt2"), sampled_text.continue_rows
    whole = list(sequences(lm, "sampled", 9 * 128))
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(sampled_text, "continue_rows", dying(write, at))
    with pytest.raises(Killed):
        list(sequences(lm, "sampled", 9 * 128))
    written = []
    monkeypatch.setattr(sampled_text, "continue_rows", lambda *args: written.append(len(args[1])) or write(*args))
    assert list(sequences(lm, "sampled", 9 * 128)) == whole
    assert written == [2, 2, 1, 2, 2][at:]
    assert not list((tmp_path / "another").rglob("*.progress"))


def test_the_size_of_a_piece_changes_no_draw(make_lm, tmp_path, monkeypatch):
    texts = []
    for size in (1, 3, 128):
        monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / str(size)))
        monkeypatch.setattr(sampled_text, "PIECE", {"cpu": size})
        texts.append(list(sequences(make_lm("gpt2", dtype=torch.float64), "sampled", 5 * 128)))
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_a_killed_second_moment_goes_on_after_the_last_batch_to_the_bit(make_lm, text_file, tmp_path, monkeypatch, at):
    """Nine rows in batches of two."""
    monkeypatch.setattr(second_moment, "BATCH", 2)
    lm = make_lm("llama")
    forward, n_tokens = lm.forward, 9 * 128 // 48
    whole, _ = second_moments(lm, [1, 2], text_file, n_tokens)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(kept_progress, "SECONDS", 0.0)
    monkeypatch.setattr(kept_progress, "SHARE", 0.0)
    monkeypatch.setattr(lm, "forward", dying(forward, at))
    with pytest.raises(Killed):
        second_moments(lm, [1, 2], text_file, n_tokens)
    ran = []
    monkeypatch.setattr(lm, "forward", lambda *args: ran.append(len(args[0])) or forward(*args))
    moments, _ = second_moments(lm, [1, 2], text_file, n_tokens)
    assert all(torch.equal(moments[layer], whole[layer]) for layer in (1, 2))
    assert ran == [2, 2, 2, 2, 1][at:]
    assert not list((tmp_path / "another").rglob("*.progress"))

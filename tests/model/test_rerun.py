"""Shared prefixes change the cost of a forward pass, never its result: held against plain passes in float64."""

import logging

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache

from afteredit.model import rerun as prefix
from afteredit.model.kv_cache import keys_values
from afteredit.model.lm import LM
from afteredit.model.rerun import Replay

LAYER = 1
SUBJECTS = [
    ("China", ""),
    ("The sport that brought Joe DiMaggio", " to fame is"),
    ("It is written on the banknotes printed for Peru", " that their name is, and has always been, the"),
]
CASES = {
    "subject_first_in_one_row": SUBJECTS,
    "a_start_token_first": [("<s>" + front, back) for front, back in SUBJECTS],
    "no_row_has_a_prefix": [("China", " is a"), ("Peru", ""), ("Japan", " is known for its old and")],
    "beginnings_shared": [
        (f"{context} {subject}", back)
        for context in ("It is written on the banknotes printed for Peru.", "The sport that brought him to it.")
        for subject, back in (("China", " is"), ("the old Joe DiMaggio", " has always been the"), ("Peru", ""))
    ]
    + [("It is written on the", " banknotes"), ("China", " is"), ("Japan or Peru", " is")],
    "same_length": [("The mother tongue of Ann", " is"), ("The mother tongue of Bob", " is")],
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("float64_throughout")


@pytest.fixture(params=CASES)
def rows(request, exact_lm):
    """A float64 model, token rows of different lengths, each row's subject_last."""
    texts = CASES[request.param]
    ids = [exact_lm.tokens.encode(front + back) for front, back in texts]
    return exact_lm, ids, [len(exact_lm.tokens.encode(front)) - 1 for front, _ in texts]


def test_rows_are_longer_than_the_narrow_window(tokenizer):
    """Which is 9: before the subject's last token, and from there on."""
    front, back = map(len, tokenizer(list(SUBJECTS[2]), add_special_tokens=False).input_ids)
    assert front > 10 and back > 10


def test_what_rows_begin_with_alike_is_run_once(exact_lm, monkeypatch):
    texts, ran, forward = CASES["beginnings_shared"], [], exact_lm.forward
    ids = [exact_lm.tokens.encode(front + back) for front, back in texts]
    lasts = [len(exact_lm.tokens.encode(front)) - 1 for front, _ in texts]
    monkeypatch.setattr(exact_lm, "forward", lambda ids_BT, *given: ran.append(ids_BT) or forward(ids_BT, *given))
    Replay(exact_lm, ids, lasts, LAYER)
    heads, tails, _ = ran[-3:]  # before them a model is asked whether it can be cut
    assert len(heads) == 4  # two contexts, the beginning of one of them, and nothing
    assert heads.numel() + tails.numel() < 0.75 * len(ids) * max(lasts)


def offsets(lm, n_rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n_rows, lm.widths(LAYER)[0], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("whole", [None, True], ids=["cut", "whole"])
def test_replay_with_an_offset_is_the_plain_forward_pass(rows, plain_pass, whole):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER, whole=whole)
    assert replay._whole == bool(whole)  # no architecture here needs it
    offset_BD = offsets(lm, len(ids))
    hidden_BTD = replay.hidden(offset_BD)
    for i, (row, at) in enumerate(zip(ids, lasts, strict=True)):
        plain = plain_pass(lm, row, LAYER, at, offset_BD[i])
        assert_close(hidden_BTD[i, : len(row) - at], plain.hidden_TD[at:], rtol=1e-9, atol=1e-9)
        assert_close(replay.keys_BF[LAYER][i], plain.keys_TF[at], rtol=1e-9, atol=1e-9)
        assert_close(replay.values_BD[LAYER][i], plain.value_D, rtol=1e-9, atol=1e-9)


def test_one_offset_for_all_rows_is_added_to_each(rows):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    offset_D = offsets(lm, 1)[0]
    assert torch.equal(replay.hidden(offset_D), replay.hidden(offset_D.expand(len(ids), -1)))


def test_the_gradient_is_that_of_the_plain_forward_pass(rows, plain_pass):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    start_D = offsets(lm, 1)[0]

    def gradient(hidden_of):
        offset_D = start_D.clone().requires_grad_()
        weights_D = torch.linspace(-1, 1, len(offset_D), dtype=torch.float64)
        total = sum((hidden_of(offset_D, i) @ weights_D).sin().sum() for i in range(len(ids)))
        return torch.autograd.grad(total, offset_D)[0]

    shared_D = gradient(lambda offset_D, i: replay.hidden(offset_D)[i, : len(ids[i]) - lasts[i]])
    plain_D = gradient(lambda offset_D, i: plain_pass(lm, ids[i], LAYER, lasts[i], offset_D).hidden_TD[lasts[i] :])
    assert float(plain_D.norm()) > 1e-3
    assert_close(shared_D, plain_D, rtol=1e-8, atol=1e-8)


def test_a_zero_offset_is_the_models_own_forward(rows):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    hidden_BTD = replay.hidden(torch.zeros(lm.widths(LAYER)[0], dtype=torch.float64))
    for i, (row, at) in enumerate(zip(ids, lasts, strict=True)):
        own_TV = lm.model(input_ids=torch.tensor([row])).logits[0, at:]
        assert_close(lm.logits(hidden_BTD[i, : len(row) - at]), own_TV, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("whole", [False, True], ids=["cut", "whole"])
def test_rows_left_out_leave_the_others_what_they_were(rows, whole):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER, whole=whole)
    offset_BD, kept = offsets(lm, len(ids)), list(range(1, len(ids)))
    all_BTD = replay.hidden(offset_BD)
    replay.choose(kept)
    found_BTD = replay.hidden(offset_BD[kept])
    assert_close(found_BTD, all_BTD[kept, : found_BTD.shape[1]], rtol=1e-9, atol=1e-9)
    turned = list(reversed(range(len(ids))))  # and those that were left out come back
    replay.choose(turned)
    assert_close(replay.hidden(offset_BD[turned]), all_BTD[turned], rtol=1e-9, atol=1e-9)


def test_columns_that_are_padding_in_all_rows_chosen_are_not_run(rows, plain_pass):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    offset_BD = offsets(lm, len(ids))
    lengths = [len(row) - last for row, last in zip(ids, lasts, strict=True)]
    for width in sorted(set(lengths)):  # wider and wider
        chosen = [i for i, length in enumerate(lengths) if length <= width]
        replay.choose(chosen)
        hidden_BTD = replay.hidden(offset_BD[chosen])
        assert hidden_BTD.shape[1] == width
        for i, hidden_TD in zip(chosen, hidden_BTD, strict=True):
            expected_TD = plain_pass(lm, ids[i], LAYER, lasts[i], offset_BD[i]).hidden_TD[lasts[i] :]
            assert_close(hidden_TD[: lengths[i]], expected_TD, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("whole", [False, True], ids=["cut", "whole"])
@pytest.mark.parametrize("layer", [LAYER, -1], ids=["", "the last block"])
def test_what_is_read_of_hidden_states_is_what_all_of_them_say_there(rows, layer, whole):
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, layer % lm.n_blocks, whole=whole)
    offset_BD = offsets(lm, len(ids)).requires_grad_()
    places = sorted({(len(ids) - 1, 0), (0, 0), (0, len(ids[0]) - lasts[0] - 1)})  # each once, as an optimisation reads
    read = torch.tensor([row for row, _ in places]), torch.tensor([column for _, column in places])
    all_ND, few_ND = replay.hidden(offset_BD)[read], replay.hidden(offset_BD, read=read)
    assert_close(few_ND, all_ND, rtol=1e-9, atol=1e-9)
    few, alone = (torch.autograd.grad(of_ND.sin().sum(), offset_BD)[0] for of_ND in (few_ND, all_ND))
    assert_close(few, alone, rtol=1e-8, atol=1e-8)


def test_the_last_mlp_runs_only_where_it_is_read_or_the_log_says_once_that_it_does_not(exact_lm, caplog):
    ids, ran = exact_lm.tokens.encode("The mother tongue of Ann is"), []
    exact_lm.mlp_out(exact_lm.n_blocks - 1).register_forward_hook(lambda _m, args, _out: ran.append(args[0].shape[:2]))
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        replay = Replay(exact_lm, [ids, ids], [1, 1], LAYER)
        replay.hidden(offsets(exact_lm, 2), read=(torch.tensor([0, 1, 1]), torch.tensor([3, 2, 3])))
    is_the_block_itself = exact_lm.model.config.model_type == "opt"
    assert tuple(ran[-1]) == ((2, len(ids) - 1) if is_the_block_itself else (1, 3))
    assert caplog.text.count("MLP cannot be run on some tokens alone") == is_the_block_itself


@pytest.mark.parametrize("what", ["is called by name", "gives more"])
def test_an_mlp_that_cannot_be_run_in_places_runs_whole_and_the_log_says_so_once(make_lm, what, caplog, monkeypatch):
    lm = make_lm("llama", dtype=torch.float64)
    mlp, block = lm.anatomy.mlps[-1], lm.anatomy.blocks[-1]
    ids = lm.tokens.encode("The mother tongue of Ann is")
    read = torch.tensor([0, 0]), torch.tensor([1, 3])
    expected_ND = Replay(lm, [ids], [1], LAYER).hidden(offsets(lm, 1))[read]
    lm, own = LM(lm.model, lm.tokenizer), mlp.forward  # to be asked anew
    if what == "gives more":
        monkeypatch.setattr(mlp, "forward", lambda x: (own(x), None))
    block.mlp = Unpacked(mlp, by_name=what == "is called by name")
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        for _ in range(2):
            found_ND = Replay(lm, [ids], [1], LAYER).hidden(offsets(lm, 1), read=read)
    assert_close(found_ND, expected_ND, rtol=1e-9, atol=1e-9)
    assert caplog.text.count("MLP cannot be run on some tokens alone") == 1


class Unpacked(torch.nn.Module):
    """Calls an MLP as some architectures do."""

    def __init__(self, mlp, by_name: bool = False):
        super().__init__()
        self.mlp, self.by_name = mlp, by_name

    def forward(self, x_BTD):
        return self.mlp(x=x_BTD) if self.by_name else self.mlp(x_BTD)[0]


def test_blocks_above_are_not_run_to_be_recorded(exact_lm):
    ids, ran = exact_lm.tokens.encode("The mother tongue of Ann is"), []
    Replay(exact_lm, [ids], [0], LAYER)  # the model is asked whether it can be cut
    exact_lm.mlp_out(LAYER + 1).register_forward_hook(lambda *_: ran.append(1))
    replay = Replay(exact_lm, [ids, ids[:3]], [0, 0], LAYER)
    replay.choose([1])  # called with fewer columns
    assert not ran
    with pytest.raises(ValueError, match="above=True"):
        replay.hidden(offsets(exact_lm, 1), LAYER + 1)
    assert list(Replay(exact_lm, [ids], [0], LAYER, above=True).keys_BF) == list(range(LAYER, exact_lm.n_blocks))
    assert ran


def test_a_replay_can_be_run_again(rows):
    """The frozen cache is seen by every call and extended by none."""
    lm, ids, lasts = rows
    replay = Replay(lm, ids, lasts, LAYER)
    offset_BD = offsets(lm, len(ids))
    once = replay.hidden(offset_BD)
    replay.hidden(-offset_BD)
    assert torch.equal(replay.hidden(offset_BD), once)


def test_nothing_is_held_of_the_blocks_below(exact_lm):
    ids = exact_lm.tokens.encode("The mother tongue of Ann is")
    replay = Replay(exact_lm, [ids, ids[1:]], [len(ids) - 2, len(ids) - 3], 2)
    caches = [value for args, kwargs in replay._calls.values() for value in (*args, *kwargs.values())
              if isinstance(value, DynamicCache)]  # fmt: skip
    held = [tuple(keys.shape) for keys, _ in keys_values(caches[0])]
    assert held[:2] == [(2, 1, len(ids) - 2, 1)] * 2 and held[2][:3:2] == (2, len(ids) - 2) and held[2][3] > 1


def test_where_an_offset_does_not_join_the_stream_as_it_is_the_log_says_once_that_its_block_runs(exact_lm, caplog):
    ids = exact_lm.tokens.encode("The mother tongue of Ann is")
    replay = Replay(exact_lm, [ids], [len(ids) - 2], LAYER)
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        for _ in range(2):
            replay.hidden(torch.ones(exact_lm.widths(LAYER)[0], dtype=torch.float64))
    normalises = exact_lm.model.config.model_type == "gemma2"
    assert ["runs the edited block, too" in record.message for record in caplog.records] == [True] * normalises


def test_no_hook_is_left_behind(exact_lm):
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in exact_lm.model.modules())

    before, ids = hooks(), exact_lm.tokens.encode("The mother tongue of Ann is")
    Replay(exact_lm, [ids], [len(ids) - 2], LAYER).hidden(torch.ones(exact_lm.widths(LAYER)[0]))
    assert hooks() == before


def running_mean(_module, _args, output: torch.Tensor) -> torch.Tensor:
    """Causal, but of all positions in front, which no cache of keys and values knows."""
    return output + output.cumsum(1) / torch.arange(1, output.shape[1] + 1)[:, None]


class Remembers:
    """A block's output depends on how often the block was run."""

    def __init__(self):
        self.n_calls = 0

    def __call__(self, _module, _args, output: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        return output * (1 + self.n_calls % 2)


@pytest.mark.parametrize("hook", [running_mean, Remembers()], ids=["running mean", "remembers"])
def test_a_model_that_cannot_be_cut_is_run_whole_and_the_log_says_so_once(make_lm, hook, plain_pass, caplog):
    lm = make_lm("llama", dtype=torch.float64)
    lm.anatomy.blocks[2].register_forward_hook(hook)
    ids, lasts = [[5, 9, 7, 30, 11, 8], [4, 6, 12]], [3, 1]
    with caplog.at_level(logging.INFO, logger="afteredit.model"):
        replays = [Replay(lm, ids, lasts, LAYER) for _ in range(2)]
    assert all(replay._whole for replay in replays)
    assert len(caplog.records) == 1 and "LlamaForCausalLM: its blocks cannot be run again" in caplog.text
    if hook is not running_mean:  # no two passes of it are alike
        return
    offset_BD = offsets(lm, 2)
    hidden_BTD = replays[0].hidden(offset_BD)
    for i, (row, at) in enumerate(zip(ids, lasts, strict=True)):
        plain = plain_pass(lm, row, LAYER, at, offset_BD[i])
        assert_close(hidden_BTD[i, : len(row) - at], plain.hidden_TD[at:], rtol=1e-9, atol=1e-9)


def test_a_model_is_asked_once(make_lm, monkeypatch):
    lm, asked, ask = make_lm("gpt2"), [], prefix._replays
    monkeypatch.setattr(prefix, "_replays", lambda *given: asked.append(1) or ask(*given))
    for layer in (1, 2):
        assert not Replay(lm, [[5, 9, 7]], [1], layer)._whole
    assert len(asked) == 1

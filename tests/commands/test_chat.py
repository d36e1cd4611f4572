"""Talking to a run: each prompt is answered by both models with their own greedy text; nothing is stored."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from afteredit import run as program
from afteredit.record.terminal import PlainConsole, visible
from afteredit.run import main

PROMPTS = ("Fenrir is a famous character in", "The town has a")


@pytest.fixture(scope="module")
def made(tmp_path_factory, save_tiny_llama, few_facts):
    """A run of two edits, and the folder of its model."""
    folder = tmp_path_factory.mktemp("chat")
    save_tiny_llama(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFTEREDIT_CACHE", str(folder / "cache"))
        overrides = ["method=ft", "method.layers=[0,1]", "method.steps=4", "n_edits=2", "held_out_tokens=64",
                     few_facts]  # fmt: skip
        assert main(["model=hf", f"model.source={folder}/model", *overrides, "task=none", "tracker=none", "device=cpu",
                     f"runs={folder}/runs"]) == 0  # fmt: skip
        (run,) = (folder / "runs").iterdir()
        yield run, folder / "model"


@pytest.fixture
def talk(made, monkeypatch):
    """talk(what is typed, *overrides) -> the exit code."""
    run, model = made

    def typed(text: str, *overrides: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return main([f"replay.run={run}", f"model.source={model}", "task=none", "held_out_tokens=64", "device=cpu",
                     *overrides])  # fmt: skip

    return typed


def state_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def greedy_text(folder: Path, tokenizer, prompt: str) -> str:
    """Returns what the model in a folder writes after a prompt, by a plain loop."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = list(tokenizer(prompt).input_ids)
    new: list[int] = []
    while len(new) < 100 and tokenizer.eos_token_id not in new:
        with torch.no_grad():
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return str(tokenizer.decode(new, skip_special_tokens=True))


def test_prompts_from_a_pipe_are_answered_by_both_models_and_nothing_is_stored(made, talk, capsys, tmp_path, tokenizer):
    run, model = made
    before = state_of(run)
    assert talk("\n".join(["", *PROMPTS, ""]), "replay.at=2", "replay.chat=true") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert state_of(run) == before
    assert talk("", "replay.at=2", f"replay.export={tmp_path}/edited") == 0
    for prompt in PROMPTS:
        place = lines.index(f"> {prompt}")
        texts = (greedy_text(folder, tokenizer, prompt) for folder in (model, tmp_path / "edited"))
        unedited, edited = (visible(" ".join(text.split())) for text in texts)
        assert unedited != edited
        assert lines[place + 1 : place + 3] == [f"unedited: {unedited}", f"after 2 edits: {edited}"]


def test_in_a_terminal_the_answers_stand_side_by_side(made, talk, monkeypatch, tokenizer):
    console = PlainConsole(force_terminal=True, width=100, file=io.StringIO(), record=True)
    monkeypatch.setattr(program, "new_console", lambda _x: console)
    assert talk(PROMPTS[0], "replay.at=2", "replay.chat=true") == 0
    frames = console.export_text().split("┏")[1:]
    columns = [[cell.split() for cell in line.split("│")[1:3]] for line in frames[-1].splitlines() if line[:1] == "│"]
    assert len(frames) > 1 and "unedited" in frames[0] and "after 2 edits" in frames[0]  # they grow
    answer = "".join(visible(greedy_text(made[1], tokenizer, PROMPTS[0]).strip()).split())
    assert "".join(word for left, _ in columns for word in left) == answer
    assert "".join(word for _, right in columns for word in right) not in ("", answer)


def test_a_prompt_that_is_too_long_is_named_and_the_next_one_answered(talk, capsys):
    assert talk("word " * 2000 + "\nThe town\n", "replay.at=1", "replay.chat=true") == 0
    said = capsys.readouterr()
    assert "and the model reads 1024; give a shorter one" in " ".join(said.err.split())
    assert said.out.count("unedited:") == 1 and said.out.count("after 1 edit:") == 1 + 1  # the weights, the answer


@pytest.mark.parametrize(
    ("overrides", "said"),
    [(["replay.chat=true"], "replay.run with replay.chat; allowed"),
     (["replay.at=1", "replay.chat=true", "replay.export=x"], "replay.at and replay.export and replay.chat; allowed"),
     (["replay.at=7", "replay.chat=true"], "replay.at=7, but")],
)  # fmt: skip
def test_what_cannot_be_talked_to_is_refused(talk, capsys, overrides, said):
    assert talk("", *overrides) == 2
    assert said in " ".join(capsys.readouterr().err.split())

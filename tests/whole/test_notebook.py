"""The notebook runs from top to bottom, offline, on a tiny model."""

from __future__ import annotations

import json
import socket
import sys
from types import ModuleType

import rich.console

from afteredit.launch import command_line
from afteredit.launch.command_line import compose
from afteredit.tests.house.source import ROOT

CELLS = json.loads((ROOT / "docs" / "first_edit.ipynb").read_text(encoding="utf-8"))["cells"]


def test_the_cells_run_in_order_and_without_a_network(save_tiny_llama, tmp_path, monkeypatch, capsys):
    save_tiny_llama(tmp_path / "model")
    (tmp_path / "text.txt").write_text("The old town has a market, and people come to buy fish and bread.\n" * 30)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as ipykernel has it
    monkeypatch.setattr(socket.socket, "connect", lambda *_: (_ for _ in ()).throw(OSError("no network here")))
    tiny = ["model=hf", f"model.source={tmp_path}/model", f"method.second_moment_text={tmp_path}/text.txt",
            "method.tokens_per_key_dim=2", "method.layer=1", "method.value_steps=4", "method.contexts_short=2",
            "method.contexts_long=0", "limit=3", "held_out_tokens=64", "device=cpu"]  # fmt: skip

    def with_tiny_model(overrides: list[str]):
        if overrides[0].startswith("replay.run="):
            return compose([*overrides, tiny[1]])
        return compose([*(key for key in overrides if not key.startswith("model=")), *tiny])

    monkeypatch.setattr(command_line, "compose", with_tiny_model)
    names: dict = {}
    for cell in CELLS:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102
    assert list(names["table"]["n_edits"]) == [0, 1] and "ability/nli" in names["table"]
    assert names["before"] != names["after"]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    said = capsys.readouterr().out
    assert names["prompts"][0] in said and "after 1" in said  # of the run
    assert "\x1b" not in said and " 0/1 " not in said  # plain text, no bar

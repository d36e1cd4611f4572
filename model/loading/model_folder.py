"""Checks a model's folder, which a stranger may have made, before anything is loaded from it.

Its files must be plain and whole, name each other and nothing outside, and hold plain numbers in the shapes that
config.json asks for.  Symbolic links, of which the hub's snapshots are made, are followed to plain files.
"""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afteredit.store.errors import BadInput, out_of_memory
from afteredit.store.rows.stand_ins import refuse_stand_in

READ = {".json", ".safetensors", ".model", ".txt", ".jinja", ".py"}  # suffixes of the files that transformers reads
NO_MARK = {"vocab.txt", "merges.txt", "vocab.json", "added_tokens.json", "special_tokens_map.json", "tokenizer.json"}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64", "F32", "F16", "BF16"}
EMPTY = "DeepSpeed saves so what it has not gathered: let zero_to_fp32.py write the whole model, and give that"
LENGTH_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")  # by architecture
N_BLOCKS = re.compile(r"n_layers?|num_(hidden_)?layers")
ACTIVATIONS = {"hidden_act", "hidden_activation", "activation_function"}
EPSILON = re.compile(r"(^|_)(eps|epsilon)$")
ROPES = {"rope_scaling", "rope_parameters"}
OTHER_PARTS = {"vision_config", "audio_config"}  # their ropes and activations are not the text model's
CODE_IN_FOLDER = re.compile(r"\w+\.\w+")
PACKED = re.compile(r"\.(qweight|qzeros|SCB|absmax|quant_map|_?weight_(packed|qdata|scale|scale_inv)|weight\._\w+)$")

Headers = dict[str, tuple[str, tuple[int, ...]]]  # by tensor, its type and shape


def check_folder(folder: Path, *, trust_remote_code: bool) -> Headers:
    """Returns the type and shape of every tensor of the weights.  Raises BadInput, naming the file, where the folder
    is none that can be loaded."""
    for file in (file for file in sorted(folder.iterdir()) if file.suffix in READ):
        if not file.is_file():
            raise BadInput(f"{file} is no plain file (a link to nowhere, a folder, a pipe?); give a whole model")
        refuse_stand_in(file)
        if file.name in NO_MARK and file.read_bytes().startswith(BOM_UTF8):
            raise BadInput(f"{file} begins with a byte-order mark, which the tokenizer would take for a part of it; "
                           "save it as UTF-8 without one")  # fmt: skip
    if (folder / "adapter_config.json").exists():
        raise BadInput(f"{folder} holds an adapter (adapter_config.json), whose base model lies elsewhere; merge the "
                       "two (peft: merge_and_unload) and give the folder of the merged model")  # fmt: skip
    config = _read_json(folder / "config.json")
    _check_config(config, folder / "config.json")
    _check_numbers(config, folder / "config.json")
    _check_kind(config, folder / "config.json")
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):  # transformers may drop the last
        if (folder / name).is_file():
            _refuse_code_from_elsewhere(_read_json(folder / name), folder / name, trust_remote_code)
    if (folder / "tokenizer_config.json").is_file():
        _refuse_tokenizer_from_elsewhere(_read_json(folder / "tokenizer_config.json"), folder)
    headers = _headers(folder, config)
    for key, n in _values(config):
        if N_BLOCKS.fullmatch(key) and n is not None and not (type(n) is int and 1 <= n <= len(headers)):
            raise BadInput(f"{folder / 'config.json'}: {key}={n!r}, but the weights hold {len(headers)} tensors; a "
                           "model has at least one block, and every block at least one tensor")  # fmt: skip
    return headers


def check_shapes(model: Any, headers: Headers, folder: Path) -> None:
    """Raises BadInput where a tensor of the weights has another shape than the parameter of its name in `model`."""
    prefix = f"{model.base_model_prefix}."
    for name, parameter in model.named_parameters():
        _, shape = headers.get(name) or headers.get(name.removeprefix(prefix)) or ("", tuple(parameter.shape))
        if shape != tuple(parameter.shape):
            why = "they are of different models" if 0 not in shape else EMPTY
            raise BadInput(f"{folder}: config.json makes {name} {tuple(parameter.shape)}, but in the weights it is "
                           f"{shape}; {why}")  # fmt: skip


def _read_json(file: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        part = dict(pairs)
        if len(part) < len(pairs):  # JSON would let the last one win
            names = [name for name, _ in pairs]
            raise BadInput(f"{file} gives {max(names, key=names.count)!r} more than once; take out all but one")
        return part

    try:
        content = json.loads(file.read_bytes().decode("utf-8"), object_pairs_hook=once)
    except BadInput:
        raise
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"{file} is no JSON that can be read ({problem}); fetch it again") from None
    if not isinstance(content, dict):
        raise BadInput(f"{file} holds a {type(content).__name__} where a JSON object is expected; fetch it again")
    return content


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    """Yields every object, however deep."""
    rest = [content]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            yield part
        rest += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []


def _values(content: Any) -> Iterator[tuple[str, Any]]:
    """Yields every key and value, however deep."""
    yield from (pair for part in _parts(content) for pair in part.items())


def _check_numbers(config: dict[str, Any], file: Path) -> None:
    """Raises BadInput where a number cannot be, or where the rope is told in two ways."""
    for key, value in _values(config):
        infinite = [each for each in (value if isinstance(value, list) else [value])
                    if isinstance(each, float) and not math.isfinite(each)]  # fmt: skip
        if infinite and not key.endswith("_limit"):  # Mamba's time steps have no upper limit
            raise BadInput(f"{file}: {key}={infinite[0]!r}; give a finite number")
        if EPSILON.search(key) and isinstance(value, int | float) and not 0 <= value < 1:
            raise BadInput(f"{file}: {key}={value!r}; an epsilon is at least 0 and below 1; give the model's own")
    for part in _parts(config):
        rope = part.get("rope_parameters")
        if not isinstance(rope, dict) or not rope:
            continue
        for key in ("rope_theta", "rope_scaling"):
            other = part.get(key)
            told = rope if key == "rope_scaling" else rope.get(key)
            if None not in (other, told) and other != told:
                raise BadInput(f"{file}: {key}={other!r}, but rope_parameters={rope!r}, which takes its place; make "
                               "the two agree, or delete one")  # fmt: skip


def _check_config(config: dict[str, Any], file: Path) -> None:
    """Raises BadInput where the model is of another kind or packed, or the config names what transformers has not."""
    from transformers.activations import ACT2FN
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if config.get("is_encoder_decoder"):
        raise BadInput(f"{file}: {config.get('model_type')} is an encoder-decoder; only decoder-only models can be "
                       "edited here")  # fmt: skip
    known = {"activation": ACT2FN, "rope": {"default", "mrope", *ROPE_INIT_FUNCTIONS}}
    text = list(_values({key: value for key, value in config.items() if key not in OTHER_PARTS}))
    ropes = [value for key, value in text if key in ROPES and isinstance(value, dict)]
    for key, value in _values(config):
        if key in ("quantization_config", "compression_config") and value:
            kind = value.get("quant_method", "") if isinstance(value, dict) else value
            raise BadInput(f"{file}: the weights are quantised ({key}: {kind}); edits need plain numbers; give the "
                           "model that was not quantised")  # fmt: skip
        if key.endswith("attn_implementation") and "/" in str(value):
            raise BadInput(f"{file}: {key}={value!r} is code of the hub, which no folder may ask for; delete the key")
    for key, value in [*text, *(("rope_type", rope["type"]) for rope in ropes if "type" in rope)]:
        kind = "activation" if key in ACTIVATIONS else "rope" if key == "rope_type" else ""
        if kind and value is not None and not (isinstance(value, str) and value in known[kind]):
            raise BadInput(f"{file}: {key}={value!r} is no {kind} that transformers knows; known are "
                           f"{', '.join(sorted(known[kind]))}")  # fmt: skip


def _check_kind(config: dict[str, Any], file: Path) -> None:
    """Raises BadInput where `model_type` and `architectures` name different models, or a length is below one token: of
    the model, or of a sliding window that is not switched off."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

    kind, named = config.get("model_type"), config.get("architectures")
    kinds = [known for known, name in CLASSES.items() if isinstance(named, list) and name in named]
    fitting = {known.removesuffix("_text") for known in kinds}
    if kinds and not config.get("auto_map") and kind in list(CLASSES) and kind.removesuffix("_text") not in fitting:
        raise BadInput(f"{file}: model_type={kind!r}, but architectures={named} goes with model_type="
                       f"{' or '.join(map(repr, kinds))}; say which of them the weights are")  # fmt: skip
    for key, value in _values(config):
        if key in LENGTH_KEYS and isinstance(value, int) and value < 1:
            raise BadInput(f"{file}: {key}={value!r}; a model reads at least one token; give its length, or delete the "
                           "key")  # fmt: skip
    for part in _parts(config):
        window = part.get("sliding_window")
        if isinstance(window, int | float) and window < 1 and part.get("use_sliding_window") is not False:
            raise BadInput(f"{file}: sliding_window={window!r}; a window holds at least one token; give its length, or "
                           "null for none")  # fmt: skip


def _refuse_code_from_elsewhere(content: dict[str, Any], file: Path, trust_remote_code: bool) -> None:
    for place, value in _values({"auto_map": content.get("auto_map")}):
        for name in value if isinstance(value, list) else [value]:
            if name is None or isinstance(name, dict) or CODE_IN_FOLDER.fullmatch(str(name)):
                continue
            if "--" in str(name) and not trust_remote_code:  # as every fine-tuned copy names its original: not read
                continue
            raise BadInput(f"{file}: auto_map names {place}: {name!r}; code is taken from the model's own folder alone "
                           "(file.Class)")  # fmt: skip


def _refuse_tokenizer_from_elsewhere(content: dict[str, Any], folder: Path) -> None:
    """Raises BadInput where a key names a file outside; special_tokens_map_file, a relic, is not read."""
    for key, value in content.items():
        names = value if isinstance(value, list) else [value]
        if key.endswith(("_file", "_files")) and key != "special_tokens_map_file":
            for name in names:
                _inside(folder, name, f"{folder / 'tokenizer_config.json'}: {key}")


def _inside(folder: Path, name: Any, place: str) -> None:
    if name is not None and not (isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name):
        raise BadInput(f"{place} names {name!r}; only files of the model's own folder are read, by their plain names")


def _headers(folder: Path, config: dict[str, Any]) -> Headers:
    """Returns what all safetensors files that will be loaded hold."""
    named = config.get("transformers_weights")
    _inside(folder, named, f"{folder / 'config.json'}: transformers_weights")
    files = [folder / name for name in (named, WEIGHTS, INDEX) if name and (folder / name).is_file()]
    if not files:
        raise BadInput(f"weights not found: looked for {str(folder)!r} ({WEIGHTS} or {INDEX}, which are not there; "
                       "other formats can run code and are not read). Give model.source=<folder with config.json and "
                       "safetensors>")  # fmt: skip
    if files[0].suffix == ".safetensors":
        return _header(files[0])
    weight_map = _read_json(files[0]).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(f"{files[0]} holds no weight_map; fetch it again")
    headers: Headers = {}
    for name in dict.fromkeys(map(str, weight_map.values())):
        _inside(folder, name, f"{files[0]}: weight_map")
        if not (folder / name).is_file():
            raise BadInput(f"weights not found: {files[0]} names {name!r}, which is not there; fetch it")
        headers |= _header(folder / name)
    lost = [name for name in weight_map if name not in headers]
    if lost:
        raise BadInput(f"{files[0]} says that {lost[0]!r} is in {weight_map[lost[0]]!r}, where it is not; fetch both")
    return headers


def _header(file: Path) -> Headers:
    """Returns type and shape of each tensor of one file.  Raises BadInput where it is broken or quantised."""
    from safetensors import SafetensorError, safe_open

    headers: Headers = {}
    try:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (it is no dict)
                part = tensors.get_slice(name)
                headers[name] = part.get_dtype(), tuple(part.get_shape())
    except (SafetensorError, OSError, ValueError) as problem:
        raise problem if out_of_memory(problem) else BadInput(f"{file} is broken ({problem}); fetch it again") from None
    if not headers:
        raise BadInput(f"{file} holds no tensor; fetch it again")
    packed = [n for n, (kind, _) in headers.items()
              if PACKED.search(n) or (n.endswith(".weight") and kind not in FLOATS)]  # fmt: skip
    if packed:
        raise BadInput(f"{file}: the weights are quantised ({packed[0]}, {headers[packed[0]][0]}); edits need plain "
                       "numbers; give the model that was not quantised")  # fmt: skip
    return headers

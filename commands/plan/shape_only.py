"""The model of a plan: its published shape on the meta device, without weights, with its tokenizer or a stand-in."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from afteredit.commands.plan.counted_lm import CountedLM
from afteredit.model.loading.gguf_config import settings_of
from afteredit.model.loading.gguf_header import parts_of, read_header
from afteredit.model.loading.model_source import ModelSource
from afteredit.store.errors import BadInput
from afteredit.store.rows.row_files import EMBEDDED
from afteredit.store.user_cache import cache_folder

log = logging.getLogger(__name__)
CHARACTERS = 4  # of one token, where no tokenizer is at hand


def config_of(shape: dict[str, Any]) -> Any:
    """Returns the config of a published shape (conf/model); GPT-2's and GPT-J's leave F to be found (4 D)."""
    settings: dict[str, Any] = {"n_layer": shape["blocks"], "n_embd": shape["width"], "n_head": shape["heads"]}
    if shape["family"] not in ("gpt2", "gptj"):
        settings = {"num_hidden_layers": shape["blocks"], "hidden_size": shape["width"],
                    "intermediate_size": shape["inner"], "num_attention_heads": shape["heads"],
                    "num_key_value_heads": shape.get("key_value_heads", shape["heads"]),
                    "tie_word_embeddings": shape.get("tied", False)}  # fmt: skip
    return AutoConfig.for_model(shape["family"], vocab_size=shape["vocabulary"], **settings)


def without_weights(model: ModelSource, dtype: str, device: str, separator: str, texts: Iterable[str]) -> CountedLM:
    """Returns the model with the run's dtype and device in name only.  `texts` are cut where no tokenizer is at hand.

    Raises BadInput where the shape cannot be known.
    """
    folder = _folder(model.source)
    config = config_of(model.shape) if model.shape else _config(model, folder)
    tokenizer = _tokenizer(model.source, folder)
    counted = tokenizer is None
    if tokenizer is None:
        tokenizer = cut_by_characters(texts, config.get_text_config().vocab_size)
    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype),
                                                 trust_remote_code=model.trust_remote_code)  # fmt: skip
        start, prompt = (None, "plain") if counted else (model.start_token, model.prompt.value)
        lm = CountedLM(shell, tokenizer, start_token=start, prompt=prompt, separator=separator)
    lm.planned_device, lm.is_estimated = torch.device(device), counted
    lm.vocabulary = config.get_text_config().vocab_size
    lm.fingerprint = _known_fingerprint(model, dtype) or lm.fingerprint
    return lm


def _known_fingerprint(model: ModelSource, dtype: str) -> str | None:
    """Returns the fingerprint of a model whose own text is shipped (data/sampled_text), None of any other: without its
    weights it cannot be computed."""
    said = {"source": model.source, "start_token": model.start_token, "prompt": model.prompt.value, "dtype": dtype}
    models = json.loads((EMBEDDED / "sampled_text" / "models.json").read_text(encoding="utf-8"))
    return next((fingerprint for fingerprint, parts in models.items() if parts == said), None)


def _folder(source: str) -> Path | None:
    """Returns the folder or file of the model on this disk, if it has one that need not be made first."""
    if source.startswith("package:"):
        made = sorted((cache_folder() / "models").glob(f"{source.partition(':')[2]}-*/config.json"))
        return made[-1].parent if made else _gguf_of(source.partition(":")[2])
    path = Path(source).expanduser()
    return path if path.exists() else None


def _gguf_of(package: str) -> Path | None:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places = list(spec.submodule_search_locations or []) if spec else []
    return next(iter(sorted(path for place in places for path in Path(place).rglob("*.gguf"))), None)


def _config(model: ModelSource, folder: Path | None) -> Any:
    try:
        if folder is not None and folder.is_file():
            settings = settings_of(read_header(parts_of(folder)), str(folder))
            return AutoConfig.for_model(**settings)
        return AutoConfig.from_pretrained(folder or model.source, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError, KeyError) as problem:
        raise BadInput(f"plan: the shape of model.source={model.source} is not known ({_short(problem)}); give a "
                       "folder with config.json, a hub id that this machine reaches, or a model of "
                       "conf/model") from None  # fmt: skip


def _tokenizer(source: str, folder: Path | None) -> Any:
    """Returns the model's own tokenizer where it lies on this disk, else None."""
    if folder is not None and folder.is_file():  # converted already?
        made = sorted((cache_folder() / "models").glob(f"{folder.stem}-*/tokenizer.json"))
        folder = made[-1].parent if made else None
        if folder is None:
            return None
    try:
        return AutoTokenizer.from_pretrained(folder or source, local_files_only=True)
    except Exception:  # noqa: BLE001  transformers raises whatever it meets
        return None


def cut_by_characters(texts: Iterable[str], n_tokens: int) -> Any:
    """Returns a tokenizer that cuts a text into pieces of CHARACTERS letters; the commonest of `texts` are tokens
    of their own."""
    backend = Tokenizer(models.WordLevel(unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(rf"[^\S\n]*\S{{1,{CHARACTERS}}}|\s"), "isolated")
    special = ["?", "</s>"]
    backend.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=n_tokens, special_tokens=special))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def _short(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]

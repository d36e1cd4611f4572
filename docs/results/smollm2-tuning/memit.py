"""Which blocks and weights MEMIT and AlphaEdit need on SmolLM2, on training rows that nothing is evaluated on.

    python docs/results/smollm2-tuning/memit.py METHOD ROWS.jsonl SKIP N "key=value;key=value" …

METHOD: memit or alphaedit.  ROWS: counterfact_train.jsonl; rows SKIP to SKIP + N.  Each further argument is one
configuration of the method's keys.  Every fact edits the unedited model.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path

from afteredit.edit.editor import Editor
from afteredit.edit.method import Given
from afteredit.edit.request import EditRequest
from afteredit.evaluate.inference.held_out import held_out_windows
from afteredit.evaluate.metrics.drift import drift
from afteredit.evaluate.metrics.editing_success import means, respond, success_scores
from afteredit.launch.command_line import CONF, compose
from afteredit.store.rows.row_files import read_rows


def main() -> None:
    name, path, skip, n, *configurations = sys.argv[1:]
    base = compose([f"method={name}", "task=none", "tracker=none"])
    lm = base.model.load("cpu", "float32")
    rows = islice(read_rows(Path(path)), int(skip), int(skip) + int(n))
    facts = [_request(row.value) for row in rows]
    before = respond(lm, facts)
    held_out = held_out_windows(lm, (CONF.parent / "data" / "heldout.txt").read_text(encoding="utf-8"), 512)
    for configuration in configurations:
        overrides = [f"method.{pair}" for pair in configuration.split(";")]
        method = compose([f"method={name}", "task=none", "tracker=none", *overrides]).method
        prepared = method.prepare(lm, Given(0, list))
        editor = Editor(lm, method, base.constraint, prepared, planned=facts, single=True)
        samples, numbers, perplexity = [], [], []
        started = time.perf_counter()
        for fact in facts:
            editor.begin([fact])
            update = editor.write([fact])
            editor.apply([fact], update)
            samples += success_scores(lm, respond(lm, [fact]), before)
            perplexity.append(drift(lm, held_out)["drift/perplexity"])
            numbers.append(update.diagnostics)
        result = {
            "method": name, "configuration": configuration, "facts": len(facts),
            "seconds": round(time.perf_counter() - started, 1), "perplexity": round(sum(perplexity) / len(facts), 2),
            **{key: round(sum(d[key] for d in numbers) / len(numbers), 3) for key in sorted(numbers[0])},
            **{k.removeprefix("single/"): round(v, 3) for k, v in means(samples, "single").items()},
        }  # fmt: skip
        print(json.dumps(result), flush=True)


def _request(row: dict) -> EditRequest:
    return EditRequest(
        id=str(row["case_id"]), subject=row["subject"], prompt=row["prompt"], target_new=row["target_new"],
        target_true=row["target_true"], neighbourhood=(row["locality_prompt"],),
        neighbourhood_answers=(row["locality_answer"],),
    )  # fmt: skip


if __name__ == "__main__":
    main()

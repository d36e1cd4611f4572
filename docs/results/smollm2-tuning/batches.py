"""Which keys a method needs on a model, on rows of CounterFact that are used for nothing else.

    python docs/results/smollm2-tuning/batches.py METHOD DATA N BATCH "key=value;key=value" … >> METHOD.jsonl

MODEL, a variable of the environment, says another model than smollm2: "model=<name> model.source=<file>".

DATA: the folder of counterfact_reduced.jsonl, counterfact.jsonl, counterfact_train.jsonl and
published/counterfact_3k.json.  The facts are the last N of the reduced file whose subject stands in none of the others.
Each further argument is one configuration of the method's keys.  Every batch edits the unedited model.
"""

import json
import os
import sys
import time
from pathlib import Path

from afteredit.edit.editor import Editor
from afteredit.edit.method import Given
from afteredit.evaluate.inference.held_out import held_out_windows
from afteredit.evaluate.metrics.drift import drift
from afteredit.evaluate.metrics.editing_success import means, respond, success_scores
from afteredit.launch.command_line import CONF, compose
from afteredit.store.rows.row_files import read_rows

WITH_PERPLEXITY = 4  # of so many batches one is asked for its perplexity


def main() -> None:
    name, data, n, size, *configurations = sys.argv[1:]
    model = os.environ.get("MODEL", "model=smollm2").split()
    base = compose([*model, f"method={name}", "edits=counterfact", "edits.file=counterfact_reduced.jsonl", "task=none",
                    "tracker=none"])  # fmt: skip
    elsewhere = subjects(Path(data))
    requests, _ = base.edits.read(data, 0)
    facts = [request for request in requests if request.subject.lower() not in elsewhere][-int(n) :]
    lm = base.model.load("cpu", "float32")
    before = respond(lm, facts)
    held_out = held_out_windows(lm, (CONF.parent / "data" / "heldout.txt").read_text(encoding="utf-8"), 256)
    for configuration in configurations:
        method = compose([*model, f"method={name}", "task=none", "tracker=none",
                          *(f"method.{pair}" for pair in configuration.split(";"))]).method  # fmt: skip
        editor = Editor(lm, method, base.constraint, method.prepare(lm, Given(0, list)), planned=facts, single=True)
        samples, numbers, perplexity, seconds = [], [], [], 0.0
        for start in range(0, len(facts), int(size)):
            batch = facts[start : start + int(size)]
            editor.begin(batch)
            started = time.perf_counter()
            update = editor.write(batch)
            seconds += time.perf_counter() - started
            editor.apply(batch, update)
            samples += success_scores(lm, respond(lm, batch), before)
            numbers.append(update.diagnostics)
            if len(numbers) % WITH_PERPLEXITY == 1:
                perplexity.append(drift(lm, held_out)["drift/perplexity"])
        editor.begin([])
        result = {
            "configuration": configuration, "facts": len(facts), "batch": int(size),
            "edit_s": round(seconds / len(facts), 2),
            "perplexity": round(sum(perplexity) / len(perplexity), 2),
            **{key: round(sum(d[key] for d in numbers) / len(numbers), 3) for key in sorted(numbers[0])},
            **{k.removeprefix("single/"): round(v, 3) for k, v in means(samples, "single").items()},
        }  # fmt: skip
        print(json.dumps(result), flush=True)


def subjects(data: Path) -> set[str]:
    """Returns the subjects of the files that methods are trained, measured or tuned on elsewhere, in small letters."""
    names = ("counterfact.jsonl", "counterfact_train.jsonl", "published/counterfact_3k.json")
    rows = [row.value for name in names for row in read_rows(data / name)]
    return {(row.get("requested_rewrite") or row)["subject"].lower() for row in rows}


if __name__ == "__main__":
    main()

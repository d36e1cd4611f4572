"""The unedited model on the eight abilities: score, 95 % interval, chance; and ROUGE of answers paired with other rows.

python docs/results/abilities/measure.py [key=value …]      (the keys of run.py: data=…, limit=…, model=…)
"""

import json
import sys
import time
from dataclasses import asdict

from afteredit.evaluate.abilities.answer_scores import rouge_mean
from afteredit.evaluate.abilities.build import build_tasks
from afteredit.evaluate.intervals import interval
from afteredit.evaluate.retention import measurable
from afteredit.launch.command_line import compose


def main() -> None:
    x = compose(sys.argv[1:])
    lm = x.model.load("cpu", x.settings.dtype.value)
    for built in build_tasks(x.tasks, x.settings):
        started = time.perf_counter()
        scores = built.measure(lm)
        row, examples = scores.row, scores.examples
        chance = built.ability.chance
        low, high = interval([e.numerator for e in examples], [e.denominator for e in examples])
        samples = [{"kind": "ability", "name": built.name, **asdict(e)} for e in examples]
        result = {
            "ability": built.name, "rows": len(examples), "chance": chance,
            **{k: round(v, 4) for k, v in row.items()},
            "interval": [round(low, 3), round(high, 3)],
            "above_chance": bool(measurable(samples, {built.name: chance})),
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        if built.name == "summarization":
            docs = [instance.doc for instance in built.task.instances]
            answers = [instance.resps[0] for instance in built.task.instances]
            shifted = [rouge_mean(doc, [answers[(i + 7) % len(answers)]])["rouge"] for i, doc in enumerate(docs)]
            result["rouge_of_other_rows"] = round(sum(shifted) / len(shifted), 4)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

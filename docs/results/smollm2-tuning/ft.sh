#!/usr/bin/env bash
# FT on SmolLM2: block, step size and cap, on ten training rows of CounterFact that nothing is evaluated on.
#   bash docs/results/smollm2-tuning/ft.sh FOLDER_WITH_counterfact_train.jsonl > ft.jsonl
set -euo pipefail
for keys in "layers=[0] learning_rate=5e-4 max_change=5e-4" "layers=[8] learning_rate=5e-4 max_change=5e-4" \
    "layers=[8] learning_rate=2e-3 max_change=2e-3" "layers=[21] learning_rate=1e-3 max_change=1e-3"; do
  runs=$(mktemp -d)
  # shellcheck disable=SC2086
  python run.py method=ft $(printf 'method.%s ' $keys) edits=counterfact edits.file=counterfact_train.jsonl \
    'edits.columns=${edits.train_columns}' "data=$1" setting=single n_edits=10 eval_every=10 task=none tracker=none \
    held_out_tokens=512 "runs=$runs" > "$runs/log"
  python - "$runs" "$keys" <<'PY'
import json, pathlib, sys
(path,) = pathlib.Path(sys.argv[1]).glob("*/results-*.jsonl")
row = json.loads(path.read_text().splitlines()[-1])
kept = {k: round(v, 4) for k, v in row.items() if k.startswith(("editing/immediate", "drift/perplexity"))}
print(json.dumps({"configuration": sys.argv[2], **kept}), flush=True)
PY
done

#!/usr/bin/env bash
# Block and hyper-parameters of ROME on SmolLM2: single edits of rows of counterfact_reduced.jsonl (in DATA), which are
# used for nothing else.  One line of results per configuration: bash tune.sh DATA > tuning.jsonl
set -eu
data=$1
root=$(cd "$(dirname "$0")/../../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
n=${N:-10}
try() {
  local runs; runs=$(mktemp -d)
  "$python" "$root/run.py" method.contexts_short=10 method.contexts_long=10 edits=counterfact edits.file=counterfact_reduced.jsonl data="$data" task=none setting=single \
    tracker=none held_out_tokens=256 n_edits=$n eval_every=$n runs="$runs" "$@" >/dev/null 2>&1
  "$python" - "$runs" "$@" <<'PY'
import glob, json, sys
row = [json.loads(line) for line in open(glob.glob(sys.argv[1] + "/*/results-*.jsonl")[0])][-1]
edits = [json.loads(line) for line in open(glob.glob(sys.argv[1] + "/*/edits.jsonl")[0])]
mean = lambda key: round(sum(e["diagnostics"][key] for e in edits) / len(edits), 3)
short = {k.removeprefix("editing/immediate/"): round(v, 3) for k, v in row.items() if k.startswith("editing/immediate")}
print(json.dumps({"config": sys.argv[2:], **short, "edit_s": round(sum(e["edit_s"] for e in edits) / len(edits), 2),
                  **{k: mean(k) for k in ("steps", "kl", "offset_over_value", "cos_bare_key", "bare_key_share")}}), flush=True)
PY
  rm -rf "$runs"
}
try "model.start_token=\"<|endoftext|>\""
try method.value_steps=12
try method.layer=5
try method.contexts_short=5 method.contexts_long=5

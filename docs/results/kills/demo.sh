#!/usr/bin/env bash
# The demo left alone, and the demo killed twice (SIGKILL, at seeded moments) and run again: do they end alike?
#   bash docs/results/kills/demo.sh FOLDER SEED [KEY=VALUE …]     further keys win over the demo's
# FOLDER gets both run directories; the last line says whether weights, rows, edits and samples are identical.
set -euo pipefail
folder=$1 seed=$2
shift 2
demo=(n_edits=20 eval_every=5 limit=24 held_out_tokens=1024 "$@")

began=$(date +%s)
python run.py "${demo[@]}" "runs=$folder/alone" >"$folder.alone.log" 2>&1
seconds=$(($(date +%s) - began))
echo "left alone: $seconds s"

for share in $(python -c "import random; r = random.Random($seed); print(r.uniform(.15, .45), r.uniform(.15, .45))"); do
  moment=$(python -c "print($share * $seconds)")
  python run.py "${demo[@]}" "runs=$folder/killed" >>"$folder.killed.log" 2>&1 &
  sleep "$moment"
  kill -KILL $! && echo "killed after $moment s, $(cat "$folder"/killed/*/edits.jsonl 2>/dev/null | wc -l) edits made"
  wait $! || true
done
python run.py "${demo[@]}" "runs=$folder/killed" >>"$folder.killed.log" 2>&1
python docs/results/kills/compare.py "$folder"/alone/* "$folder"/killed/*

#!/usr/bin/env bash
# GPT-J's shape on one GPU: what an edit, a checkpoint and everything else take, and the memory.
#   bash docs/results/full-size/run.sh FOLDER_OF_MAKE_PY METHOD N_EDITS [key=value …]
# The first of two runs makes the method's constants, which the second, the one that counts, finds in the cache.
set -euo pipefail
folder=$1 method=$2 n_edits=$3
shift 3
runs=runs/full-size/$(date +%s)
common=("method=$method" model=gptj "model.source=$folder" device=cuda dtype=bfloat16 tracker=none "$@")
python run.py "${common[@]}" n_edits=1 eval_every=1 task=none held_out_tokens=64 "runs=$runs/first"
started=$EPOCHREALTIME
python run.py "${common[@]}" "n_edits=$n_edits" eval_every=5 "runs=$runs/counted"
python docs/results/full-size/share.py "$runs"/counted/"$method"-* "$started" "$EPOCHREALTIME" | tee -a "$runs/shares.jsonl"

#!/usr/bin/env bash
# Thirty real CounterFact facts one after another, four abilities measured before the first and after every five.
#   bash docs/results/findings/run.sh FOLDER_OF_THE_REAL_ROWS [VARIANT …]
# Stopped or killed, the same command goes on where it was.
set -euo pipefail
data=$1
shift
declare -A variants=(
  [rome]="method=rome"
  [rome_identity]="method=rome method.second_moment=identity"
  [rome_asymmetric]="method=rome method.keys=asymmetric"
  [rome_published]="method=rome_published"
  [memit]="method=memit"
  [memit_seq]="method=memit_seq"
  [alphaedit]="method=alphaedit"
  [rome_rect]="method=rome constraint=rect constraint.keep=0.4"
  [kn]="method=kn n_edits=5"
)
for name in "${@:-rome_published rome rome_identity rome_asymmetric memit memit_seq alphaedit rome_rect kn}"; do
  for variant in $name; do
    # shellcheck disable=SC2086
    python run.py n_edits=30 ${variants[$variant]} edits=counterfact "data=$data" eval_every=5 limit=100 \
      'task=[sentiment,ner,dialogue,summarization]' tracker=none "runs=runs/findings/$variant"
  done
done

#!/usr/bin/env bash
# Every method on real CounterFact rows, each edit on the unedited SmolLM2: what the table of methods is made of.
#   bash docs/results/methods/run.sh FOLDER_OF_THE_REAL_ROWS [METHOD …]
# Stopped or killed, the same command goes on where it was.
set -euo pipefail
data=$1
shift
for method in "${@:-rome memit memit_seq alphaedit ft kn mend}"; do
  for name in $method; do
    case $name in kn | mend) rows=25 ;; *) rows=100 ;; esac
    python run.py "method=$name" edits=counterfact "data=$data" setting=single "n_edits=$rows" "eval_every=$rows" \
      task=none tracker=none held_out_tokens=512 runs=runs/methods
  done
done

#!/usr/bin/env bash
# The study of Gu et al. (EMNLP 2024): runs what runs.tsv lists and is not kept here yet, and keeps it.
#   bash docs/results/study/run.sh list                               what is missing, and how long that would take
#   bash docs/results/study/run.sh FOLDER_OF_THE_REAL_ROWS [MODEL [NAME …]]
# SmolLM2 runs two at a time, one thread each; a model of which a GGUF file is given, alone with two threads:
#   QWEN=<file.gguf> bash docs/results/study/run.sh FOLDER qwen2.5-coder-0.5b
# Run it in a clone of its own: a run refuses to go on under other code.  Stopped or killed, the same command goes on.
set -euo pipefail
here=docs/results/study
python=${PYTHON:-python}

missing() { # [model [name …]]: the lines of runs.tsv that are not kept
  local model=${1:-} names=" ${*:2} "
  grep -v '^#' "$here/runs.tsv" | while IFS=$'\t' read -r of name minutes tasks overrides; do
    [[ -n $model && $of != "$model" ]] && continue
    [[ $names != "  " && $names != *" $name "* ]] && continue
    compgen -G "$here/$of/$name/*/results-*.jsonl" >/dev/null || printf '%s\t%s\t%s\t%s\t%s\n' "$of" "$name" "$minutes" "$tasks" "$overrides"
  done
}

one() { # model, name, tasks, overrides: runs it to its end, once for each scoring, then keeps it
  local model=$1 name=$2 runs=runs/study/$1/$2 more=("model=$1" limit=32)
  [[ $model == smollm2 ]] && more=("model=$1" limit=64)
  [[ -e runs/$model.gguf ]] && more+=("model.source=runs/$model.gguf")
  echo "$(date +%H:%M) begins $model $name"
  for task in $3; do # the second goes through the same edits again, from the journal
    # shellcheck disable=SC2086
    if ! $python run.py "${more[@]}" data=runs/rows tracker=none "runs=$runs" $4 "task=$task" >>"$runs.log" 2>&1; then
      echo "$(date +%H:%M) FAILED $model $name: $runs.log"
      return
    fi
  done
  $python "$here/keep.py" "$runs" "$here/$model/$name"
  echo "$(date +%H:%M) keeps $model $name"
}

if [[ ${1:-} == list ]]; then
  missing "${@:2}" | awk -F'\t' '{print $1, $2, $3 " min"; sum += $3} END {printf "%d missing, %.1f hours in one thread\n", NR, sum / 60}'
  exit
fi
data=$(realpath "$1")
mkdir -p runs/study
ln -sfn "$data" runs/rows
model=${2:-smollm2}
mkdir -p "runs/study/$model"
[[ -n ${QWEN:-} ]] && ln -sfn "$(realpath "$QWEN")" "runs/$model.gguf"
threads=2 jobs=1
[[ $model == smollm2 ]] && threads=1 jobs=2
export OMP_NUM_THREADS=$threads TQDM_DISABLE=1 here python
export -f one
missing "$model" "${@:3}" | cut -f1,2,4,5 | xargs -d '\n' -P "$jobs" -I{} bash -c 'IFS=$'"'\t'"' read -r model name tasks overrides <<<"{}"; one "$model" "$name" "$tasks" "$overrides"'

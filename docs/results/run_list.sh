#!/usr/bin/env bash
# Runs what docs/results/<list>/runs.tsv lists and is not kept there yet, in its order, and keeps it.  The lists are study and limits:
#   bash docs/results/limits/run.sh list [MODEL [NAME …]]          what is missing, and how long that would take
#   bash docs/results/limits/run.sh FOLDER_OF_THE_REAL_ROWS [MODEL [FILE.gguf] [NAME …]]
# SmolLM2 runs two at a time, one thread each; 1,000 edits and more, and every other model, alone with two threads.
# A run that is alone has MINUTES (140) for its constants, its edits and all scorings: what it reached by then is kept as unfinished,
# and goes on where its NAME is given.
# NAME_to_1950 raises the edits of the run NAME, and is kept in its place.
# Run it in a clone of its own: a run refuses to go on under other code.  Stopped or killed, the same command goes on.
set -euo pipefail
list=$1
shift
here=docs/results/$list
python=${PYTHON:-python}

place() { echo "$here/$1/${2%_to_*}"; } # model, name: where it is kept

state() { # model, name: kept, unfinished (with the edits that it reached), or missing
  local place
  place=$(place "$1" "$2")
  if [[ -e $place/$2.unfinished ]]; then
    echo "unfinished $(<"$place/$2.unfinished")"
  elif compgen -G "$place/*/results-*.jsonl" >/dev/null && [[ $2 != *_to_* || -e $place/$2.kept ]]; then
    echo kept
  else
    echo missing
  fi
}

n_edits() { sed -nE 's/.*n_edits=([0-9]+).*/\1/p' <<<"$1"; } # overrides

alone() { # model, overrides
  local n
  n=$(n_edits "$2")
  [[ $1 != smollm2 || ${n:-0} -ge 1000 ]]
}

missing() { # [model [name …]]: the lines of runs.tsv that are not kept, with their state in front
  local model=${1:-} names=" ${*:2} " is
  grep -v '^#' "$here/runs.tsv" | while IFS=$'\t' read -r of name minutes tasks overrides; do
    [[ -n $model && $of != "$model" ]] && continue
    [[ $names != "  " && $names != *" $name "* ]] && continue
    is=$(state "$of" "$name")
    [[ $is == kept ]] || printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$is" "$of" "$name" "$minutes" "$tasks" "$overrides"
  done
}

left() { # second at which a run was started: the seconds that remain of its time
  awk -v minutes="${MINUTES:-140}" -v gone=$(($(date +%s) - $1)) 'BEGIN {left = 60 * minutes - gone; print (left > 1) ? left : 1}'
}

one() { # model, name, tasks, overrides: runs it to its end, once for each scoring, then keeps it
  local model=$1 name=$2 runs=runs/$list/$1/${2%_to_*} more=("model=$1" limit=32) ended
  local place started within=()
  place=$(place "$model" "$name")
  [[ $model == smollm2 ]] && more=("model=$1" limit=64)
  [[ -e runs/$model.gguf ]] && more+=("model.source=runs/$model.gguf")
  started=$(date +%s)
  echo "$(date +%H:%M) begins $model $name"
  for task in $3; do # the second goes through the same edits again, from the journal
    ended=0
    alone "$model" "$4" && within=(timeout "$(left "$started")")
    # shellcheck disable=SC2086
    "${within[@]}" $python run.py "${more[@]}" data=runs/rows tracker=none "runs=$runs" $4 "task=$task" >>"$runs.log" 2>&1 || ended=$?
    if [[ $ended != 0 && $ended != 124 ]]; then # 124: its time was over; it has stopped after a whole batch
      echo "$(date +%H:%M) FAILED $model $name: $runs.log"
      return
    fi
    [[ $ended == 124 ]] && break
  done
  $python docs/results/keep_examples.py "$runs" "$place"
  if [[ $ended == 124 ]]; then
    tail -n 1 "$place"/*/edits.jsonl | sed -nE 's/.*"n_edits": ([0-9]+).*/\1/p' >"$place/$name.unfinished"
  elif [[ $name == *_to_* ]]; then
    touch "$place/$name.kept"
  fi
  echo "$(date +%H:%M) keeps $model $name$([[ $ended == 124 ]] && echo ", unfinished")"
}

if [[ ${1:-} == list ]]; then
  missing "${@:2}" | while IFS=$'\t' read -r is of name minutes tasks overrides; do
    printf '%s\t%s\t%s\t%s\t%s\n' "$is" "$of" "$name" "$minutes" "$(n_edits "$overrides")"
  done | awk -F'\t' '{left = $4; if (split($1, reached, " ") == 2 && $5) left = $4 * (1 - reached[2] / $5)
    print $2, $3, int(left + 0.5) " min" (reached[2] ? ", " $1 " edits of " $5 : ""); sum += left}
    END {printf "%d missing, %.1f hours\n", NR, sum / 60}'
  exit
fi
data=$(realpath "$1")
mkdir -p "runs/$list"
ln -sfn "$data" runs/rows
model=${2:-smollm2}
mkdir -p "runs/$list/$model"
names=()
for word in "${@:3}"; do
  if [[ $word == *.gguf ]]; then ln -sfn "$(realpath "$word")" "runs/$model.gguf"; else names+=("$word"); fi
done
export TQDM_DISABLE=1
while IFS=$'\t' read -r is of name _ tasks overrides; do
  [[ $is == unfinished* && ${#names[@]} == 0 ]] && continue
  if alone "$of" "$overrides"; then
    wait
    OMP_NUM_THREADS=2 one "$of" "$name" "$tasks" "$overrides" </dev/null
  else
    while [[ $(jobs -rp | wc -l) -ge 2 ]]; do wait -n || true; done
    OMP_NUM_THREADS=1 one "$of" "$name" "$tasks" "$overrides" </dev/null &
  fi
done < <(missing "$model" ${names[@]+"${names[@]}"})
wait

# Thirty edits (CounterFact) of three methods on SmolLM2, and what a model rounded to few bits keeps of them.  Started again it goes on.
#
#   bash docs/results/rounded/run.sh OUT FOLDER_OF_THE_REAL_ROWS
#
# OUT: the folder for the runs.  One process, one thread.  table.py makes the page's table of OUT/*/*.
set -e
OUT=$1 DATA=$2
python=${PYTHON:-python}
export OMP_NUM_THREADS=1
measured=("task=[dialogue,summarization,ner,sentiment]" limit=32 "data=$DATA" tracker=none)

for method in rome memit alphaedit; do
  $python run.py method=$method edits=counterfact n_edits=30 eval_every=30 "${measured[@]}" "runs=$OUT/$method"
  for after in int8 int4; do
    $python run.py replay.run="$(echo "$OUT/$method"/*)" replay.at=30 replay.after=$after "${measured[@]}"
  done
done

# Traces, and ROME's edits block by block, of three models: one process, one thread.  Started again it goes on.
#
#   bash docs/results/locate/run.sh OUT TEXT.txt [QWEN.gguf [GEMMA.gguf]]
#
# Beside Qwen's every third block: block 2, which the study edits, 6, a quarter of the way up, and the one that the trace
# proposes.
#
# OUT: the folder that rows are kept in.  TEXT.txt: what C is estimated on (WikiText-2's test text here).  QWEN.gguf:
# Qwen2.5-Coder-0.5B-Instruct; GEMMA.gguf: Gemma 3 270M.  Three draws of noise instead of ten.  DTYPE=bfloat16 is faster
# where the processor multiplies in it, and several times slower elsewhere; README.md holds it against float32.  Qwen's and
# Gemma's edits take one short and one long prefix: an edit with the usual twenty takes minutes there.
set -e
OUT=$1 TEXT=$2 dtype=${DTYPE:-float32}
python=${PYTHON:-python}
export OMP_NUM_THREADS=1
mkdir -p "$OUT"
few=(method.contexts_short=1 method.contexts_long=1)

one() { # name, edits a block, every so many blocks (with + those beside them), the model's keys
  name=$1 edits=$2 every=$3
  shift 3
  $python run.py locate=trace "$@" dtype=$dtype locate.samples=3 locate.out="$OUT" locate.name="$name" tracker=none
  proposed=$($python -c 'import json, sys; print(json.load(open(sys.argv[1]))["proposed"]["rome.layer"])' \
    "$OUT/$name-trace.json")
  $python docs/results/locate/blocks.py "$OUT/$name-blocks.jsonl" "$edits" "${every/P/$proposed}" "$@" dtype=$dtype \
    method.second_moment_text="$TEXT"
}

one smollm2 20 1 model=smollm2
[ -z "$3" ] || one qwen2.5-coder-0.5b 10 3+P,2,6 model=qwen2.5-coder-0.5b model.source="$3" "${few[@]}"
[ -z "$4" ] || one gemma-3-270m 20 1 model=hf model.source="$4" "${few[@]}"
models=()
for name in smollm2 ${3:+qwen2.5-coder-0.5b} ${4:+gemma-3-270m}; do
  models+=("$name" "$OUT/$name-trace.json" "$OUT/$name-blocks.jsonl")
done
$python docs/results/locate/picture.py "$OUT/blocks.png" "${models[@]}"

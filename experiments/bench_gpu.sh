#!/usr/bin/env bash
# Runs all benchmarks of a GPU within ten minutes, without network access:
#
#   OUT=DIR bash experiments/bench_gpu.sh [--size=gpu]
#
# Compares the kernels with NumPy, then runs each case beside the installed peers, within its own
# time limit, and writes bench_NAME.json, a log and a trace into $OUT. A case that fails or takes too
# long does not stop the others. PYTHON is the interpreter.
set -u
cd "$(dirname "$0")/.."
out="${OUT:-runs/bench_gpu}"
python="${PYTHON:-python3}"
size="${1:---size=gpu}"
scale="${LIMIT_SCALE:-1}"
# jax and PyTorch share the memory of the GPU
export XLA_PYTHON_CLIENT_PREALLOCATE=false
mkdir -p "$out"

limited() {  # seconds, name, flags
  local seconds=$(($1 * scale)) name=$2
  shift 2
  local start=$SECONDS status=0
  timeout "$seconds" "$python" -m experiments.benchmarks.bench_gpu "$name" "$@" >"$out/$name.log" 2>&1 || status=$?
  echo "== $name: status $status after $((SECONDS - start)) s"
  grep -E '^(\||least|[a-z, ]+: [0-9])' "$out/$name.log" || tail -n 3 "$out/$name.log"
  return "$status"
}

failed=0
limited 60 check || { echo "the kernels are wrong on this device"; failed=1; }
bench() { limited "$1" "$2" "$size" --out="$out" --trace || failed=1; }
bench 60 verify
bench 60 mds
bench 60 global
bench 30 global_one
bench 60 local
bench 30 binary
bench 110 train
bench 60 extract_r50_7
bench 50 extract_r50_3
exit "$failed"

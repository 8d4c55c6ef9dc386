#!/usr/bin/env bash
# On a machine with an H100: the GPU suites, the benchmark, or any command with the libraries in place.
#   run.sh test [GTEST OPTION…]
#   run.sh bench [--compare-hf] [OPTION OF penstock bench…]
#                                     --compare-hf: then transformers' decode, on the same card
#   run.sh serving [OPTION…]          the server over gRPC against the engine: tests/bench/gpu_serving.py
#   run.sh agreement [OPTION…]        the engine's tokens against transformers': tests/parity/gpu_agreement.py
#   run.sh PROGRAM [ARGUMENT…]        a program of bin/
# TORCH=folder names torch's package (default: the one that python3 imports); BIN=folder the programs (default: bin/
# beside this file).
set -euo pipefail
usage() { sed -n '2,/^set/s/^# //p' "${BASH_SOURCE[0]}"; }
case ${1:-} in
  --help | -h) usage; exit 0 ;;
  '') usage >&2; exit 2 ;;
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
torch=${TORCH:-$(python3 -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")')}
[ -n "$torch" ] || { echo "run.sh: python3 has no torch; set TORCH to the folder of one" >&2; exit 1; }
bin=${BIN:-$here/bin}
suites=${SUITES:-$here/gpu_suites.txt}

nvidia=$(dirname "$torch")/nvidia
path=$here/lib:$torch/lib
for part in cu13 cudnn nccl cusparselt nvshmem; do path=$path:$nvidia/$part/lib; done
export LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

# In a bundle the tests' programs lie beside this file.
tests=$here/tests
[ -d "$tests" ] || tests=$here/../../tests
export PENSTOCK_BUILD=${PENSTOCK_BUILD:-$(dirname "$bin")}

case ${1:-} in
  test)
    shift
    # In shards side by side: most of a suite's time its CPU twins take. Each shard's output stays in one piece.
    shards=8 failed='' logs=$(mktemp -d)
    trap 'rm -rf "$logs"' EXIT
    for program in $(cat "$suites"); do
      echo "== $program"
      for shard in $(seq 0 $((shards - 1))); do
        GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard "$bin/$program" --gtest_brief=1 "$@" > "$logs/$shard" 2>&1 &
        echo $! > "$logs/$shard.pid"
      done
      for shard in $(seq 0 $((shards - 1))); do
        wait "$(cat "$logs/$shard.pid")" || failed="$failed $program"
        cat "$logs/$shard"
      done
    done
    if [ -n "$failed" ]; then
      echo "failed:$failed" >&2
      exit 1
    fi
    ;;
  bench)
    shift
    compare=false
    [ "${1:-}" != --compare-hf ] || { compare=true; shift; }
    "$bin/penstock" bench "$here/qwen1.5-moe-a2.7b" --load-format dummy --device cuda "$@"
    if $compare; then python3 "$tests/bench/gpu_transformers.py" --config "$here/qwen1.5-moe-a2.7b"; fi
    ;;
  serving) exec python3 "$tests/bench/gpu_serving.py" "${@:2}" ;;
  agreement) exec python3 "$tests/parity/gpu_agreement.py" "${@:2}" ;;
  *) exec "$bin/$1" "${@:2}" ;;
esac

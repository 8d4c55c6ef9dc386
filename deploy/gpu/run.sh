#!/usr/bin/env bash
# On a machine with an H100: the GPU suites, the benchmark, or any command with the libraries in place.
#   run.sh test [GTEST OPTION…]
#   run.sh bench [OPTION OF penstock bench…]
#   run.sh serving [OPTION…]          the server over gRPC against the engine: tests/bench/gpu_serving.py
#   run.sh PROGRAM [ARGUMENT…]        a program of bin/
# TORCH=folder names torch's package (default: the one that python3 imports); BIN=folder the programs (default: bin/
# beside this file).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
torch=${TORCH:-$(python3 -c 'import torch; print(torch.__path__[0])')}
bin=${BIN:-$here/bin}
suites=${SUITES:-$here/gpu_suites.txt}

nvidia=$(dirname "$torch")/nvidia
path=$here/lib:$torch/lib
for part in cu13 cudnn nccl cusparselt nvshmem; do path=$path:$nvidia/$part/lib; done
export LD_LIBRARY_PATH=$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

case ${1:-} in
  test)
    shift
    failed=
    for program in $(cat "$suites"); do
      echo "== $program"
      "$bin/$program" --gtest_brief=1 "$@" || failed="$failed $program"
    done
    if [ -n "$failed" ]; then
      echo "failed:$failed" >&2
      exit 1
    fi
    ;;
  bench)
    shift
    exec "$bin/penstock" bench "$here/qwen1.5-moe-a2.7b" --load-format dummy --device cuda "$@"
    ;;
  serving)
    shift
    # In a bundle it lies beside this file.
    script=$here/bench/gpu_serving.py
    [ -f "$script" ] || script=$here/../../tests/bench/gpu_serving.py
    PENSTOCK_BUILD=$(dirname "$bin") exec python3 "$script" "$@"
    ;;
  '') sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
  *) exec "$bin/$1" "${@:2}" ;;
esac

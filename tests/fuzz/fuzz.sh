#!/usr/bin/env bash
# Builds the libFuzzer targets and runs each for FUZZ_SECONDS (60) on its kept corpus, tests/fuzz/corpus/TARGET. A crash is
# kept in build/fuzz/TARGET.crash-… and fails the run; its input, once mended, joins the corpus.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
jobs=${1:-$(nproc)}
seconds=${FUZZ_SECONDS:-60}
build=$top/build/fuzz
targets="safetensors_fuzz model_config_fuzz tokenizer_fuzz router_json_fuzz config_fuzz"

mkdir -p "$build"
CC=clang-14 CXX=clang++-14 cmake -G Ninja -Wno-dev -S "$top" -B "$build" -DPENSTOCK_TORCH=OFF -DPENSTOCK_FUZZ=ON \
  -DPENSTOCK_SANITIZE=fuzzer-no-link,address,undefined > "$build/configure.log"
# shellcheck disable=SC2086
ninja -C "$build" -j"$jobs" $targets

run() {
  local target=$1 grown=$build/corpus/$1
  mkdir -p "$grown"
  "$build/bin/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="$build/$target." "$grown" "$top/tests/fuzz/corpus/$target" > "$build/$target.log" 2>&1
}
export -f run
export build top seconds
passed=0 failed=0
pids=()
for target in $targets; do
  run "$target" & pids+=($!)
  # As many at a time as there are cores.
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do sleep 0.2; done
done
i=0
for target in $targets; do
  if wait "${pids[$i]}"; then
    passed=$((passed + 1))
    echo "$target: $(grep -o 'stat::number_of_executed_units: *[0-9]*' "$build/$target.log" | grep -o '[0-9]*$') inputs"
  else
    failed=$((failed + 1))
    echo "$target FAILED:"
    tail -n 40 "$build/$target.log"
  fi
  i=$((i + 1))
done
echo "fuzz: $passed passed, $failed failed"
[ "$failed" = 0 ]

#!/usr/bin/env bash
# The torch-free tests under AddressSanitizer with UBSan, then scheduler, engine, experiments and rpc under ThreadSanitizer.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=${1:-$(nproc)}
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
# A long history: where the other access of a race has no stack left, no suppression matches it.
export TSAN_OPTIONS="suppressions=$top/tests/support/tsan.supp halt_on_error=1 second_deadlock_stack=1 history_size=7 \
print_suppressions=0"

# suite NAME SANITIZERS PROGRAM…: builds the programs with the sanitizers and runs their tests.
suite() {
  local build=$top/build/$1 sanitizers=$2
  shift 2
  mkdir -p "$build"
  cmake -G Ninja -Wno-dev -S "$top" -B "$build" -DPENSTOCK_TORCH=OFF -DPENSTOCK_SANITIZE="$sanitizers" \
    -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 -g1" > "$build/configure.log"
  ninja -C "$build" -j"$jobs" "$@"
  local pattern
  pattern="^($(IFS='|'; echo "$*")):"
  ctest --test-dir "$build" --output-on-failure --no-tests=error -j"$jobs" -R "$pattern"
}

suite asan address,undefined base_test config_test telemetry_test experiments_test guardrails_test \
  experiment_ledger_test kvcache_test scheduler_test \
  checkpoint_test tokenizer_test router_package_test engine_test http_test live_experiments_test
suite tsan thread scheduler_test engine_test live_experiments_test rpc_test

#!/usr/bin/env bash
# The figures of BENCHMARKS.md on this machine's CPU: tables to be pasted there. `bench.sh serving` leaves out the comparison
# with transformers, the longer part.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PENSTOCK_BUILD=${PENSTOCK_BUILD:-$top/build/release}
deps=${PENSTOCK_DEPS:-$HOME/.cache/penstock/deps}
model=$top/build/demo-model
[ -f "$model/routers/.complete" ] || "$top/deploy/demo/demo.sh" > /dev/null

echo "$(nproc) cores of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1); load before: $(cut -d' ' -f1 /proc/loadavg)"
echo
/usr/bin/python3 "$top/tests/bench/serving.py" --model "$model"
[ "${1:-}" != serving ] || exit 0
echo
"$deps/oracle/bin/python" "$top/tests/bench/hf_compare.py" --model "demo=$model" --model d512=random
echo
# 10,000 experiments, as on that page, take ten times as long: minutes of two cores.
"$PENSTOCK_BUILD/bin/experiment_simulation" 1000
echo
"$PENSTOCK_BUILD/bin/ledger_simulation" 1000 1500 3
echo
"$PENSTOCK_BUILD/bin/ledger_simulation" switchback 1000 1000 3
echo
"$PENSTOCK_BUILD/bin/assignment_bench"

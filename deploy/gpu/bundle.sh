#!/usr/bin/env bash
# Gathers what a GPU machine runs, from a build that was made without one:
#   bundle.sh BUILD FOLDER
# FOLDER gets the server and the GPU suites, stripped, the Debian libraries that they link to, and run.sh. LibTorch with
# its CUDA libraries is not in it: run.sh takes the machine's own (torch 2.11 for CUDA 13).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 folder=$2

rm -rf "$folder"
mkdir -p "$folder/bin" "$folder/lib" "$folder/tests/bench" "$folder/tests/parity"
cp -r "$here/run.sh" "$here/qwen1.5-moe-a2.7b" "$folder/"
tests=$here/../../tests
cp "$tests"/bench/{serving,gpu_serving,gpu_transformers}.py "$folder/tests/bench/"
cp "$tests"/parity/{forward_oracle,gpu_agreement}.py "$folder/tests/parity/"
cp "$build/gpu_suites.txt" "$folder/"
for program in penstock penstock-bench forward_probe libdevice_trap.so $(cat "$build"/gpu_{suites,benches}.txt); do
  strip -o "$folder/bin/$program" "$build/bin/$program"
done

# The system's own (libc, libstdc++, …) and LibTorch's stay out.
ldd "$folder"/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|libgomp)\.so' |
  grep -vE '/(torch|nvidia)/|/libtorch-|/cuda-' |
  while read -r library; do cp -L "$library" "$folder/lib/"; done
du -sh "$folder" | cut -f1 | sed 's/$/ in '"${folder//\//\\/}"'/'

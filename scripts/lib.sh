# Sourced by the scripts beside it: names and small words they share. Bash.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ROOT=$PWD
BIN_DIR=$ROOT/target/vpcnet
TOOLS_DIR=$ROOT/target/tools
VENV_DIR=$ROOT/target/venv
ARCH=$(uname -m)
GNU_TARGET=$ARCH-unknown-linux-gnu
MUSL_TARGET=$ARCH-unknown-linux-musl

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

# Whether the standard library of a target is there, by whichever means Rust was installed.
has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

# The target of the plugin: musl where it can be had; else glibc, also linked statically. The latter starts 0.35 ms later.
plugin_target() { if has_target "$MUSL_TARGET"; then echo "$MUSL_TARGET"; else echo "$GNU_TARGET"; fi; }

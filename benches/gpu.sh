#!/bin/sh
# Checks on this machine that the shaders equal the scalar law bit for bit, measures fingerprints and
# merges on CPU and GPU, and ends in one table. Downloads nothing.
#
#   benches/gpu.sh [ADAPTER]
#
# ADAPTER is a part of the adapter's name; without it the first real adapter is taken, and a software
# adapter (llvmpipe) only when named. QIS names the binary (default target/release/qis, which is
# built, offline, where it is missing); QIS_GPU_TEST a test binary of tests/gpu.rs to run first;
# QIS_SMALL=1 leaves out the large jobs, for software adapters.
set -eu
cd "$(dirname "$0")/.."
qis=${QIS:-target/release/qis}
if [ ! -x "$qis" ]; then
    cargo build --release --offline
fi
adapter=${1:-}
if [ -n "${QIS_GPU_TEST:-}" ]; then
    QIS_REQUIRE_GPU=1 QIS_TEST_ADAPTER=$adapter "$QIS_GPU_TEST"
fi

on_gpu() {
    if [ -n "$adapter" ]; then
        "$qis" "$@" --backend gpu --adapter "$adapter"
    else
        "$qis" "$@" --backend gpu
    fi
}

echo "known answer and adapters:"
if [ -n "$adapter" ]; then
    "$qis" doctor --adapter "$adapter" || echo "(some checks failed; the measurements below say what they need)"
else
    "$qis" doctor || echo "(some checks failed; the measurements below say what they need)"
fi

results=$(mktemp)
trap 'rm -f "$results"' EXIT
measure() {
    echo "measuring: $*" >&2
    "$qis" bench "$@" --backend cpu --threads 1 --json >>"$results"
    "$qis" bench "$@" --backend cpu --json >>"$results"
    # A result that is not bit for bit that of the scalar law ends the script here.
    on_gpu bench "$@" --json >>"$results"
}
measure fingerprint --packets 10000
measure merge --packets 10000 --queries 1
measure merge --packets 10000 --queries 64
if [ "${QIS_SMALL:-0}" != 1 ]; then
    measure fingerprint --packets 1000000
    measure merge --packets 10000 --queries 4096
    measure merge --packets 1000000 --queries 64
fi

echo
awk '
function text(key,   at) {
    at = index($0, "\"" key "\":\"") ; if (!at) return ""
    value = substr($0, at + length(key) + 4) ; return substr(value, 1, index(value, "\"") - 1)
}
function number(key,   at) {
    at = index($0, "\"" key "\":") ; return substr($0, at + length(key) + 3) + 0
}
BEGIN { printf "%-12s %-8s %7s %14s %12s %14s  %s\n", "task", "backend", "threads", "items", "ms", "items/s", "adapter" }
{ printf "%-12s %-8s %7d %14.0f %12.3f %14.4g  %s\n", text("task"), text("backend"), number("threads"),
      number("items"), 1000 * number("seconds"), number("items_per_second"), text("adapter") }
' "$results"

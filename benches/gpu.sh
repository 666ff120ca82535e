#!/bin/sh
# Checks on this machine that the shaders equal the scalar law bit for bit, measures the tasks A to D
# of `qis bench` on CPU and GPU with torch beside them where it is installed, and ends in one table
# with the time of kernels and of transfers apart. Downloads nothing.
#
#   benches/gpu.sh [ADAPTER]
#
# ADAPTER is a part of the adapter's name; without it the first real adapter is taken, and a software
# adapter (llvmpipe) only when named. QIS names the binary (default target/release/qis, which is
# built, offline, where it is missing); QIS_GPU_TEST a test binary of tests/gpu.rs to run first;
# PYTHON the Python that may have torch (default python3); QIS_SMALL=1 leaves out the large jobs, for
# software adapters.
set -eu
cd "$(dirname "$0")/.."
qis=${QIS:-target/release/qis}
if [ ! -x "$qis" ]; then
    cargo build --release --offline
fi
adapter=${1:-}
if [ -n "${QIS_GPU_TEST:-}" ]; then
    QIS_REQUIRE_GPU=1 QIS_TEST_ADAPTER=$adapter "$QIS_GPU_TEST"
else
    echo "QIS_GPU_TEST names no test binary: only the results measured below are checked"
fi

echo "known answer and adapters:"
"$qis" doctor ${adapter:+--adapter "$adapter"} ||
    echo "(some checks failed; the measurements below say what they need)"

results=$(mktemp)
trap 'rm -f "$results"' EXIT
measure() {
    echo "measuring: $*" >&2
    "$qis" bench "$@" --backend cpu --threads 1 --json >>"$results"
    "$qis" bench "$@" --backend cpu --json >>"$results"
    # A result that is not bit for bit that of the scalar law ends the script here.
    "$qis" bench "$@" --backend gpu ${adapter:+--adapter "$adapter"} --json >>"$results"
}
small=
if [ "${QIS_SMALL:-0}" = 1 ]; then
    small=--small
    measure fingerprint --packets 10000
    measure merge --no-skip --packets 10000 --queries 64
    measure ragged --no-skip --addresses 200
    measure query --no-skip --packets 1000
    measure query --no-skip --packets 10000
else
    measure fingerprint
    measure fingerprint --packets 8000000
    measure merge --no-skip
    measure merge --no-skip --packets 1000000
    measure merge --clustered
    measure ragged --no-skip
    measure query --no-skip
    measure query --no-skip --packets 1000000
fi
echo "measuring: torch" >&2
if command -v "${PYTHON:-python3}" >/dev/null; then
    "${PYTHON:-python3}" benches/gpu_peers.py $small >>"$results" || echo "torch beside: ended early"
else
    echo "no torch beside: no ${PYTHON:-python3}"
fi

echo
awk '
function text(key,   at, value) {
    at = index($0, "\"" key "\":\"") ; if (!at) return ""
    value = substr($0, at + length(key) + 4) ; return substr(value, 1, index(value, "\"") - 1)
}
function raw(key,   at) {
    at = index($0, "\"" key "\":") ; return at ? substr($0, at + length(key) + 3) : "null"
}
function ms(key) { return raw(key) ~ /^null/ ? "-" : sprintf("%.3f", 1000 * raw(key)) }
BEGIN {
    form = "%-12s %-20s %7s %9s %13s %11s %11s %11s %10s  %s\n"
    printf form, "task", "backend", "threads", "packets", "items", "ms", "kernel ms", "transfer ms", "items/s", "adapter, remark"
}
{
    name = text("task") (raw("skip") ~ /^true/ && raw("weightless_share") > 0.5 ? " (skip)" : "")
    threads = raw("threads") + 0 ? raw("threads") + 0 : "-"
    remark = text("adapter") (text("remark") == "" ? "" : ", " text("remark"))
    printf form, name, text("backend"), threads, raw("packets") + 0, raw("items") + 0, ms("seconds"),
        ms("kernel_seconds"), ms("transfer_seconds"), sprintf("%.4g", raw("items_per_second") + 0), remark
}' "$results"

#!/bin/sh
# Measures the engine beside what a user would pick instead, on the same numbers: peer, engine, peer,
# engine, ..., pinned to one core, one thread. Ends in a table of items per CPU second and ratios.
#
#   benches/peers.sh
#
# Installs numpy, torch, jax, faiss-cpu, numkong and scikit-learn into a virtual environment; one that
# does not install or run is one visible line. torch is large: TORCH_INDEX may name a package index
# of its CPU builds. Other variables: QIS the binary (default target/release/qis, built where it is
# missing), PYTHON (python3), CORE to pin to (the last), ROUNDS (3), SECONDS_EACH of every run (2),
# QIS_SMALL=1 for a try at small sizes, PEERS_VENV and PEERS_INPUTS for folders to use again.
set -eu
cd "$(dirname "$0")/.."
qis=${QIS:-target/release/qis}
venv=${PEERS_VENV:-target/peers-venv}
inputs=${PEERS_INPUTS:-target/peers-inputs}
rounds=${ROUNDS:-3}
seconds=${SECONDS_EACH:-2}
core=${CORE:-$(($(getconf _NPROCESSORS_ONLN) - 1))}
log=$(mktemp)
results=$(mktemp)
trap 'rm -f "$log" "$results"' EXIT

[ -x "$qis" ] || cargo build --release
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
install() { # package, more flags of pip
    "$venv/bin/pip" show -q "$1" >/dev/null 2>&1 && return
    echo "installing $1" >&2
    "$venv/bin/pip" install -q "$@" >"$log" 2>&1 || echo "NOT INSTALLED: $1: $(tail -n 1 "$log")"
}
install numpy
# shellcheck disable=SC2086 # no word where there is no index
install torch ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
install jax
install faiss-cpu
install numkong
install scikit-learn

small=
sizes="1000 10000 100000"
if [ "${QIS_SMALL:-0}" = 1 ]; then
    inputs=$inputs-small
    small="--fingerprints 20000 --queries 50 --packets 10000 --addresses 200"
    sizes="1000 10000"
fi
if [ ! -e "$inputs/C_po.npy" ]; then
    # shellcheck disable=SC2086 # several words
    "$venv/bin/python" benches/peers.py --gen "$inputs" $small
fi

# Libraries that start threads of their own are told to use one.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 VECLIB_MAXIMUM_THREADS=1
if command -v taskset >/dev/null; then
    pin() { taskset -c "$core" "$@"; }
else
    echo "no taskset: not pinned to a core"
    pin() { "$@"; }
fi

beside() { # task of peers.py, task of qis bench, more flags of both
    letter=$1 task=$2
    shift 2
    every=
    [ "$task" = fingerprint ] || every=--no-skip
    "$venv/bin/python" benches/peers.py --task "$letter" --list | while IFS= read -r peer; do
        echo "measuring: $letter $* $peer" >&2
        if pin "$venv/bin/python" benches/peers.py --task "$letter" --peer "$peer" --inputs "$inputs" \
            --seconds "$seconds" "$@" >>"$results" 2>"$log"; then
            # shellcheck disable=SC2086 # no word for fingerprints
            pin "$qis" bench "$task" --inputs "$inputs" --backend cpu --threads 1 --seconds "$seconds" \
                $every --json "$@" >>"$results"
        else
            echo "DID NOT RUN: $letter $peer: $(tail -n 1 "$log")"
        fi
    done
}

round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    echo "round $round of $rounds" >&2
    beside A fingerprint
    beside B merge
    beside C ragged
    for packets in $sizes; do
        beside D query --packets "$packets"
    done
done
echo
"$venv/bin/python" benches/peers.py --table "$results"

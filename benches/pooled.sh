#!/bin/sh
# Pooled models on raw columns beside the swarm, on the splits of `qis eval`.
#
#   sh benches/pooled.sh                          # every set that is there, five splits
#   sh benches/pooled.sh heart4 ist               # these alone
#   SPLITS=10 OUT=folder QIS=path/to/qis sh benches/pooled.sh
#
# Sets: breast_cancer digits heart4 heart4_64 ist ai4i2020 cmapss_fd001. Those that are not in the repository are read
# under QIS_DATA_DIR (default ../shared/data), and passed over with a line where they are not there. Python packages
# go into the virtual environment VENV (default OUT/venv). Per set, OUT/SET.json has the figures.
set -eu
cd "$(dirname "$0")/.."
qis=${QIS:-target/release/qis}
out=${OUT:-target/pooled}
venv=${VENV:-$out/venv}
splits=${SPLITS:-5}
data=${QIS_DATA_DIR:-../shared/data}
[ -x "$qis" ] || cargo build --release
mkdir -p "$out"
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv"
fi
"$venv/bin/python" -c 'import lightgbm, scipy, sklearn' 2>/dev/null ||
    "$venv/bin/python" -m pip install --quiet numpy scipy scikit-learn lightgbm

# compare SET FILE EVAL-ARGUMENTS..: FILE must be there.
compare() {
    set_name=$1
    file=$2
    shift 2
    if [ ! -e "$file" ]; then
        echo "SKIPPED $set_name: no $file; datasets/MANIFEST.toml says where to get it" >&2
        return 0
    fi
    # Splits of an earlier run must not mix with these.
    rm -rf "$out/splits-$set_name"
    "$qis" eval "$@" --splits-out "$out/splits-$set_name" >"$out/eval-$set_name.txt"
    echo "== $set_name: qis eval $*"
    "$venv/bin/python" benches/pooled.py --splits "$out/splits-$set_name" --json "$out/$set_name.json"
}

for name in ${*:-breast_cancer heart4 heart4_64 cmapss_fd001 ist ai4i2020 digits}; do
    case $name in
    breast_cancer)
        compare "$name" datasets/breast_cancer.csv --domain datasets/breast_cancer.toml \
            --data datasets/breast_cancer.csv --nodes 32 --splits "$splits" ;;
    digits)
        compare "$name" datasets/digits.csv --domain datasets/digits.toml --data datasets/digits.csv \
            --nodes 32 --dirichlet 0.3 --splits "$splits" ;;
    heart4)
        compare "$name" "$data/heart4/heart4.csv" --domain datasets/heart4.toml \
            --data "$data/heart4/heart4.csv" --splits "$splits" ;;
    heart4_64)
        compare "$name" "$data/heart4/heart4.csv" --domain datasets/heart4.toml \
            --data "$data/heart4/heart4.csv" --nodes 64 --rows 10 --dirichlet 0.3 --splits "$splits" ;;
    ist)
        compare "$name" "$data/ist/ist_hospitals.csv.gz" --domain datasets/ist.toml \
            --data "$data/ist/ist_hospitals.csv.gz" --splits "$splits" ;;
    ai4i2020)
        compare "$name" "$data/ai4i2020/ai4i2020.csv" --domain datasets/ai4i2020.toml \
            --data "$data/ai4i2020/ai4i2020.csv" --nodes 1000 --rows 7 --splits "$splits" ;;
    cmapss_fd001)
        if [ -d "$data/cmapss_fd001" ]; then
            sh datasets/prepare.sh "$data/cmapss_fd001" "$out/cmapss"
        fi
        compare "$name" "$out/cmapss/train.csv" --domain datasets/cmapss_fd001.toml \
            --train "$out/cmapss/train.csv" --test "$out/cmapss/test.csv" ;;
    *)
        echo "pooled.sh: no set $name" >&2
        exit 2 ;;
    esac
done

#!/bin/sh
# Makes train.csv and test.csv for the cmapss_fd001 domain from the three files of
# the NASA C-MAPSS turbofan set FD001.
#
#   sh datasets/prepare.sh SOURCE_FOLDER OUTPUT_FOLDER
#
# SOURCE_FOLDER holds train_FD001.txt, test_FD001.txt and RUL_FD001.txt.
# OUTPUT_FOLDER is made if it is absent; train.csv and test.csv in it are replaced.
#
# remaining_life is in cycles, capped at 125:
#   train: last cycle of the unit - cycle (every unit runs to failure);
#   test:  remaining life at the unit's last cycle (line number = unit) + last cycle - cycle.
# The test units are other engines than the training units of the same numbers: unit N is "test-N".
# Tabs, runs of spaces and Windows line ends are all accepted; the numbers are
# copied as they are spelled.
#
# Exit codes: 0 done, 1 failed, 2 wrong use, 3 input rejected.

set -eu
LC_ALL=C
export LC_ALL

cap=125

say() {
    printf 'prepare.sh: %s\n' "$*" >&2
}

if [ "$#" -ne 2 ]; then
    say "two arguments expected, $# given"
    say "use: sh datasets/prepare.sh SOURCE_FOLDER OUTPUT_FOLDER"
    exit 2
fi
source=$1
output=$2

if [ ! -d "$source" ]; then
    say "no such folder: $source"
    exit 3
fi
missing=0
for name in train_FD001.txt test_FD001.txt RUL_FD001.txt; do
    if [ ! -f "$source/$name" ]; then
        say "missing file: $source/$name"
        missing=1
    elif [ ! -r "$source/$name" ]; then
        say "file cannot be read: $source/$name"
        missing=1
    elif [ ! -s "$source/$name" ]; then
        say "file is empty: $source/$name"
        missing=1
    fi
done
if [ "$missing" -ne 0 ]; then
    say "where to get the set: see cmapss_fd001 in datasets/MANIFEST.toml"
    exit 3
fi

if ! mkdir -p "$output"; then
    say "cannot make the output folder: $output"
    exit 1
fi
partial_train=$output/.train.csv.$$
partial_test=$output/.test.csv.$$
trap 'rm -f "$partial_train" "$partial_test"' EXIT
trap 'exit 1' HUP INT TERM

# convert KIND RUL_FILE TABLE: the table is read twice, first for each unit's last cycle.
convert() {
    awk -v cap="$cap" -v kind="$1" -v rul="$2" -v table="$3" '
        function reject(text) {
            printf "prepare.sh: %s\n", text > "/dev/stderr"
            failed = 1
            exit 3
        }
        function is_whole(text) {
            return text ~ /^[0-9]+$/
        }
        BEGIN {
            if (kind == "test") {
                while ((got = (getline line < rul)) > 0) {
                    gsub(/[ \t\r]/, "", line)
                    if (line == "") continue
                    units++
                    if (!is_whole(line)) reject(rul ":" units ": not a whole number of cycles: " line)
                    life[units] = line + 0
                }
                if (got < 0) reject(rul ": cannot be read")
                close(rul)
            }
        }
        { sub(/\r$/, "") }
        NF == 0 { next }
        FNR == NR {
            if (NF != 26) reject(table ":" FNR ": 26 columns expected, found " NF)
            if (!is_whole($1)) reject(table ":" FNR ": unit is not a whole number: " $1)
            if (!is_whole($2)) reject(table ":" FNR ": cycle is not a whole number: " $2)
            if (kind == "test" && !($1 in life))
                reject(table ":" FNR ": unit " $1 " has no line in " rul)
            if (!($1 in last)) seen++
            if (!($1 in last) || $2 + 0 > last[$1]) last[$1] = $2 + 0
            next
        }
        !header {
            header = 1
            row = "unit,cycle"
            for (i = 1; i <= 3; i++) row = row ",setting" i
            for (i = 1; i <= 21; i++) row = row ",sensor" i
            print row ",remaining_life"
        }
        {
            left = last[$1] - $2
            if (kind == "test") left += life[$1]
            if (left > cap) left = cap
            row = (kind == "test" ? "test-" : "") $1
            for (i = 2; i <= 26; i++) row = row "," $i
            print row "," left
            rows++
        }
        END {
            if (failed) exit 3
            if (rows == 0) reject(table ": no rows")
            if (kind == "test" && seen != units)
                reject(rul ": " units " lines, but " seen " units in " table)
            printf "prepare.sh: %s: %d rows, %d units\n", kind, rows, seen > "/dev/stderr"
        }
    ' "$3" "$3"
}

convert train "" "$source/train_FD001.txt" >"$partial_train" || exit $?
convert test "$source/RUL_FD001.txt" "$source/test_FD001.txt" >"$partial_test" || exit $?
mv -f "$partial_train" "$output/train.csv"
mv -f "$partial_test" "$output/test.csv"
say "wrote $output/train.csv and $output/test.csv"

#!/bin/sh
# Runs the suite of backends against a stand-in for an S3 server on this machine.
# Needs python3; MOTO_SERVER may name a moto_server that is there already.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server" 2>/dev/null; rm -rf "$folder"' EXIT
if [ -z "${MOTO_SERVER:-}" ]; then
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet 'moto[server]'
    MOTO_SERVER=$folder/python/bin/moto_server
fi
port=${PORT:-5577}
"$MOTO_SERVER" -H 127.0.0.1 -p "$port" >"$folder/log" 2>&1 &
server=$!
export AWS_ENDPOINT="http://127.0.0.1:$port" AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
tries=0
until curl --silent --fail --output /dev/null --request PUT "$AWS_ENDPOINT/qis"; do
    tries=$((tries + 1))
    test "$tries" -lt 60 || { cat "$folder/log"; exit 1; }
    sleep 0.5
done
QIS_S3_URL=s3://qis/suite cargo test --release --test backends a_bucket -- --nocapture

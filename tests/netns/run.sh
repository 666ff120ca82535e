#!/usr/bin/env bash
# A swarm across network namespaces: six storage nodes behind a bridge, a gateway behind a NAT that
# lets it call out only, 5% of the datagrams lost everywhere, and a partition into two halves that
# heals. Evidence is deposited on both sides, before, during and after the partition; in the end
# everything acknowledged must be found from everywhere.
#
#   usage: run.sh QIS DATASETS      (root; iproute2, nftables, util-linux)
#
#        half A                                  half B
#   n1  n2  n3  client --- bridge --- n4  n5  n6  router === gateway
#   .1  .2  .3  .50      10.77.0.0/24  .4  .5  .6  .100  NAT  10.88.0.2
#
# All of it lives in network, process and mount namespaces of its own, which vanish with this process
# however it ends. Where the machine has no such namespaces it prints one line and ends with 0, or
# with 1 where QIS_REQUIRE_NETNS=1. In the end all six disks must hold everything: repair brings each what it missed.
set -euo pipefail

skip() {
  echo "skipped: network namespaces: $1"
  [ "${QIS_REQUIRE_NETNS:-0}" = 1 ] && exit 1
  exit 0
}

if [ "${1:-}" != --inside ]; then
  [ $# = 2 ] || { echo "usage: $0 QIS DATASETS" >&2; exit 2; }
  qis=$(realpath "$1") datasets=$(realpath "$2")
  [ "$(uname -s)" = Linux ] || skip "this is not Linux"
  [ "$(id -u)" = 0 ] || skip "this user is not root"
  for tool in ip unshare setsid; do
    command -v $tool >/dev/null || skip "there is no \`$tool\`: install iproute2 and util-linux"
  done
  if ! command -v nft >/dev/null && command -v apt-get >/dev/null; then
    echo "installing nftables"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nftables; } \
      </dev/null >/dev/null 2>&1 || true
  fi
  command -v nft >/dev/null || skip "there is no \`nft\`: install nftables"
  unshare --net --mount --pid --fork true 2>/dev/null || skip "this machine gives no namespaces"
  unshare --net sh -c '
    nft "table inet t { chain c { type filter hook input priority 0; numgen random mod 100 < 5 drop; }; }
         table ip n { chain c { type nat hook postrouting priority 100; masquerade; }; }" &&
    ip link add name br0 type bridge && ip link add name veth0 type veth peer name veth1' 2>/dev/null ||
    skip "the kernel has no nftables with numgen and masquerade, no bridge or no veth"
  exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" --inside "$qis" "$datasets"
fi

# Inside: first process of its namespace, so that everything started here dies with it.
qis=$2 datasets=$3
domain=$datasets/breast_cancer.toml table=$datasets/breast_cancer.csv
export RUST_LOG=${RUST_LOG:-error}
mount -t tmpfs qis /run
mkdir /run/netns /run/work
work=/run/work
started=$SECONDS

say() { echo "netns: $*"; }
fail() {
  echo "netns: FAILED: $*" >&2
  for log in "$work"/*.log; do sed "s|^|$(basename "$log"): |" "$log" | tail -5 >&2; done
  exit 1
}
in_ns() { # namespace, command...
  local name=$1
  shift
  ip netns exec "$name" "$@"
}

# --- the network ---------------------------------------------------------------------------------

ip link set lo up
ip link add name bridge type bridge
ip link set bridge up

attach() { # namespace, address on the bridge
  ip netns add "$1"
  ip link add name "$1" type veth peer name out netns "$1"
  ip link set "$1" master bridge up
  in_ns "$1" ip link set lo up
  in_ns "$1" ip address add "$2/24" dev out
  in_ns "$1" ip link set out up
}

# 5% of what arrives is lost, whoever sent it; `cut` is filled while the swarm is partitioned.
loss='
  table inet faults {
    set cut { type ipv4_addr; }
    chain lose {
      ip saddr 127.0.0.0/8 accept
      ip saddr @cut drop
      meta l4proto udp numgen random mod 100 < 5 drop
    }
    chain input { type filter hook input priority 0; jump lose; }
    chain forward { type filter hook forward priority 0; jump lose; }
  }'

nodes="n1 n2 n3 n4 n5 n6"
for n in 1 2 3 4 5 6; do attach "n$n" "10.77.0.$n"; done
attach client 10.77.0.50
attach router 10.77.0.100
ip netns add gateway
ip link add name inner netns router type veth peer name out netns gateway
in_ns router ip address add 10.88.0.1/24 dev inner
in_ns router ip link set inner up
in_ns gateway ip link set lo up
in_ns gateway ip address add 10.88.0.2/24 dev out
in_ns gateway ip link set out up
in_ns gateway ip route add default via 10.88.0.1
in_ns router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
for name in $nodes client router; do in_ns "$name" nft "$loss"; done
# Outbound only: nothing begins from outside, and inside addresses are not shown.
in_ns router nft '
  table ip nat {
    chain out { type nat hook postrouting priority 100; oifname "out" masquerade; }
    chain guard {
      type filter hook forward priority 10;
      ct state established,related accept
      iifname "out" drop
    }
  }'

half_a="10.77.0.1, 10.77.0.2, 10.77.0.3, 10.77.0.50"
half_b="10.77.0.4, 10.77.0.5, 10.77.0.6, 10.77.0.100"
partition() {
  for name in n1 n2 n3 client; do in_ns "$name" nft add element inet faults cut "{ $half_b }"; done
  for name in n4 n5 n6 router; do in_ns "$name" nft add element inet faults cut "{ $half_a }"; done
}
heal() { for name in $nodes client router; do in_ns "$name" nft flush set inet faults cut; done; }

# --- the swarm -----------------------------------------------------------------------------------

declare -A process
for n in 1 2 3 4 5 6; do
  peers=()
  [ $n = 1 ] || peers=(--bootstrap 10.77.0.1:4001)
  [ $n -lt 3 ] || peers+=(--bootstrap 10.77.0.2:4001)
  # Without a function between: `ip netns exec` becomes the program, and its number is the program's.
  ip netns exec "n$n" "$qis" node --store "$work/n$n" --listen "10.77.0.$n:4001" --domain "$domain" --json \
    "${peers[@]}" >"$work/n$n.ready" 2>"$work/n$n.log" &
  process[n$n]=$!
done
for n in 1 2 3 4 5 6; do
  for _ in $(seq 100); do
    [ -s "$work/n$n.ready" ] && break
    sleep 0.1
  done
  [ -s "$work/n$n.ready" ] || fail "node n$n is not ready after 10 s"
done
sleep 3

# Behind the NAT: it only dials out, and deposits what is put into its outbox, now or later.
ip netns exec gateway "$qis" node --mode gateway --store "$work/gateway" --domain "$domain" --json \
  --bootstrap 10.77.0.4:4001 --bootstrap 10.77.0.6:4001 >"$work/gateway.ready" 2>"$work/gateway.log" &
process[gateway]=$!
outbox() { # part, seconds that it may take
  local from=$SECONDS
  cp "$work/$1.qpk" "$work/gateway/$1.part"
  mv "$work/gateway/$1.part" "$work/gateway/outbox/$1.qpk"
  while [ ! -f "$work/gateway/outbox/done/$1.qpk" ]; do
    [ $((SECONDS - from)) -lt "$2" ] || fail "the gateway's outbox still holds $1 after $2 s"
    sleep 0.2
  done
  "$qis" inspect "$work/$1.qpk" --json --limit 1000000 2>/dev/null | ids >"$work/$1.ids"
  sort -u "$work"/*.ids >"$work/expected"
  say "the gateway's outbox deposited $1: $(wc -l <"$work/$1.ids") packets acknowledged after $((SECONDS - from)) s"
}

# Two authors; the rows of the table are dealt to the four deposits.
deal() { # name of the part, author, first row, last row
  { head -1 "$table"; sed 1d "$table" | sed -n "$3,$4p"; } >"$work/$1.csv"
  "$qis" distill --domain "$domain" --input "$work/$1.csv" --author "$work/$2.json" \
    --output "$work/$1.qpk" >/dev/null
}
ids() { grep -o '"packet":"[0-9a-f]*"' | sort -u; }
deposit() { # from, through, part: what it acknowledges is expected from then on
  for try in 1 2 3; do
    if in_ns "$1" "$qis" deposit "$work/$3.qpk" --domain "$domain" --peer "$2:4001" --json \
      >"$work/$3.out" 2>"$work/$3.log"; then
      "$qis" inspect "$work/$3.qpk" --json --limit 1000000 2>/dev/null | ids >"$work/$3.ids"
      sort -u "$work"/*.ids >"$work/expected"
      say "$1 deposited $3 through $2: $(wc -l <"$work/$3.ids") packets acknowledged, attempt $try"
      return
    fi
    say "$1 could not deposit $3 through $2: $(tr -s '\n ' ' ' <"$work/$3.log")"
  done
  fail "$1 could not deposit $3 through $2 in three attempts"
}
# How many of the expected packets are found: each row's own packet is the nearest evidence to it.
found() { # from, through
  in_ns "$1" "$qis" ask --domain "$domain" --input "$table" --peer "$2:4001" --evidence 8 --json \
    2>"$work/ask.log" | ids | comm -12 - "$work/expected" | wc -l
}
find_all() { # from, through, seconds that it may take
  local want have=0 from=$SECONDS
  want=$(wc -l <"$work/expected")
  while :; do
    have=$(found "$1" "$2" || echo 0)
    if [ "$have" = "$want" ]; then
      say "$1 finds all $want packets through $2 after $((SECONDS - from)) s"
      return
    fi
    [ $((SECONDS - from)) -lt "$3" ] || fail "$1 finds $have of $want packets through $2 after $3 s"
    sleep 1
  done
}

deal before-a one 1 120
deal before-b two 121 240
deal during-a one 241 360
deal during-b two 361 480
deal after-b two 481 569

say "5% loss, no partition"
deposit client 10.77.0.1 before-a
outbox before-b 30
find_all client 10.77.0.2 20
find_all gateway 10.77.0.5 20

say "partition: n1 n2 n3 client | n4 n5 n6 gateway"
partition
# Until the other half counts as silent: connections that hear nothing end after six seconds.
sleep 8
deposit client 10.77.0.1 during-a
outbox during-b 60
# Each half finds what it acknowledged itself, and what both had before.
sort -u "$work"/before-*.ids "$work/during-a.ids" >"$work/expected"
find_all client 10.77.0.2 20
sort -u "$work"/before-*.ids "$work/during-b.ids" >"$work/expected"
find_all gateway 10.77.0.5 20
sort -u "$work"/*.ids >"$work/expected"

say "healed"
heal
deposit gateway 10.77.0.6 after-b
for through in 1 2 3 4 5 6; do
  find_all client 10.77.0.$through 30
done
find_all gateway 10.77.0.1 30
find_all gateway 10.77.0.4 30

# --- the disks -----------------------------------------------------------------------------------

stored() { # node, while it runs: nothing where it does not say
  "$qis" status --store "$work/$1" --json 2>/dev/null | grep -o '"store":{[^}]*}' |
    grep -o '"packets":[0-9]*' | cut -d: -f2
}
want=$(wc -l <"$work/expected")
repaired=0 from=$SECONDS
while [ $repaired = 0 ] && [ $((SECONDS - from)) -lt 60 ]; do
  repaired=1
  for name in $nodes; do
    [ "$(stored "$name" || true)" = "$want" ] || repaired=0
  done
  [ $repaired = 1 ] || sleep 1
done
[ $repaired = 1 ] && say "every disk holds everything $((SECONDS - from)) s after the last question"
for name in $nodes gateway; do
  kill -TERM "${process[$name]}"
  wait "${process[$name]}" || fail "$name did not end in order after SIGTERM"
done
whole=0
for name in $nodes; do
  held=$("$qis" inspect "$work/$name" --json --limit 1000000 2>/dev/null |
    grep -o '"packets":[0-9]*' | cut -d: -f2 | awk '{ sum += $1 } END { print sum + 0 }')
  say "$name holds $held of $want packets"
  [ "$held" != "$want" ] || whole=$((whole + 1))
done
say "$whole of 6 disks hold everything"
[ $whole = 6 ] || fail "repair left $((6 - whole)) disks behind"
say "passed in $((SECONDS - started)) s: $want acknowledged packets, all found from everywhere"

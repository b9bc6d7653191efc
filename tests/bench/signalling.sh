#!/usr/bin/env bash
# Signalling cost of a bridged call on loopback: SIPp calls through `tandem run` to a second SIPp.
#   tests/bench/signalling.sh [calls per second] [seconds]      (needs sipp, curl and a release build)
# Prints CPU-ms a call (all threads, call records and log included), INVITE → 200 as SIPp saw it (direct to
# the far end, and through Tandem), memory of a held call. Bounded in count and time; talks to 127.0.0.1
# only. Never a pass or a fail. PIN=1 keeps the node on that core.
set -euo pipefail
rate=${1:-100} seconds=${2:-20}
# shellcheck source=tests/bench/common.sh
source "$(dirname "$0")/common.sh"
need sipp sip-tester; need curl curl

ground
start_far_end
start_tandem "${PIN:+taskset -c $PIN}"
drive direct $$ "$far" 500 $((rate * 5)) "$rate"
drive tandem "$node" "$sip" 500 $((rate * seconds)) "$rate"
empty=$(pss_kb "$node")
(cd "$work" && sipp -sn uac "127.0.0.1:$sip" -s +380441234567 -i 127.0.0.1 -p "$near" -mp $((base + 30)) -d 8000 -m 400 -r 100 -l 4000 \
  -timeout 60 -nostdin > /dev/null 2>&1) & held=$!
sleep 6
full=$(pss_kb "$node")
wait "$held" || true
awk -v a="$empty" -v b="$full" 'BEGIN {printf "memory a held call: %.0f kB (400 calls, both legs, no sound)\n", (b - a) / 400}'

#!/usr/bin/env bash
# Signalling cost of a bridged call on loopback: SIPp calls through `tandem run` to a second SIPp.
#   tests/bench/signalling.sh [calls per second] [seconds]      (needs sipp and a release build)
# Prints CPU-ms a call, INVITE → 200 as SIPp saw it (direct to the far end, and through Tandem), memory
# of a held call. Bounded in count and time; talks to 127.0.0.1 only. Never a pass or a fail.
set -euo pipefail
rate=${1:-100} seconds=${2:-20}
here=$(cd "$(dirname "$0")/../.." && pwd)
tandem=${TANDEM:-$here/target/release/tandem}
work=$(mktemp -d)
pids=()
finish() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; rm -rf "$work"; }
trap finish EXIT
base=$((20000 + RANDOM % 20000))
sip=$base far=$((base + 2)) near=$((base + 4)) web=$((base + 6)) webrtc=$((base + 8))

mkdir -p "$work/dialplans/sounds"
cp "$here"/dialplans/sounds/*.wav "$work/dialplans/sounds/"
cat > "$work/dialplans/all.toml" <<END
[[route]]
name = "bench"
when = { from = "trunk:near", number = "any" }
do = [ { dial = "dialled", over = ["far"] } ]
END
cat > "$work/tandem.toml" <<END
[sip]
udp = "127.0.0.1:$sip"
tcp = ""
[web]
listen = "127.0.0.1:$web"
[media]
rtp_ports = "40000-59999"
webrtc_port = $webrtc
[limits]
calls = 4000
calls_per_second = 5000
[log]
level = "warn"
[[trunk]]
name = "near"
kind = "peer"
server = "127.0.0.1:$near"
accept_from = ["127.0.0.1/32"]
channels = 5000
[[trunk]]
name = "far"
kind = "peer"
server = "127.0.0.1:$far"
accept_from = ["127.0.0.2/32"]
channels = 5000
END

cd "$work"
"$tandem" run --config tandem.toml 2> tandem.log & node=$!; pids+=("$node")
sipp -sn uas -i 127.0.0.1 -p "$far" -mp $((base + 10)) -bg -nostdin > /dev/null 2>&1 || true
pids+=("$(pgrep -n -f "sipp -sn uas -i 127.0.0.1 -p $far")")
for _ in $(seq 200); do curl -sf "http://127.0.0.1:$web/readyz" > /dev/null && break; sleep 0.05; done

ticks() { awk '{print $14 + $15}' "/proc/$node/stat"; }
pss_kb() { awk '/^Pss:/ {print $2}' "/proc/$node/smaps_rollup"; }
# name, target port, held milliseconds, calls, calls a second
drive() {
  rm -f ./*_rtt.csv
  sipp -sn uac "127.0.0.1:$2" -s +380441234567 -i 127.0.0.1 -p "$near" -mp $((base + 20)) -d "$3" -m "$4" -r "$5" -l 4000 \
    -trace_rtt -rtt_freq 1 -timeout 120 -nostdin > sipp.out 2>&1 || { echo "sipp: some calls of $1 failed"; tail -3 sipp.out; }
  awk -F';' 'NR > 1 {print $2}' ./*_rtt.csv | sort -n > rtt
  local n; n=$(wc -l < rtt)
  printf '%-16s INVITE to 200: p50 %s ms, p99 %s ms (%s calls)\n' "$1" \
    "$(sed -n "$((n / 2 + 1))p" rtt)" "$(sed -n "$((n * 99 / 100 + 1))p" rtt)" "$n"
}

echo "$(uname -srm), $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), commit $(git -C "$here" rev-parse --short HEAD)"
drive direct "$far" 500 $((rate * 5)) "$rate"
before=$(ticks)
drive "through tandem" "$sip" 500 $((rate * seconds)) "$rate"
after=$(ticks)
awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n=$((rate * seconds)) \
  'BEGIN {printf "CPU a bridged call: %.2f ms (%d calls, all threads, call records and log included)\n", t * 1000 / hz / n, n}'
empty=$(pss_kb)
sipp -sn uac "127.0.0.1:$sip" -s +380441234567 -i 127.0.0.1 -p "$near" -mp $((base + 20)) -d 8000 -m 400 -r 100 -l 4000 \
  -timeout 60 -nostdin > /dev/null 2>&1 & held=$!
sleep 6
full=$(pss_kb)
wait "$held" || true
awk -v a="$empty" -v b="$full" 'BEGIN {printf "memory a held call: %.0f kB (400 calls, both legs, no sound)\n", (b - a) / 400}'

# Sourced by the scripts beside it: one node under `tandem run` between two SIPp's, and how it is watched.
# Everything is on 127.0.0.1, ports are picked at random; `finish` ends only what was started here.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tandem=${TANDEM:-$here/target/release/tandem}
work=$(mktemp -d)
pids=()
finish() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; rm -rf "$work"; }
trap finish EXIT
base=$((12000 + RANDOM % 15000))
sip=$base far=$((base + 2)) near=$((base + 4)) web=$((base + 6)) webrtc=$((base + 8)) peer=$((base + 12))

need() {
  command -v "$1" > /dev/null || { echo "$1 is missing (Debian: apt-get install $2)"; return 1; }
}

# Machine, load and commit, as every figure is told with them.
ground() {
  echo "$(uname -srm), $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), commit $(git -C "$here" rev-parse --short HEAD)"
}

# Starts a node that bridges calls of trunk `near` to trunk `far`; $1: words before its command (taskset …).
start_tandem() {
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
  # shellcheck disable=SC2086
  ${1:-} "$tandem" run --config tandem.toml 2> tandem.log & node=$!
  pids+=("$node")
  for _ in $(seq 200); do curl -sf "http://127.0.0.1:$web/readyz" > /dev/null && return; sleep 0.05; done
  echo "the node does not get ready"; cat tandem.log; exit 1
}

# The far end: answers every call.
start_far_end() {
  sipp -sn uas -i 127.0.0.1 -p "$far" -mp $((base + 20)) -nostdin > /dev/null 2>&1 & pids+=("$!")
}

# Clock ticks that a process and its children spent.
ticks() {
  local sum=0 pid
  for pid in "$1" $(pgrep -P "$1"); do
    sum=$((sum + $(awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$pid/stat" 2> /dev/null || echo 0)))
  done
  echo "$sum"
}
pss_kb() { awk '/^Pss:/ {print $2}' "/proc/$1/smaps_rollup"; }

# name, process, target port, held milliseconds, calls, calls a second: sets `cost` to CPU ms a call.
drive() {
  rm -f "$work"/*_rtt.csv "$work/stat.csv"
  local before after
  before=$(ticks "$2")
  (cd "$work" && sipp -sn uac "127.0.0.1:$3" -s +380441234567 -i 127.0.0.1 -p "$near" -mp $((base + 30)) -d "$4" -m "$5" -r "$6" \
    -l 4000 -trace_rtt -rtt_freq 1 -trace_stat -stf stat.csv -timeout 120 -nostdin > sipp.out 2>&1) || true
  after=$(ticks "$2")
  awk -F';' 'NR > 1 {print $2}' "$work"/*_rtt.csv | sort -n > "$work/rtt"
  local n; n=$(wc -l < "$work/rtt")
  cost=$(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="$5" 'BEGIN {printf "%.3f", t * 1000 / hz / n}')
  awk -F';' -v name="$1" -v cost="$cost" -v rate="$6" -v p50="$(sed -n "$((n / 2 + 1))p" "$work/rtt")" \
    -v p99="$(sed -n "$((n * 99 / 100 + 1))p" "$work/rtt")" '
    NR == 1 {for (i = 1; i <= NF; i++) at[$i] = i}
    END {printf "%-12s %5d calls/s: %6d ok, %d failed, %d sent again; INVITE to 200 p50 %s p99 %s ms; CPU %s ms a call\n",
      name, rate, $at["SuccessfulCall(C)"], $at["FailedCall(C)"], $at["Retransmissions(C)"], p50, p99, cost}' "$work/stat.csv"
}

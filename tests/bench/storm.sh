#!/usr/bin/env bash
# A storm of REGISTERs without credentials while a call is held: what it costs, and whether memory grows.
#   tests/bench/storm.sh [REGISTERs per second] [seconds]      (needs sipp, curl and a release build)
# Prints resident memory before, after each third and at the end, CPU a REGISTER, and how the held call
# fared. At most 10,000 a second for 60 seconds; talks to 127.0.0.1 only. Never a pass or a fail.
set -euo pipefail
rate=$((${1:-5000} < 10000 ? ${1:-5000} : 10000)) seconds=$((${2:-15} < 60 ? ${2:-15} : 60))
# shellcheck source=tests/bench/common.sh
source "$(dirname "$0")/common.sh"
need sipp sip-tester; need curl curl

cat > "$work/register.xml" <<'END'
<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="REGISTER without credentials">
  <send><![CDATA[

    REGISTER sip:[remote_ip] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    Max-Forwards: 70
    From: <sip:anna@[remote_ip]>;tag=[call_number]
    To: <sip:anna@[remote_ip]>
    Call-ID: [call_id]
    CSeq: 1 REGISTER
    Contact: <sip:anna@[local_ip]:[local_port]>
    Content-Length: 0

  ]]></send>
  <recv response="401" timeout="500" ontimeout="lost"/>
  <label id="lost"/>
</scenario>
END
resident_kb() { awk '/^VmRSS:/ {print $2}' "/proc/$node/status"; }
figure() { awk -F';' -v name="$2" 'NR == 1 {for (i = 1; i <= NF; i++) at[$i] = i} END {print $at[name]}' "$work/$1.csv"; }

ground
start_far_end
start_tandem
(cd "$work" && sipp -sn uac "127.0.0.1:$sip" -s +380441234567 -i 127.0.0.1 -p "$near" -mp $((base + 30)) -d $((seconds * 1000 + 6000)) \
  -m 1 -trace_stat -stf call.csv -nostdin > /dev/null 2>&1) & call=$!
sleep 2
echo "resident before the storm: $(resident_kb) kB"
before=$(ticks "$node")
(cd "$work" && sipp -sf register.xml "127.0.0.1:$sip" -i 127.0.0.3 -p $((base + 40)) -mp $((base + 50)) -r "$rate" -m $((rate * seconds)) \
  -l 20000 -trace_stat -stf storm.csv -timeout 90 -nostdin > /dev/null 2>&1) & storm=$!
for _ in 1 2 3; do
  sleep $((seconds / 3))
  echo "resident in the storm: $(resident_kb) kB"
done
wait "$storm" || true
after=$(ticks "$node")
sleep 2
echo "resident after the storm: $(resident_kb) kB"
awk -v n=$((rate * seconds)) -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" \
  'BEGIN {printf "%d REGISTERs, %.0f CPU µs each\n", n, t * 1e6 / hz / n}'
echo "REGISTERs answered: $(figure storm 'SuccessfulCall(C)')"
wait "$call" || true
echo "the held call: $(figure call 'SuccessfulCall(C)') ended as it should, $(figure call 'FailedCall(C)') failed"

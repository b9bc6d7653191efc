#!/usr/bin/env bash
# The same calls through Debian's Kamailio (stateful proxy with dialogs) and through Tandem, in turns.
#   tests/bench/peers.sh [calls per second] [seconds]     (needs kamailio, sipp, curl and a release build)
# Prints what each turn cost and the ratio of the sums. Installs nothing; says what is missing. Bounded in
# count and time; talks to 127.0.0.1 only. Never a pass or a fail. PIN=1 keeps both peers on that core.
set -euo pipefail
rate=${1:-100} seconds=${2:-10}
# shellcheck source=tests/bench/common.sh
source "$(dirname "$0")/common.sh"
need sipp sip-tester; need curl curl
need kamailio kamailio || exit 0

start_kamailio() {
  modules=$(dirname "$(find /usr/lib -name tm.so -path '*kamailio*' | head -1)")
  cat > "$work/kamailio.cfg" <<END
#!KAMAILIO
debug=0
log_stderror=yes
children=2
auto_aliases=no
listen=udp:127.0.0.1:$peer
disable_tcp=yes
dns=no
rev_dns=no
mpath="$modules/"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "dialog.so"
modparam("dialog", "db_mode", 0)
modparam("dialog", "dlg_match_mode", 1)
modparam("tm", "fr_timer", 30000)
request_route {
  if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }
  \$du = "sip:127.0.0.1:$far";
  if (is_method("ACK") && has_totag()) { forward(); exit; }
  if (is_method("INVITE") && !has_totag()) { record_route(); dlg_manage(); }
  if (has_totag()) { dlg_manage(); }
  t_relay();
}
END
  # shellcheck disable=SC2086
  ${PIN:+taskset -c $PIN} kamailio -f "$work/kamailio.cfg" -DD -E -m 256 -M 16 -Y "$work" > "$work/kamailio.log" 2>&1 & kamailio=$!
  pids+=("$kamailio")
  sleep 2
}

ground
start_far_end
start_kamailio
start_tandem "${PIN:+taskset -c $PIN}"
theirs=0 ours=0
for _ in 1 2; do
  drive kamailio "$kamailio" "$peer" 500 $((rate * seconds)) "$rate"; theirs="$theirs + $cost"
  drive tandem "$node" "$sip" 500 $((rate * seconds)) "$rate"; ours="$ours + $cost"
done
awk "BEGIN {printf \"CPU a call, Tandem to Kamailio: %.2f\\n\", ($ours) / ($theirs)}"

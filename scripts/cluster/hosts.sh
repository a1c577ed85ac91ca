#!/usr/bin/env bash
# Several hosts on one machine (network namespaces on a bridge) for as long as a command runs, to try what a cable, a
# switch or a power supply can do to a run:
#   bash scripts/cluster/hosts.sh bash          # a shell that has these commands:
#     on host1 COMMAND...                       # run something on a host; all names resolve on all hosts
#     cut host2 / mend host2                    # take its cable out, put it back
#     slow host2 10mbit                         # a slow link
#     die host2                                 # without power: its link is down, then its processes are gone
#   bash scripts/cluster/hosts.sh python scripts/cluster/try_hosts.py
# HOSTS: how many (default 2). Needs root and iproute2. The hosts go away with the command, and all that runs on them.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
command -v ip > /dev/null || { echo "error: ip is missing: apt-get install iproute2" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "error: network namespaces need root" >&2; exit 2; }
count="${HOSTS:-2}" mark="uv$$" folder="$(mktemp -d -t unival-hosts-XXXXXX)"
net="10.$((100 + $$ / 256 % 100)).$(($$ % 256))"
child=""
finish() {
  code=$?
  trap - EXIT
  if [ -n "$child" ]; then kill "$child" 2> /dev/null || true; fi
  for ((k = 1; k <= count; k++)); do
    ip netns pids "$mark-host$k" 2> /dev/null | xargs -r kill -KILL 2> /dev/null || true
    ip netns del "$mark-host$k" 2> /dev/null || true
  done
  ip link del "$mark" 2> /dev/null || true
  rm -rf "$folder"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$folder/bin"
echo "127.0.0.1 localhost" > "$folder/hosts"
ip link add "$mark" type bridge || { echo "error: this kernel gives no bridge" >&2; exit 2; }
ip link set "$mark" up
for ((k = 1; k <= count; k++)); do
  echo "$net.$k host$k" >> "$folder/hosts"
  ip netns add "$mark-host$k"
  ip link add "$mark-$k" type veth peer name eth0 netns "$mark-host$k"
  ip link set "$mark-$k" master "$mark"
  ip link set "$mark-$k" up
  ip -n "$mark-host$k" link set lo up
  ip -n "$mark-host$k" addr add "$net.$k/24" dev eth0
  ip -n "$mark-host$k" link set eth0 up
done
program() {
  printf '#!/usr/bin/env bash\nset -euo pipefail\n%s\n' "$2" > "$folder/bin/$1"
  chmod +x "$folder/bin/$1"
}
# an own host name and an own /etc/hosts, seen from there only
program on "host=\$1; shift
exec ip netns exec $mark-\$host unshare --mount --uts bash -c 'hostname \"\$1\"; mount --bind $folder/hosts /etc/hosts
  shift; export GLOO_SOCKET_IFNAME=eth0; exec \"\$@\"' _ \"\$host\" \"\$@\""
program cut "ip link set $mark-\${1#host} down"
program mend "ip link set $mark-\${1#host} up"
program slow "tc qdisc replace dev $mark-\${1#host} root tbf rate \$2 burst 32kbit latency 400ms
ip netns exec $mark-\$1 tc qdisc replace dev eth0 root tbf rate \$2 burst 32kbit latency 400ms"
program die "ip link set $mark-\${1#host} down
ip netns pids $mark-\$1 | xargs -r kill -KILL"
PATH="$folder/bin:$PATH" UNIVAL_HOSTS="$count" "$@" <&0 &
child=$!
wait "$child"

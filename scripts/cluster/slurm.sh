#!/usr/bin/env bash
# A SLURM of one machine for as long as a command runs, in a folder of its own, to try job scripts at home:
#   bash scripts/cluster/slurm.sh bash                  # a shell in which sbatch, squeue, scancel work
#   bash scripts/cluster/slurm.sh python scripts/cluster/try_slurm.py
# NODES: nodes, all of them this machine (default 2); CPUS: of each (default 2); FOLDER: for its files (default: a
#   temporary one). Partitions: "low", which is pre-empted (20 s of grace, then back into the queue), and "high".
# Needs root and Debian's slurm-wlm and munge. Nothing is installed or changed outside the folder, and the daemons
# end with the command.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
for program in munged slurmctld slurmd sbatch; do
  command -v "$program" > /dev/null || { echo "error: $program is missing: apt-get install slurm-wlm munge" >&2; exit 2; }
done
[ "$(id -u)" -eq 0 ] || { echo "error: SLURM's daemons need root" >&2; exit 2; }
# the nodes' names resolve as those of real ones do, for this command alone
[ -n "${UNIVAL_OWN_MOUNTS:-}" ] || UNIVAL_OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
nodes="${NODES:-2}" cpus="${CPUS:-2}" made=""
[ -n "${FOLDER:-}" ] || { FOLDER="$(mktemp -d -t unival-slurm-XXXXXX)"; made=1; }
mkdir -p "$FOLDER"
folder="$(cd "$FOLDER" && pwd)"
chmod 755 "$folder"
mkdir -p "$folder/state" "$folder/log"
read -r port < <(python3 -c 'import socket
opened = [socket.create_server(("127.0.0.1", 0)) for _ in range('"$((nodes + 1))"')]
print(",".join(str(one.getsockname()[1]) for one in opened))')
IFS=, read -ra ports <<< "$port"
host="$(hostname -s)"
{
  cat << END
ClusterName=home
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=${ports[0]}
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
MinJobAge=3600
SchedulerParameters=sched_interval=1,bf_interval=1
KillWait=15
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=INFINITE OverSubscribe=NO
PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF MaxTime=INFINITE
END
  for ((number = 1; number <= nodes; number++)); do
    echo "NodeName=home$number NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[number]} CPUs=$cpus RealMemory=1 State=UNKNOWN"
  done
} > "$folder/slurm.conf"
export SLURM_CONF="$folder/slurm.conf"
{ cat /etc/hosts; for ((number = 1; number <= nodes; number++)); do echo "127.0.0.1 home$number"; done; } > "$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts
dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 status=none
chmod 400 "$folder/munge.key"
started=()
start() {  # each daemon in the foreground, so that its number is known
  "$@" > /dev/null 2>> "$folder/log/start.log" &
  started+=($!)
}
child=""
finish() {
  code=$?
  trap - EXIT
  if [ -n "$child" ]; then kill "$child" 2> /dev/null || true; fi
  scancel --state=PENDING 2> /dev/null || true
  scancel --user="$(id -un)" 2> /dev/null || true
  for _ in $(seq 100); do  # longer than KillWait
    [ -n "$(squeue -h 2> /dev/null)" ] || break
    sleep 0.2
  done
  for ((place = ${#started[@]} - 1; place >= 0; place--)); do
    kill "${started[place]}" 2> /dev/null || true
    wait "${started[place]}" 2> /dev/null || true
  done
  if [ -n "$made" ]; then rm -rf "$folder"; fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
start munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/munged.seed"
start slurmctld -D -c  # nothing of an earlier time in this folder
for ((number = 1; number <= nodes; number++)); do start slurmd -D -N "home$number"; done
ready() { [ "$(sinfo -h -N -p low -o %t 2> /dev/null | grep -c idle)" -ge "$nodes" ]; }
for _ in $(seq 150); do
  if ready || ! kill -0 "${started[@]}" 2> /dev/null; then break; fi
  sleep 0.2
done
if ! ready; then
  echo "error: SLURM did not start; its logs said last:" >&2
  tail -n 5 "$folder"/log/* >&2
  exit 2
fi
"$@" <&0 &
child=$!
wait "$child"

#!/bin/busybox sh
# Runs as process 1 of a guest: CONNECTIONS captured connections at one time, to two ports of one server, in one network
# namespace and from one address. `RESULT` lines are what the host reads, `SAID` lines what it repeats.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up; ip addr add 198.18.0.1/32 dev lo
ulimit -n 200000
half=$((CONNECTIONS / 2))
cat >/tmp/weir.yaml <<CONFIG
capture: {mode: required, heartbeat_timeout: 10s, detect_timeout: 1s, server_first_ports: [9001, 9002]}
server: {limits: {connections: 200000}}
logging: {access: false}
CONFIG
verdict() { # NAME EXPECTED ACTUAL
    if [ "$2" = "$3" ]; then echo "RESULT ok $1"; else echo "RESULT FAIL $1: expected [$2], got [$(echo "$3" | tr '\n' ' ' | tail -c 300)]"; fi
}
metric() { wget -qO- http://127.0.0.1:22140/metrics | awk -v name="weir_$1" '$1 == name { print $2 }'; }
weir serve --config /tmp/weir.yaml >/tmp/log 2>&1 & weir=$!
for _ in $(seq 300); do weir status >/dev/null 2>&1 && break; sleep 0.2; done
kill -0 $weir 2>/dev/null || { echo "RESULT FAIL start: $(tr '\n' ' ' </tmp/log | tail -c 600)"; poweroff -f; }
echo "SAID ip_local_port_range $(cat /proc/sys/net/ipv4/ip_local_port_range)"
begun=$(cut -d. -f1 /proc/uptime)
for port in 9001 9002; do
    perl /many.pl server 198.18.0.1 $port $half & servers="$servers $!"
    mkfifo /tmp/go-$port
    # Opened for writing as well: so it opens at once.
    weir exec -- perl /many.pl client 198.18.0.1 $port $half <>/tmp/go-$port >/tmp/client-$port 2>&1 & clients="$clients $!"
done
for port in 9001 9002; do
    until grep -qv '^$' /tmp/client-$port; do sleep 1; done
    verdict "connections to port $port are open" open "$(cat /tmp/client-$port)"
done
echo "SAID made in $(($(cut -d. -f1 /proc/uptime) - begun)) s"
verdict "as many are open as were made" $((half * 2)) "$(weir status --json | awk -F'[:,]' '/"active_connections"/ { print $2 + 0 }')"
echo "SAID weir: $(ls /proc/$weir/fd | wc -l) descriptors, $(awk '/VmRSS/ { print $2 }' /proc/$weir/status) KiB resident"
echo "SAID free memory of the guest: $(awk '/MemAvailable/ { print $2 }' /proc/meminfo) KiB"
ends=$(weir status --json | awk -F'[:,]' '/"entries"/ { entries = $2 } /"name": "ORIGINALS"/ { print entries + 0 }')
verdict "the kernel half has a record for each" $((half * 2)) "$ends"
for port in 9001 9002; do echo >/tmp/go-$port; done
wait $clients
kill $servers 2>/dev/null
for port in 9001 9002; do verdict "each of port $port carries data still" "open done" "$(echo $(cat /tmp/client-$port))"; done
verdict "no original destination was lost" 0 "$(metric lost_destinations_total)"
verdict "all were captured" $((half * 2)) "$(metric captured_connections_total)"
wait $servers
for _ in $(seq 60); do [ "$(weir status --json | awk -F'[:,]' '/"entries"/ { entries = $2 } /"name": "ORIGINALS"/ { print entries + 0 }')" = 0 ] && break; sleep 1; done
verdict "nothing is left of them" 0 "$(weir status --json | awk -F'[:,]' '/"entries"/ { entries = $2 } /"name": "ORIGINALS"/ { print entries + 0 }')"
echo "SAID log: $(tail -c 300 /tmp/log | tr '\n' ' ')"
echo "RESULT done"
poweroff -f

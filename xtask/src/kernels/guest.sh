#!/bin/busybox sh
# Runs as process 1 of a guest: weir on this kernel, judged line by line. `RESULT ok NAME` or `RESULT FAIL NAME: why` on
# the console is all that the host reads; the rest is for whoever looks into a failure.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up; ip addr add 198.18.0.1/32 dev lo; ip addr add 198.18.0.2/32 dev lo; ip -6 addr add fd00:18::1/128 dev lo
mkdir -p /www; echo hello >/www/index.html
for port in 8080 8081 8082 8083; do httpd -p $port -h /www; done
httpd -p '[fd00:18::1]:8080' -h /www
perl /dns.pl &

verdict() { # NAME EXPECTED ACTUAL
    if [ "$2" = "$3" ]; then echo "RESULT ok $1"; else echo "RESULT FAIL $1: expected [$2], got [$(echo "$3" | tr '\n' ' ' | tail -c 300)]"; fi
}
direct() { perl /client.pl "$@" 2>&1; }
captured() { weir exec -- perl /client.pl "$@" 2>&1; }
attached() { weir status --json 2>/dev/null | grep -c '"attached": true'; }
programs() { bpftool prog list 2>/dev/null | grep -c 'name weir_'; }
start() {
    weir serve --config /tmp/weir.yaml >/tmp/log 2>&1 & weir=$!
    for _ in $(seq 300); do
        weir status >/dev/null 2>&1 && return
        kill -0 $weir 2>/dev/null || break
        sleep 0.2
    done
    case $(uname -r) in
    5.4.*) verdict "refuses to capture, and says why" 1 "$(grep -c 'is too old to capture connections' /tmp/log)"; echo "RESULT done";;
    *) echo "RESULT FAIL start: $(tr '\n' ' ' </tmp/log | tail -c 600)";;
    esac
    poweroff -f
}

seq 1 20000 | awk '{ printf "203.%d.%d.%d\n", $1 / 65536, $1 / 256 % 256, $1 % 256 }' >/tmp/list
cat >/tmp/weir.yaml <<CONFIG
capture:
  mode: required
  # A guest without KVM is slow, and slower on a busy machine.
  heartbeat_timeout: 4s
  rules:
    - {name: port, ports: [8081], action: deny}
    - {name: list, destination_files: [/tmp/list], action: deny}
    - {name: user, users: [1000], action: deny}
    - {name: domain, domains: [named], ports: [8083], action: deny}
$(if [ -e /sys/kernel/btf/vmlinux ]; then echo "    - {name: file, executables: [/bin/perl], ports: [8082], action: deny}"; fi)
logging: {level: 'info,weir::redirect=debug'}
security: {acl: {destinations: {loopback: allow}}}
CONFIG
# Below 5.18 a refused connect() gives EPERM.
case $(uname -r) in 5.*) refused="Operation not permitted";; *) refused="Connection refused";; esac

start
verdict "every hook attached" HOOKS "$(attached)"
verdict "outside goes direct" hello "$(direct get 198.18.0.1 8080)"
verdict "IPv4 captured" hello "$(captured get 198.18.0.1 8080)"
verdict "IPv6 captured" hello "$(captured get fd00:18::1 8080)"
verdict "v4-mapped captured" hello "$(captured get ::ffff:198.18.0.1 8080)"
sleep 1
verdict "original destinations recorded" 3 "$(weir flows | grep -c 'captured perl')"
verdict "rule by port" "$refused" "$(direct get 198.18.0.1 8081)"
verdict "rule by 20,000 addresses" "$refused" "$(direct get 203.0.1.1 8080)"
verdict "rule spares other addresses" "Network is unreachable" "$(direct get 203.1.1.1 8080)"
verdict "rule by user" "$refused" "$(direct get 198.18.0.1 8080 1000)"
if [ -e /sys/kernel/btf/vmlinux ]; then verdict "rule by executable" "$refused" "$(direct get 198.18.0.1 8082)"; fi
verdict "address without a name" hello "$(captured get 198.18.0.2 8083)"
verdict "DNS, connected" "198.18.0.2 from 198.18.0.1 53" "$(captured resolve 198.18.0.1 53)"
verdict "DNS, unconnected" "198.18.0.2 from 198.18.0.1 53" "$(captured ask 198.18.0.1 53)"
verdict "DNS over IPv6, connected" "198.18.0.2 from fd00:18::1 53" "$(captured resolve fd00:18::1 53)"
verdict "DNS over IPv6, unconnected" "198.18.0.2 from fd00:18::1 53" "$(captured ask fd00:18::1 53)"
verdict "DNS went through weir" "weir_dns_queries_total 4" "$(wget -qO- http://127.0.0.1:22140/metrics | grep '^weir_dns_queries_total')"
verdict "rule by domain" "$refused" "$(captured get 198.18.0.2 8083)"
verdict "QUIC refused, connected" "$refused" "$(captured datagram 198.18.0.1 443)"
verdict "QUIC refused, unconnected" "$refused" "$(captured sendto fd00:18::1 443)"
verdict "other UDP goes direct" sent "$(captured sendto 198.18.0.1 54)"
sed -i '/name: port/d' /tmp/weir.yaml
weir capture reload
verdict "rules replaced" hello "$(direct get 198.18.0.1 8081)"
kill -STOP $weir; sleep 6
captured="$(echo $$ >/sys/fs/cgroup/cgroup.procs; direct get 198.18.0.1 8080)"
verdict "a stopped weir is in nobody's way" hello "$captured"
kill -CONT $weir; sleep 2
verdict "works again" hello "$(captured get 198.18.0.1 8080)"
kill -KILL $weir; wait $weir 2>/dev/null; sleep 1
verdict "SIGKILL leaves no program" 0 "$(programs)"
verdict "SIGKILL leaves the network" hello "$(direct get 198.18.0.1 8080)"
start
verdict "starts again" hello "$(captured get 198.18.0.1 8080)"
kill $weir; wait $weir
verdict "stops orderly" 0 "$?"
sleep 1
verdict "leaves no program" 0 "$(programs)"
echo "RESULT done"
poweroff -f

//! DNS by programs that people use, captured as they are: dig as a client, dnsmasq and systemd-resolved as resolvers that
//! ask another one.

use std::process::{Child, Command, Stdio};

use weir_tests::dns::{self, Reply, Server, address, answers};
use weir_tests::weir::{Weir, eventually};
use weir_tests::{netns, packages, scripts};

fn zone(asked: &dns::Asked) -> Reply {
    match (asked.name.as_str(), asked.kind) {
        ("www.example", 1) => answers(&[address("www.example", 300, "198.18.0.1")]),
        ("www.example", 28) => answers(&[address("www.example", 300, "fd00:18::1")]),
        ("long.example", 1) => Reply {
            truncated: true,
            answers: vec![address("long.example", 60, "198.18.9.9")],
            ..Reply::default()
        },
        _ => Reply { rcode: 3, ..Reply::default() },
    }
}

/// `dig ...` in a captured process: its words without blanks at the ends.
#[track_caller]
fn dig(weir: &Weir, arguments: &[&str]) -> String {
    let patient = ["dig", "+time=20", "+tries=1"];
    scripts::stdout(&mut weir.exec(&[&patient[..], arguments].concat()))
}

#[test]
fn dig_asks_any_server_over_udp_and_tcp() {
    netns::enter();
    let servers = [Server::start(netns::V4, zone), Server::start(netns::V6, zone)];
    let weir = Weir::capturing("");
    for server in &servers {
        let host = server.address.ip().to_string();
        let at = format!("@{host}");
        for way in ["+notcp", "+tcp"] {
            assert_eq!(dig(&weir, &[&at, way, "+short", "www.example"]), "198.18.0.1", "{at} {way}");
            assert_eq!(dig(&weir, &[&at, way, "+short", "www.example", "AAAA"]), "fd00:18::1");
            let whole = dig(&weir, &[&at, way, "none.example"]);
            assert!(whole.contains("status: NXDOMAIN"), "{whole}");
            // The real server, and no warning of an answer from somewhere else.
            assert!(whole.contains(&format!("SERVER: {host}#53({host})")), "{whole}");
            assert!(!whole.contains("reply from unexpected source"), "{whole}");
        }
        // Truncated: dig asks again over TCP on its own.
        let whole = dig(&weir, &[&at, "long.example"]);
        assert!(whole.contains("Truncated, retrying in TCP mode") && whole.contains("198.18.9.9"), "{whole}");
        // Several questions on one TCP connection.
        let all = dig(&weir, &[&at, "+tcp", "+keepopen", "+short", "www.example", "www.example", "AAAA"]);
        assert_eq!(all, "198.18.0.1\nfd00:18::1");
    }
    assert!(weir.metric("kernel_redirected_dns_total") > 0);
    assert_eq!(weir.metric("lost_destinations_total"), 0);
}

/// Ended when dropped.
struct Resolver(Child);

impl Drop for Resolver {
    fn drop(&mut self) {
        // It may have ended on its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It sends its queries from many sockets that are not connected, and takes answers only from where it has asked.
#[test]
fn dnsmasq_forwards_to_the_server_that_it_was_given() {
    netns::enter();
    let upstream = Server::start(netns::V4, zone);
    let weir = Weir::capturing("");
    let server = format!("--server={}", netns::V4);
    let listen = format!("--listen-address={}", netns::V4_OTHER);
    let folder = weir.folder().display().to_string();
    let log = format!("--log-facility={folder}/dnsmasq.log");
    let mut dnsmasq = weir.exec(&[
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--no-poll",
        "--bind-interfaces",
        "--user=root",
        "--pid-file=",
        "--cache-size=0",
        &log,
        &server,
        &listen,
    ]);
    let started = dnsmasq.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _resolver = Resolver(started.expect("weir starts"));
    let at = format!("@{}", netns::V4_OTHER);
    // Asked from outside, so that only dnsmasq's own queries pass weir.
    eventually("dnsmasq answers", || {
        let mut dig = Command::new("dig");
        let output =
            dig.args([&at, "+time=1", "+tries=1", "+short", "www.example"]).output().expect("dig runs");
        (String::from_utf8_lossy(&output.stdout).trim() == "198.18.0.1").then_some(())
    });
    assert!(weir.metric("dns_queries_total") > 0, "its query passed weir");
    let before = (upstream.asked().len(), weir.metric("dns_queries_total"));
    for way in ["+notcp", "+tcp"] {
        assert_eq!(dig(&weir, &[&at, way, "+short", "www.example", "AAAA"]), "fd00:18::1", "{way}");
        let whole = dig(&weir, &[&at, way, "none.example"]);
        assert!(whole.contains("status: NXDOMAIN"), "{whole}");
    }
    assert_eq!(dig(&weir, &[&at, "+short", "long.example"]), "198.18.9.9", "by TCP, both of them");
    assert!(weir.metric("dns_queries_total") > before.1 && upstream.asked().len() >= before.0);
    assert_eq!(weir.metric("lost_destinations_total"), 0);
}

/// Without systemd it wants no more than a folder and a user of its own. What it finds of the host is covered.
const RESOLVED: &str = "\
    cat /etc/passwd >$2/passwd; echo systemd-resolve:x:998:998::/:/bin/false >>$2/passwd\n\
    cat /etc/group >$2/group; echo systemd-resolve:x:998: >>$2/group\n\
    mount --bind $2/passwd /etc/passwd; mount --bind $2/group /etc/group\n\
    mount -t tmpfs none /run\n\
    mkdir -p /run/dbus /run/systemd/resolve /run/systemd/resolved.conf.d; chown 998:998 /run/systemd/resolve\n\
    cp $2/resolved.conf /run/systemd/resolved.conf.d/test.conf\n\
    export LD_LIBRARY_PATH=$1/usr/lib/x86_64-linux-gnu/systemd SYSTEMD_LOG_TARGET=console\n\
    exec $1/lib/systemd/systemd-resolved 2>$2/resolved.log";

/// It is asked at 127.0.0.53, and asks from sockets that are connected.
#[test]
fn systemd_resolved_forwards_to_the_server_that_it_was_given() {
    // Nothing can be downloaded from the namespace.
    let root = packages::unpacked(&["systemd-resolved", "libsystemd-shared"]).display().to_string();
    netns::enter();
    // It asks nobody where there is nothing but loopback.
    for arguments in [
        "link add name weir-a type veth peer name weir-b",
        "link set weir-a up",
        "link set weir-b up",
        "addr add 192.0.2.1/24 dev weir-a",
    ] {
        scripts::stdout(Command::new("ip").args(arguments.split(' ')));
    }
    let upstream = Server::start(netns::V4, zone);
    let weir = Weir::capturing("");
    let folder = weir.folder().display().to_string();
    let config = format!(
        "[Resolve]\nDNS={}\nFallbackDNS=\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\nCache=no\nDomains=~.\n",
        netns::V4
    );
    std::fs::write(weir.folder().join("resolved.conf"), config).expect("a file in a temporary folder");
    let mut resolved = weir.exec(&["unshare", "--mount", "sh", "-ec", RESOLVED, "sh", &root, &folder]);
    let started = resolved.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _resolver = Resolver(started.expect("weir starts"));
    let ask = || {
        let dig = ["@127.0.0.53", "+time=1", "+tries=1", "+short", "www.example"];
        let output = Command::new("dig").args(dig).output().expect("dig runs");
        (String::from_utf8_lossy(&output.stdout).trim() == "198.18.0.1").then_some(())
    };
    eventually("systemd-resolved answers", ask);
    assert!(weir.metric("dns_queries_total") > 0, "its query passed weir");
    for way in ["+notcp", "+tcp"] {
        let told = dig(&weir, &["@127.0.0.53", way, "+short", "www.example", "AAAA"]);
        assert_eq!(told, "fd00:18::1", "{way}");
        let whole = dig(&weir, &["@127.0.0.53", way, "none.example"]);
        assert!(whole.contains("status: NXDOMAIN"), "{whole}");
    }
    assert!(upstream.names().iter().all(|name| name.ends_with(".example")));
    assert_eq!(weir.metric("lost_destinations_total"), 0);
}

//! Where weir does not go, however the address is written: this host by default, metadata services, itself.

use std::io::Write;

use serde_json::Value;
use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect};

/// Asks for a place by CONNECT and by absolute-form.
fn ask(weir: &Weir, authority: &str) -> [Answer; 2] {
    let connect = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let get = format!("GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    [connect, get].map(|request| http::send(weir.proxy, request.as_bytes()).expect("an answer"))
}

#[track_caller]
fn check_denied(weir: &Weir, authority: &str, rule: &str) {
    for answer in ask(weir, authority) {
        assert_eq!(answer.status, 403, "{authority}: {}", answer.text());
        assert!(answer.text().contains(rule), "{authority}: {}", answer.text());
        assert_eq!(
            answer.field("proxy-status"),
            Some("weir; error=destination_ip_prohibited"),
            "{authority}"
        );
    }
}

/// The access list as it is by default.
const DEFAULTS: &str = "security: {acl: {destinations: {loopback: deny}}}";

#[test]
fn by_default_this_host_is_out_of_bounds() {
    let weir = Weir::explicit(DEFAULTS);
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let port = origin.address.port();
    let rule = "security.acl.destinations.loopback: deny";
    let hosts = [
        "127.0.0.1",
        "127.1.2.3",
        "localhost",
        "LOCALHOST",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        // What inet_aton(3) takes for 127.0.0.1.
        "2130706433",
        "127.1",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
    ];
    for host in hosts {
        check_denied(&weir, &format!("{host}:{port}"), rule);
    }
    assert_eq!(origin.connections(), 0, "something got through");
    assert_eq!(weir.metric("upstream_connects_total"), 0);
    let flows = weir.flows(hosts.len() * 2);
    assert!(flows.iter().all(|flow| flow["end"] == "denied" && flow["status"] == 403), "{flows:?}");
    assert!(flows.iter().all(|flow| flow["verdict"].as_str().is_some_and(|verdict| verdict.contains(rule))));
    assert_eq!(weir.metric("denied_total"), flows.len() as u64);
}

#[test]
fn link_local_and_metadata_addresses_are_out_of_bounds() {
    // Nothing of this leaves the host: it is refused before connect().
    let weir = Weir::explicit("");
    for (host, rule) in [
        ("169.254.169.254", "destinations.metadata: deny"),
        ("2852039166", "destinations.metadata: deny"),
        ("[::ffff:169.254.169.254]", "destinations.metadata: deny"),
        ("[fd00:ec2::254]", "destinations.metadata: deny"),
        ("[64:ff9b::a9fe:a9fe]", "destinations.metadata: deny"),
        ("100.100.100.200", "destinations.metadata: deny"),
        ("169.254.1.1", "destinations.link_local: deny"),
        ("[fe80::1]", "destinations.link_local: deny"),
        ("224.0.0.1", "no unicast address"),
        ("255.255.255.255", "no unicast address"),
        ("[ff02::1]", "no unicast address"),
    ] {
        check_denied(&weir, &format!("{host}:80"), rule);
    }
    assert_eq!(weir.metric("upstream_connects_total") + weir.metric("upstream_failures_total"), 0);
}

#[test]
fn classes_can_be_opened_and_closed() {
    let open = Weir::explicit("security: {acl: {destinations: {private: deny}}}");
    check_denied(&open, "10.0.0.1:80", "destinations.private: deny");
    check_denied(&open, "[fd12::1]:80", "destinations.private: deny");
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", origin.address);
    let answer = http::send(open.proxy, request.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Addresses of this host's interfaces besides loopback, as the kernel tells them.
fn interface_addresses() -> Vec<String> {
    let output =
        std::process::Command::new("ip").args(["-j", "addr"]).output().expect("iproute2 is installed");
    let interfaces: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let all =
        interfaces.as_array().into_iter().flatten().flat_map(|link| link["addr_info"].as_array().cloned());
    let addresses = all.flatten().filter(|address| address["scope"] == "global");
    addresses
        .filter_map(|address| {
            let text = address["local"].as_str()?;
            Some(if text.contains(':') { format!("[{text}]") } else { text.to_owned() })
        })
        .collect()
}

#[test]
fn weir_never_connects_to_itself() {
    const LOOPBACK: [&str; 9] = [
        "127.0.0.1",
        "127.9.9.9",
        "localhost",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "127.1",
    ];
    let weir = Weir::explicit("");
    for host in LOOPBACK {
        for port in [weir.proxy.port(), weir.admin.port()] {
            check_denied(&weir, &format!("{host}:{port}"), "weir's own");
        }
    }
    assert_eq!(weir.metric("upstream_connects_total"), 0);
    assert_eq!(weir.metric("explicit_connections_total"), 4 * 9, "nothing came back in");

    // One that is open to others is found under every address of this host.
    let open = Weir::explicit("server: {host: 0.0.0.0}");
    let port = open.proxy.port();
    for host in interface_addresses().iter().map(String::as_str).chain(LOOPBACK) {
        check_denied(&open, &format!("{host}:{port}"), "weir's own");
    }
    assert_eq!(open.metric("upstream_connects_total"), 0);
}

#[test]
fn a_request_that_comes_back_is_a_loop() {
    let weir = Weir::explicit("");
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let ask = |via: &str| {
        let mut stream = connect(weir.proxy);
        let fields = format!("Host: x\r\n{via}");
        write!(stream, "GET http://{}/ HTTP/1.1\r\n{fields}\r\n", origin.address).expect("weir takes it");
        read_answer(&mut stream, "GET").expect("an answer")
    };
    assert_eq!(ask("Via: 1.1 somebody-else\r\n").status, 200);
    let arrived = origin.requests().pop().expect("a request");
    let vias: Vec<_> = arrived.head.lines().filter(|line| line.starts_with("Via: ")).collect();
    assert_eq!(vias[0], "Via: 1.1 somebody-else", "the way so far is kept, in order");
    let own = vias[1].strip_prefix("Via: 1.1 ").expect("our own");
    for via in [
        format!("Via: 1.1 {own}\r\n"),
        format!("Via: 1.0 fred, 1.1 {own} (a comment), 1.1 x\r\n"),
        format!("Via: 1.1 x\r\nvia: HTTP/1.1 {own}\r\n"),
    ] {
        let answer = ask(&via);
        assert_eq!(answer.status, 508, "{via}: {}", answer.text());
    }
    // Another instance has another name.
    let other = Weir::explicit("");
    let mut stream = connect(other.proxy);
    write!(stream, "GET http://{}/ HTTP/1.1\r\nHost: x\r\nVia: 1.1 {own}\r\n\r\n", origin.address)
        .expect("weir takes it");
    assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 200);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn explain_says_the_same_as_the_proxy_does() {
    let weir = Weir::explicit(DEFAULTS);
    for (destination, verdict, rule) in [
        ("127.0.0.1:80", "deny", "loopback"),
        ("localhost:80", "deny", "loopback"),
        ("169.254.169.254:80", "deny", "metadata"),
        ("93.184.216.34:443", "allow", ""),
        (&weir.proxy.to_string(), "deny", "weir's own"),
    ] {
        let output = weir.command(&["explain", "--json", destination]).output().expect("weir runs");
        let explained: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        for found in explained["verdicts"].as_array().expect("verdicts") {
            assert_eq!(found["proxy"]["verdict"], verdict, "{explained}");
            assert!(
                rule.is_empty() || found["proxy"]["reason"].as_str().is_some_and(|why| why.contains(rule))
            );
        }
    }
}

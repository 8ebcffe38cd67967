//! CONNECT, by hand and by real clients; and where the explicit proxy listens.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use weir_tests::http;
use weir_tests::origin::{Origin, read_answer};
use weir_tests::pattern;
use weir_tests::weir::{Weir, connect, eventually, free_port};

#[test]
fn bytes_that_come_with_the_head_go_first() {
    let weir = Weir::explicit("");
    let server = http::server("127.0.0.1", |stream| {
        assert_eq!(pattern::receive(&stream, 7).expect("the client's bytes"), 100_000);
        pattern::send(&stream, 8, 100_000).expect("weir takes it");
    });
    let mut bytes = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n").into_bytes();
    pattern::send(&mut bytes, 7, 100_000).expect("memory");
    let mut stream = connect(weir.proxy);
    stream.write_all(&bytes).expect("weir takes it");
    stream.shutdown(std::net::Shutdown::Write).expect("a half-close");
    let head = http::read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // RFC 9110 §9.3.6: no framing fields, the tunnel begins after the empty line.
    assert!(!head.to_lowercase().contains("content-length"), "{head}");
    assert_eq!(pattern::receive(&stream, 8).expect("the server's bytes"), 100_000);
    let flow = &weir.flows(1)[0];
    assert_eq!((&flow["method"], &flow["status"]), (&"CONNECT".into(), &200.into()), "{flow}");
    assert_eq!((&flow["sent"], &flow["received"]), (&100_000.into(), &100_000.into()), "{flow}");
    assert_eq!(flow["upstream"], server.to_string(), "{flow}");
}

#[track_caller]
fn check_refused(weir: &Weir, target: &str, status: u16, words: &str) {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let answer = http::send(weir.proxy, request.as_bytes()).expect("an answer");
    assert_eq!(answer.status, status, "CONNECT {target}: {}", answer.text());
    assert!(answer.text().contains(words), "CONNECT {target}: {}", answer.text());
    assert_eq!(answer.field("connection"), Some("close"), "CONNECT {target}: {}", answer.head);
    let request = format!("GET http://{target}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = http::send(weir.proxy, request.as_bytes()).expect("an answer");
    assert_eq!(answer.status, status, "GET {target}: {}", answer.text());
    assert!(answer.text().contains(words), "GET {target}: {}", answer.text());
    assert!(answer.field("proxy-status").is_some_and(|value| value.starts_with("weir; error=")));
}

#[test]
fn what_can_t_be_reached_is_a_bad_gateway() {
    let weir = Weir::explicit("");
    check_refused(&weir, &format!("127.0.0.1:{}", free_port()), 502, "refused");
    check_refused(&weir, &format!("[::1]:{}", free_port()), 502, "refused");
    check_refused(&weir, "no-such-host.invalid:80", 502, "no-such-host.invalid");
}

#[test]
fn a_refused_request_leaves_its_connection_usable() {
    let weir = Weir::explicit("");
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut stream = connect(weir.proxy);
    for (target, status) in [(format!("127.0.0.1:{}", free_port()), 502), (origin.address.to_string(), 200)] {
        write!(stream, "GET http://{target}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes the request");
        assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, status);
    }
}

#[test]
fn curl_tunnels_http() {
    let weir = Weir::explicit("");
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let url = format!("http://{}/x", origin.address);
    let output = weir.curl(&["-p", &url, &url]).output().expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "okok");
    let requests = origin.requests();
    assert!(requests[0].head.starts_with("GET /x HTTP/1.1\r\n"), "{}", requests[0].head);
    assert_eq!(requests[0].field("via"), None, "what is in a tunnel is nobody's business");
    assert_eq!((requests.len(), origin.connections()), (2, 1));
}

#[test]
fn curl_reaches_a_tls_server() {
    let weir = Weir::explicit("");
    let (key, certificate) = (weir.folder().join("key.pem"), weir.folder().join("cert.pem"));
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl is installed").success());
    let port = free_port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}"), "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    eventually("a TLS server", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
    let trusted = certificate.display().to_string();
    let url = format!("https://localhost:{port}/");
    let output = weir.curl(&["--cacert", &trusted, &url]).output().expect("curl is installed");
    // Whoever is not trusted by the client is not trusted through weir either.
    let distrusting = quiet(&mut weir.curl(&[&url])).expect("curl is installed");
    let _ = server.kill();
    let _ = server.wait();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("s_server"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(distrusting.code(), Some(60), "curl must see the server's own certificate");
    assert_eq!(weir.flows(1)[0]["authority"], format!("localhost:{port}"));
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let weir = Weir::explicit("server: {timeouts: {idle: 1s, request_head: 10ms}}");
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut fresh = connect(weir.proxy);
    let mut kept = connect(weir.proxy);
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
    kept.write_all(request.as_bytes()).expect("weir takes the request");
    assert_eq!(read_answer(&mut kept, "GET").expect("an answer").status, 200);
    for stream in [&mut fresh, &mut kept] {
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("an end in order");
        assert_eq!(String::from_utf8_lossy(&said), "");
    }
}

/// The local addresses on which a process listens for TCP.
fn listening(weir: &Weir) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{}/fd", weir.pid())).expect("weir is running");
    let links = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    let sockets: HashSet<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{}/net/{table}", weir.pid())).expect("/proc");
        for line in text.lines().skip(1) {
            let columns: Vec<_> = line.split_whitespace().collect();
            // include/net/tcp_states.h: 0A is TCP_LISTEN.
            if columns[3] == "0A" && sockets.contains(columns[9]) {
                found.push(columns[1].split(':').next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}

#[test]
fn only_loopback_is_listened_on() {
    let weir = Weir::explicit("");
    let addresses = listening(&weir);
    assert!(addresses.len() >= 2, "{addresses:?}");
    // 127.0.0.1, as /proc/net/tcp writes it on this byte order.
    let loopback = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
    assert!(addresses.iter().all(|address| *address == loopback), "{addresses:?}");
    assert!(!weir.log().contains("not a loopback address"), "{}", weir.log());

    let open = Weir::explicit("server: {host: 0.0.0.0}");
    assert!(open.log().contains("not a loopback address"), "{}", open.log());
}

#[test]
fn the_next_free_port_is_taken_and_told() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let first = taken.local_addr().expect("a bound socket").port();
    let last = first.checked_add(9).expect("ephemeral ports end below 61000");
    let weir = Weir::explicit(&format!("server: {{port: {first}, port_range: {first}-{last}}}"));
    let status = weir.status();
    let port = u16::try_from(status["port"].as_u64().expect("a port")).expect("a port");
    assert!((first + 1..=last).contains(&port), "{status}");
    assert_eq!(status["proxy_url"], format!("http://127.0.0.1:{port}"));
    eventually("the log names the port", || {
        weir.log().contains(&format!("http://127.0.0.1:{port}")).then_some(())
    });
    let file = std::fs::read(weir.folder().join("state/state.json")).expect("a state file");
    let state: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(state["proxy"], format!("127.0.0.1:{port}"), "{state}");
    assert_eq!(
        (&state["pid"], &state["admin"]),
        (&weir.pid().as_raw().into(), &weir.admin.to_string().into())
    );

    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", origin.address);
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    assert_eq!(http::send(proxy, request.as_bytes()).expect("an answer").status, 200);
}

#[test]
fn no_free_port_is_an_error_that_names_the_range() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = taken.local_addr().expect("a bound socket").port();
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let output = Command::new(weir_tests::weir::binary())
        .args(["serve", "--set", "capture.mode=off", "--set", "admin.port=0"])
        .args(["--set", &format!("admin.state_dir={}", folder.path().display())])
        .args(["--set", &format!("server.port={port}"), "--set", &format!("server.port_range={port}-{port}")])
        .output()
        .expect("weir runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("{port}-{port}")) && text.contains("server.port"), "{text}");
    assert!(!folder.path().join("state.json").exists());
}

//! Backends that fail: real nginx servers of which one is killed, one slow, one returns errors and one is drained, under
//! load; and what is tried again, how often, and what is not.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;
use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::scripts;
use weir_tests::weir::{Weir, connect, eventually, free_port};

/// Those of a test under load.
const CLIENTS: usize = 8;

/// An nginx; killed when dropped.
struct Nginx {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Nginx {
    /// One whose every location is this. `name` is in its answers.
    fn start(name: &str, location: &str) -> Self {
        let nginx = Self::on(free_port(), name, location);
        eventually("nginx listens", || TcpStream::connect(nginx.address).ok());
        nginx
    }

    fn on(port: u16, name: &str, location: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let shown = folder.path().display();
        let mut text = format!(
            "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log;\n\
             events {{ worker_connections 1024; }}\nhttp {{\naccess_log {shown}/access.log;\n\
             limit_req_zone $server_port zone=slow:1m rate=10r/s;\nkeepalive_requests 1000000;\n"
        );
        for place in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let _ = writeln!(text, "{place}_temp_path {shown}/{place};");
        }
        let _ = write!(
            text,
            "server {{ listen 127.0.0.1:{port}; root {shown}/root; add_header X-Is {name} always;\n\
             location / {{ {location} }} }} }}\n"
        );
        std::fs::create_dir(folder.path().join("root")).expect("a folder of ours");
        std::fs::write(folder.path().join("root/page"), "a page").expect("a folder of ours");
        std::fs::write(folder.path().join("nginx.conf"), text).expect("a folder of ours");
        let binary = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"];
        let binary = binary.into_iter().find(|path| std::path::Path::new(path).exists());
        let child = Command::new(binary.unwrap_or("nginx"))
            .args(["-p".as_ref(), folder.path().as_os_str()])
            .args(["-c".as_ref(), folder.path().join("nginx.conf").as_os_str()])
            .args(["-e".as_ref(), folder.path().join("error.log").as_os_str()])
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        Self { child, folder, address: ([127, 0, 0, 1], port).into() }
    }

    fn kill(&mut self) {
        // Killed already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Requests so far.
    fn requests(&self) -> usize {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default().lines().count()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Clients that ask one thing after the other over kept connections.
struct Load {
    ends: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(weir: &Weir, clients: usize) -> Self {
        let (ends, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..clients).map(|_| {
            let (ends, good, proxy) = (Arc::clone(&ends), Arc::clone(&good), weir.proxy);
            std::thread::spawn(move || {
                let (mut bad, mut stream) = (Vec::new(), connect(proxy));
                while !ends.load(Ordering::Relaxed) {
                    let asked = stream.write_all(b"GET /page HTTP/1.1\r\nHost: shop.example\r\n\r\n");
                    match asked.and_then(|()| read_answer(&mut stream, "GET")) {
                        Ok(answer) if answer.status == 200 && answer.body == b"a page" => {
                            good.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(answer) => bad.push(answer.head),
                        Err(error) => {
                            bad.push(error.to_string());
                            stream = connect(proxy);
                        }
                    }
                }
                bad
            })
        });
        Self { threads: threads.collect(), ends, good }
    }

    /// Waits for so many good answers more.
    fn go_on(&self, requests: usize) {
        let wanted = self.good.load(Ordering::Relaxed) + requests;
        eventually("more answers", || (self.good.load(Ordering::Relaxed) >= wanted).then_some(()));
    }

    /// How many there were, all of them good.
    fn end(self) -> usize {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let bad = thread.join().expect("a client");
            assert!(bad.is_empty(), "{} bad answers, such as: {}", bad.len(), bad[0]);
        }
        self.good.load(Ordering::Relaxed)
    }
}

/// A group called shop of these addresses, called m0 and so on, with these settings more.
fn group(members: &[SocketAddr], settings: &str) -> String {
    let mut text =
        format!("routing:\n  default_backend: shop\n  backends:\n  - name: shop\n{settings}    members:\n");
    for (number, address) in members.iter().enumerate() {
        let _ = writeln!(text, "    - {{url: 'http://{address}', name: m{number}}}");
    }
    text
}

/// A member, as weir tells of it.
fn member(weir: &Weir, number: usize) -> Value {
    let told = http::get(weir.admin, "/backends").expect("the admin API answers").json();
    told["backends"][0]["members"][number].clone()
}

fn is(weir: &Weir, number: usize, state: &str) {
    eventually(&format!("m{number} is {state}"), || (member(weir, number)["state"] == state).then_some(()));
}

#[test]
fn one_killed_one_slow_one_failing_one_drained_and_no_error() {
    let mut killed = Nginx::start("killed", "");
    let slow = Nginx::start("slow", "limit_req zone=slow burst=100000;");
    let failing = Nginx::start("failing", "return 503;");
    let drained = Nginx::start("drained", "");
    let members = [killed.address, slow.address, failing.address, drained.address];
    let weir = Weir::explicit(&group(&members, "    balance: least_requests\n"));
    let load = Load::on(&weir, CLIENTS);
    load.go_on(500);
    is(&weir, 2, "ejected");
    let failures = failing.requests();
    let (fast, slower) = (killed.requests().min(drained.requests()), slow.requests());
    assert!(slower < fast, "the slow one has had {slower}, the others at least {fast} each");
    killed.kill();
    load.go_on(500);
    is(&weir, 0, "ejected");
    let told = scripts::stdout(&mut weir.command(&["backends", "drain", "shop", "m3"]));
    assert!(told.contains("draining"), "{told}");
    eventually("m3 has nothing under way", || (member(&weir, 3)["active"] == 0).then_some(()));
    let last = drained.requests();
    // The slow one has them all now.
    load.go_on(20);
    assert_eq!((drained.requests(), failing.requests()), (last, failures));
    weir.command(&["backends", "enable", "shop", "m3"]).output().expect("weir runs");
    load.go_on(500);
    let all = load.end();
    assert!(drained.requests() > last);
    let retried = weir.metric("backend_retries_total{backend=\"shop\"}");
    assert!(retried >= 6, "five failures, and one connection at least: {retried}");
    // What each client had just got is not in the log of one that was killed.
    eventually("the others have served the rest", || {
        let served: usize = [&killed, &slow, &drained].iter().map(|nginx| nginx.requests()).sum();
        (served + CLIENTS >= all).then_some(())
    });
    // Who was asked twice says so.
    let flows = weir.flows(1);
    assert!(flows.iter().all(|flow| flow["tries"].as_u64().is_some_and(|tries| tries <= 3)), "{flows:?}");
    assert!(weir.log().contains(" tries=2 "), "{}", weir.log());
}

#[test]
fn routes_and_groups_change_under_load_without_a_lost_request() {
    let (one, other, third) = (Nginx::start("one", ""), Nginx::start("other", ""), Nginx::start("third", ""));
    let weir = Weir::explicit(&group(&[one.address, other.address], ""));
    let load = Load::on(&weir, CLIENTS);
    for (members, settings) in [
        (&[one.address, third.address][..], "    balance: hash\n"),
        (&[other.address], "    max_requests: 4\n"),
        (&[other.address, one.address, third.address], "    sticky_cookie: at\n"),
        (&[third.address, other.address], "    slow_start: 1s\n"),
    ] {
        load.go_on(200);
        weir.reload(&group(members, settings));
    }
    load.go_on(200);
    let port = third.address.port();
    weir.reload(&format!(
        "routing: {{rules: [{{match: {{path: /page}}, forward: {{target: 'http://127.0.0.1:{port}'}}}}]}}"
    ));
    load.go_on(200);
    load.end();
}

#[test]
fn checks_tell_who_is_down_and_who_is_up_again() {
    let (up, mut down) = (Nginx::start("up", ""), Nginx::start("down", ""));
    let checks = "    check: {kind: http, path: /page, statuses: 200, interval: 100ms, timeout: 5s, rise: 1, fall: 2}\n";
    let weir = Weir::explicit(&group(&[up.address, down.address], checks));
    let healthy =
        |number: usize| weir.metric(&format!("backend_healthy{{backend=\"shop\",member=\"m{number}\"}}"));
    eventually("both were asked", || (up.requests() > 1 && down.requests() > 1).then_some(()));
    assert_eq!((healthy(0), healthy(1)), (1, 1));
    down.kill();
    is(&weir, 1, "down");
    assert_eq!((healthy(0), healthy(1)), (1, 0));
    let told = scripts::stdout(&mut weir.command(&["backends", "list"]));
    assert!(told.contains("down") && told.contains("(connect: Connection refused"), "{told}");
    let explained = scripts::stdout(&mut weir.command(&["explain", "--gateway", "http://shop.example/"]));
    assert!(explained.contains(" m0, up") && explained.contains(" m1, down"), "{explained}");
    let load = Load::on(&weir, 4);
    load.go_on(100);
    let _again = Nginx::on(down.address.port(), "down", "");
    is(&weir, 1, "up");
    load.go_on(100);
    load.end();
    // Nobody is left: that is said at once, and nothing of who was there.
    weir.api("POST", "/backends", Some(&json!({ "backend": "shop", "member": "m0", "drain": true })));
    weir.api("POST", "/backends", Some(&json!({ "backend": "shop", "member": "m1", "weight": 0 })));
    let answer = ask(&weir, "GET", "");
    assert_eq!(answer.status, 503, "{}", answer.head);
    let port = up.address.port().to_string();
    assert!(!answer.text().contains(&port) && !answer.head.contains(&port), "{}", answer.text());
}

#[track_caller]
fn ask(weir: &Weir, method: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request =
        format!("{method} /page HTTP/1.1\r\nHost: shop.example\r\n{length}Connection: close\r\n\r\n{body}");
    http::send(weir.proxy, request.as_bytes()).expect("an answer")
}

/// A server that reads a request to its end, and closes the connection without a word.
fn silent() -> (http::Server, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let server = http::server("127.0.0.1", move |mut stream| {
        if matches!(weir_tests::origin::read_request(&mut stream), Ok(Some(_))) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (server, count)
}

#[test]
fn only_what_may_be_repeated_is_repeated() {
    let origin = Origin::start(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let (silent, asked) = silent();
    // The silent one is asked first, each time.
    let weir = Weir::explicit(
        &group(&[*silent, origin.address], "    outliers: {failures: 0}\n    balance: least_requests\n")
            .replace("m0}", "m0, weight: 256}"),
    );
    for (method, body) in [("GET", ""), ("PUT", "content that is sent again"), ("DELETE", "")] {
        let before = asked.load(Ordering::SeqCst);
        for _ in 0..20 {
            let answer = ask(&weir, method, body);
            assert_eq!((answer.status, answer.text().as_str()), (200, body), "{method}");
        }
        assert!(asked.load(Ordering::SeqCst) > before, "{method} was never with the silent one");
    }
    let flows = weir.flows(60);
    let mut puts = flows.iter().filter(|flow| flow["method"] == "PUT" && flow["tries"] == 2);
    assert!(puts.all(|flow| flow["sent"] == "content that is sent again".len()), "{flows:?}");
    // Nobody knows what has become of a POST.
    let statuses: Vec<_> = (0..20).map(|_| ask(&weir, "POST", "x").status).collect();
    assert!(
        statuses.contains(&502) && statuses.iter().all(|status| [200, 502].contains(status)),
        "{statuses:?}"
    );
    let posts = origin.requests().iter().filter(|request| request.method() == "POST").count();
    assert_eq!(posts, statuses.iter().filter(|status| **status == 200).count(), "none was sent twice");
    // Of one that was never connected, everybody knows.
    let weir = Weir::explicit(&group(
        &[([127, 0, 0, 1], free_port()).into(), origin.address],
        "    outliers: {failures: 0}\n",
    ));
    assert!((0..10).all(|_| ask(&weir, "POST", "x").status == 200));
}

#[test]
fn retries_have_a_budget() {
    let failing = [
        Origin::fixed("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"),
        Origin::fixed("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"),
    ];
    let members = [failing[0].address, failing[1].address];
    let settings = "    outliers: {failures: 0}\n    retries: {attempts: 1, budget: 1, per_second: 0}\n";
    let weir = Weir::explicit(&group(&members, settings));
    for _ in 0..100 {
        let answer = ask(&weir, "GET", "");
        assert_eq!((answer.status, answer.text().as_str()), (503, "busy"), "the last answer is the client's");
    }
    let sent: usize = failing.iter().map(|origin| origin.requests().len()).sum();
    // What was saved up (five), and one in a hundred.
    assert!((105..=106).contains(&sent), "{sent}; a retry each would be 200");
    assert!(weir.metric("backend_retries_denied_total{backend=\"shop\"}") >= 94);
}

#[test]
fn a_breaker_leaves_a_failing_member_alone_and_tries_it_with_one_request() {
    let broken = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&broken);
    let origin = Origin::start(move |_| {
        let status = if flag.load(Ordering::SeqCst) { "500 Broken" } else { "200 OK" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let settings =
        "    outliers: {failures: 0}\n    breaker: {share: 50, requests: 10, window: 1h, open: 300ms}\n";
    let weir = Weir::explicit(&group(&[origin.address], settings));
    let statuses: Vec<_> = (0..10).map(|_| ask(&weir, "GET", "").status).collect();
    assert_eq!(statuses, [500; 10]);
    assert_eq!(member(&weir, 0)["breaker_openings"], 1);
    broken.store(false, Ordering::SeqCst);
    eventually("its breaker is closed", || (ask(&weir, "GET", "").status == 200).then_some(()));
    assert_eq!(member(&weir, 0)["state"], "up");
}

#[test]
fn one_that_takes_too_long_is_left_for_another() {
    let stuck = http::server("127.0.0.1", |mut stream| {
        // It waits for a second request, which never comes.
        let _ = (http::read_head(&mut stream), http::read_head(&mut stream));
    });
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let settings = "    outliers: {failures: 1}\n    retries: {timeout: 200ms}\n";
    let weir = Weir::explicit(&group(&[*stuck, origin.address], settings));
    assert!((0..4).all(|_| ask(&weir, "GET", "").status == 200));
    assert_eq!(member(&weir, 0)["state"], "ejected");
}

#[test]
fn one_that_cuts_its_answers_off_is_ejected() {
    let cutting = http::server("127.0.0.1", |mut stream| {
        let _ = http::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    });
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let weir = Weir::explicit(&group(&[*cutting, origin.address], "    outliers: {failures: 2}\n"));
    for _ in 0..4 {
        // Half of them are cut off for the client as well: there is no way back once it has got a head.
        let _ = http::send(weir.proxy, b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    }
    is(&weir, 0, "ejected");
    assert!((0..4).all(|_| ask(&weir, "GET", "").status == 200));
}

/// What the API refuses.
#[test]
fn wrong_changes() {
    let weir = Weir::explicit(&group(&[([127, 0, 0, 1], free_port()).into()], ""));
    for (body, status) in [
        (json!({ "backend": "shop", "member": "m9", "drain": true }), 404),
        (json!({ "backend": "shp", "member": "m0", "drain": true }), 404),
        (json!({ "backend": "shop", "member": "m0" }), 400),
        (json!({ "backend": "shop", "member": "m0", "weight": 257 }), 400),
        (json!({ "backend": "shop", "member": "m0", "weight": -1 }), 400),
        (json!({ "backend": "shop", "member": "m0", "ejected": true }), 400),
    ] {
        assert_eq!(weir.api("POST", "/backends", Some(&body)).0, status, "{body}");
    }
    // Over TCP, without the token.
    let change = b"POST /backends HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let status = http::send(weir.admin, change).expect("an answer").status;
    assert!([401, 403].contains(&status), "{status}");
}

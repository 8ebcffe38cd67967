//! `security.auth` and contexts: who is served, what others are told, and that no password goes anywhere.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use weir_tests::http2;
use weir_tests::origin::{Origin, Request, read_answer};
use weir_tests::weir::{Weir, assert_reset, binary, connect, eventually};

/// The hash of `s3cret`, as cheap as may be.
fn hash() -> String {
    let mut child = Command::new(binary())
        .args(["config", "hash-password"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("weir starts");
    child.stdin.take().expect("a pipe").write_all(b"s3cret-canary\n").expect("weir reads");
    let output = child.wait_with_output().expect("weir ends");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

const PASSWORD: &str = "s3cret-canary";

/// A weir that asks for credentials, and has one user, alice.
fn weir(mode: &str, more: &str) -> Weir {
    let hash = hash();
    Weir::explicit(&format!(
        "logging: {{level: 'trace'}}\nsecurity:\n  auth: {{mode: {mode}, release_grace: 200ms, users: \
         [{{name: alice, password_hash: '{hash}'}}]}}\n{more}"
    ))
}

/// Says what it got of the client's credentials.
fn origin() -> Origin {
    Origin::start(|request: &Request| {
        let body = if request.head.to_lowercase().contains("proxy-authorization") { "leak" } else { "good" };
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    })
}

fn curl(weir: &Weir, arguments: &[&str]) -> Output {
    weir.curl(&["-m", "30", "-w", "%{http_code}/%{http_connect}"])
        .args(arguments)
        .output()
        .expect("curl runs")
}

#[track_caller]
fn check(weir: &Weir, arguments: &[&str], expected: &str) {
    let output = curl(weir, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with(expected), "{arguments:?}: {text}, {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_user_is_served_by_every_protocol() {
    let (weir, origin) = (weir("required", ""), origin());
    let url = format!("http://{}/", origin.address);
    let right = format!("alice:{PASSWORD}");
    check(&weir, &[&url], "407/000");
    check(&weir, &["-U", "alice:wrong", &url], "407/000");
    check(&weir, &["-U", &right, &url], "good200/000");
    check(&weir, &["-U", &right, "--proxy1.0", &weir.proxy.to_string(), &url], "good200/000");
    check(&weir, &["-p", &url], "000/407");
    check(&weir, &["-U", &right, "-p", &url], "good200/200");
    // curl asks without first, as it is told to, and answers the challenge.
    check(&weir, &["--proxy-anyauth", "-U", &right, &url], "good200/000");
    check(&weir, &["--proxy-anyauth", "-U", &right, "-p", &url], "good200/200");
    for (user, expected) in
        [(Some(right.as_str()), "good200/000"), (Some("alice:no"), "000/000"), (None, "000/000")]
    {
        let socks = format!("socks5h://{}", weir.proxy);
        let mut arguments = vec!["-x", &socks, &url];
        user.iter().for_each(|user| arguments.extend(["-U", user]));
        check(&weir, &arguments, expected);
    }
    let challenge = curl(&weir, &["-o", "/dev/null", "-D", "-", &url]);
    let head = String::from_utf8_lossy(&challenge.stdout).to_lowercase();
    assert!(head.contains("proxy-authenticate: basic realm=\"weir\", charset=\"utf-8\""), "{head}");
    assert!(origin.requests().iter().all(|request| !request.head.to_lowercase().contains("proxy-")));
    let flows = weir.flows(14);
    let served = flows.iter().filter(|flow| flow["user"] == "alice" && flow["end"] == "complete");
    assert_eq!(served.count(), 6, "{flows:?}");
    assert!(weir.metric("denied_by_auth_total") >= 5);
}

/// A connection is kept after a 407 to a request that was read whole, and closed after one to CONNECT: what comes behind
/// that may be the tunnel's.
#[test]
fn what_becomes_of_the_connection() {
    let (weir, origin) = (weir("required", ""), origin());
    let server = origin.address;
    let mut stream = connect(weir.proxy);
    let ask = |stream: &mut TcpStream, fields: &str| {
        write!(stream, "GET http://{server}/ HTTP/1.1\r\nHost: {server}\r\n{fields}\r\n")
            .expect("weir reads");
        read_answer(stream, "GET").expect("an answer").status
    };
    assert_eq!(ask(&mut stream, ""), 407);
    assert_eq!(ask(&mut stream, "Proxy-Authorization: Basic !\r\n"), 407);
    // alice:s3cret-canary
    let right = "Proxy-Authorization: Basic YWxpY2U6czNjcmV0LWNhbmFyeQ==\r\n";
    assert_eq!(ask(&mut stream, right), 200);
    assert_eq!(ask(&mut stream, &format!("{right}{right}")), 407, "two are none");
    assert_eq!(ask(&mut stream, ""), 407, "each request is asked anew");

    let mut stream = connect(weir.proxy);
    write!(stream, "CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("weir reads");
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("an orderly end");
    assert!(all.starts_with("HTTP/1.1 407 ") && all.to_lowercase().contains("connection: close"), "{all}");
    assert_eq!(all.matches("HTTP/1.1").count(), 1, "{all}");
}

#[test]
fn over_http2_each_stream_is_asked() {
    let (weir, origin) = (weir("required", ""), origin());
    let (proxy, server) = (weir.proxy, origin.address);
    let statuses = http2::run(async move {
        let stream = tokio::net::TcpStream::connect(proxy).await.expect("weir listens");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(async { drop(connection.await) });
        let mut statuses = Vec::new();
        for (method, uri) in [("GET", format!("http://{server}/")), ("CONNECT", server.to_string())] {
            for credentials in [None, Some("Basic YWxpY2U6czNjcmV0LWNhbmFyeQ==")] {
                let mut request = ::http::Request::builder().method(method).uri(&uri);
                if let Some(credentials) = credentials {
                    request = request.header("proxy-authorization", credentials);
                }
                let request = request.body(()).expect("a request");
                let (answer, _) = client.send_request(request, method != "CONNECT").expect("a stream");
                statuses.push(answer.await.expect("an answer").status().as_u16());
            }
        }
        statuses
    });
    assert_eq!(statuses, [407, 200, 407, 200]);
}

#[test]
fn optional_credentials_must_be_right_where_they_are_given() {
    let (weir, origin) = (weir("optional", &gateway("")), origin());
    let url = format!("http://{}/", origin.address);
    check(&weir, &[&url], "good200/000");
    check(&weir, &["-U", "alice:wrong", &url], "407/000");
    check(&weir, &["-U", &format!("alice:{PASSWORD}"), &url], "good200/000");
    let socks = format!("socks5h://{}", weir.proxy);
    check(&weir, &["-x", &socks, &url], "good200/000");
}

fn gateway(backend: &str) -> String {
    if backend.is_empty() {
        String::new()
    } else {
        format!("routing: {{default_backend: 'http://{backend}'}}\n")
    }
}

/// The gateway's clients know of no proxy: nobody may ask them for a proxy's password.
#[test]
fn the_gateway_is_open() {
    let origin = origin();
    let weir = weir("required", &gateway(&origin.address.to_string()));
    let mut stream = connect(weir.proxy);
    write!(stream, "GET / HTTP/1.1\r\nHost: app\r\nProxy-Authorization: Basic eDp5\r\n\r\n")
        .expect("weir reads");
    let answer = read_answer(&mut stream, "GET").expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "good"));
}

fn context(weir: &Weir, arguments: &[&str]) -> Value {
    let output = weir.command(&["context", "create", "--json"]).args(arguments).output().expect("weir runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn user_of(context: &Value) -> String {
    let text = |name: &str| context[name].as_str().expect("text").to_owned();
    format!("{}:{}", text("username"), text("password"))
}

#[test]
fn a_context_lives_until_it_is_released() {
    let (weir, origin) = (weir("required", ""), origin());
    let url = format!("http://{}/", origin.address);
    let made = context(&weir, &["--label", "a job", "--web-contents-id", "7"]);
    let name = made["username"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("wc-7-"), "{made}");
    assert_eq!(made["web_contents_id"], 7);
    let user = user_of(&made);
    check(&weir, &["-U", &user, &url], "good200/000");
    check(&weir, &["-U", &format!("{name}:x"), &url], "407/000");
    // Counters are its own.
    let listed = || {
        let output = weir.command(&["context", "list", "--json"]).output().expect("weir runs");
        let listed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(!String::from_utf8_lossy(&output.stdout).contains(made["password"].as_str().expect("text")));
        listed["contexts"][0].clone()
    };
    eventually("the flow to be counted", || (listed()["flows"] == 1).then_some(()));
    assert_eq!((&listed()["label"], &listed()["received_bytes"]), (&"a job".into(), &4.into()));

    // A tunnel that is open when the context is released has a moment, and is then reset.
    let mut tunnel = connect(weir.proxy);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = listener.local_addr().expect("an address");
    let token = base64(&user);
    write!(
        tunnel,
        "CONNECT {server} HTTP/1.1\r\nHost: {server}\r\nProxy-Authorization: Basic {token}\r\n\r\n"
    )
    .expect("weir reads");
    let head = weir_tests::http::read_head(&mut tunnel);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let (mut other, _) = listener.accept().expect("weir connects");
    let id = made["id"].as_str().expect("an id");
    assert!(weir.command(&["context", "release", id]).status().expect("weir runs").success());
    check(&weir, &["-U", &user, &url], "407/000");
    assert_reset(&tunnel);
    assert!(other.read(&mut [0; 1]).is_err(), "the server sees a reset, too");
    let end = weir.flows(4).iter().any(|flow| flow["end"] == "its context was released");
    assert!(end, "{:?}", weir.flows(4));
    assert_eq!(weir.metric("contexts"), 0);
    let again = weir.command(&["context", "release", id]).output().expect("weir runs");
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("no context"));
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |value: u32| char::from(DIGITS[(value & 63) as usize]);
    let encode = |bytes: &[u8]| {
        let value = bytes.iter().chain([&0, &0]).take(3).fold(0, |value, byte| value << 8 | u32::from(*byte));
        let digits = [digit(value >> 18), digit(value >> 12), digit(value >> 6), digit(value)];
        let padded = (0..4).map(|at| if at > bytes.len() { '=' } else { digits[at] });
        padded.collect::<String>()
    };
    text.as_bytes().chunks(3).map(encode).collect()
}

#[test]
fn a_context_has_its_time_and_a_policy_of_its_own() {
    let (weir, origin) = (weir("required", ""), origin());
    let url = format!("http://{}/", origin.address);
    let policy = weir.folder().join("policy.json");
    let text = r#"{"filtering": {"mode": "allowlist", "domains": {"allowed": ["127.0.0.1"]}},
        "acl": {"rules": [{"name": "read-only", "methods": ["POST"], "action": "deny"}]}}"#;
    std::fs::write(&policy, text).expect("a file");
    let made = context(&weir, &["--policy", &policy.display().to_string()]);
    let user = user_of(&made);
    check(&weir, &["-U", &user, &url], "good200/000");
    check(&weir, &["-U", &user, "http://localhost:1/"], "403/000");
    check(&weir, &["-U", &user, "-d", "x", &url], "403/000");
    // Others are not bound by it.
    check(&weir, &["-U", &format!("alice:{PASSWORD}"), "-d", "x", &url], "good200/000");
    std::fs::write(&policy, r#"{"filtering": {"modus": "allowlist"}}"#).expect("a file");
    let wrong = weir
        .command(&["context", "create", "--policy", &policy.display().to_string()])
        .output()
        .expect("weir runs");
    let errors = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && errors.contains("filtering.modus: unknown key"), "{errors}");

    let brief = context(&weir, &["--ttl", "1s"]);
    eventually("the context to end", || {
        let output = curl(&weir, &["-U", &user_of(&brief), &url]);
        String::from_utf8_lossy(&output.stdout).ends_with("407/000").then_some(())
    });
    eventually("it to be forgotten", || (weir.metric("contexts") == 1).then_some(()));
}

#[test]
fn who_guesses_has_to_wait() {
    let (weir, origin) = (weir("required", ""), origin());
    let url = format!("http://{}/", origin.address);
    let made = context(&weir, &[]);
    // More at one time than may wait.
    let statuses: Vec<String> = std::thread::scope(|scope| {
        let guess = |number: usize| {
            let (weir, url) = (&weir, &url);
            scope.spawn(move || {
                let output = curl(weir, &["-U", &format!("wc-0-{number}:x"), url]);
                String::from_utf8_lossy(&output.stdout)
                    .chars()
                    .rev()
                    .take(7)
                    .collect::<Vec<_>>()
                    .iter()
                    .rev()
                    .collect()
            })
        };
        let guesses: Vec<_> = (0..24).map(guess).collect();
        guesses.into_iter().map(|guess| guess.join().expect("curl ends")).collect()
    });
    assert!(statuses.iter().all(|status| status == "407/000" || status == "429/000"), "{statuses:?}");
    eventually("further guesses to be refused", || {
        let output = curl(&weir, &["-U", "wc-0-x:x", &url]);
        String::from_utf8_lossy(&output.stdout).ends_with("429/000").then_some(())
    });
    // Who knows the password is served meanwhile.
    check(&weir, &["-U", &user_of(&made), &url], "good200/000");
}

/// No password, right or wrong, is anywhere but in the client's request.
#[test]
fn passwords_are_nowhere_to_be_found() {
    let (weir, origin) = (weir("optional", ""), origin());
    let url = format!("http://{}/", origin.address);
    let made = context(&weir, &["--label", "canary"]);
    let secret = made["password"].as_str().expect("text").to_owned();
    check(&weir, &["-U", &user_of(&made), &url], "good200/000");
    check(&weir, &["-U", &format!("alice:{PASSWORD}"), "-p", &url], "good200/200");
    check(&weir, &["-U", "alice:wrong-canary", &url], "407/000");
    let socks = format!("socks5h://{}", weir.proxy);
    check(&weir, &["-x", &socks, "-U", "alice:wrong-canary", &url], "000/000");
    check(&weir, &["-x", &socks, "-U", &format!("alice:{PASSWORD}"), &url], "good200/000");
    let mut stream = connect(weir.proxy);
    write!(stream, "GET http://alice:wrong-canary@{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)
        .expect("weir reads");
    assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 400);
    let flows = weir.flows(6);
    let shown = [
        weir.log(),
        format!("{flows:?}"),
        weir_tests::http::get(weir.admin, "/metrics").expect("an answer").text(),
        weir_tests::http::get(weir.admin, "/policy").expect("an answer").text(),
        String::from_utf8_lossy(
            &weir.command(&["context", "list", "--json"]).output().expect("weir runs").stdout,
        )
        .into_owned(),
        origin.requests().iter().map(|request| request.head.clone()).collect(),
    ];
    let hash = hash();
    let salted = hash.rsplit('$').next().expect("a hash");
    for secret in ["canary@", "s3cret-canary", "wrong-canary", &secret, &base64(&user_of(&made)), salted] {
        let found = shown.iter().find(|text| text.contains(secret));
        assert!(found.is_none(), "{secret} in {}", found.map_or("", |text| text));
    }
}

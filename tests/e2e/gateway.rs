//! The gateway: requests that name no other server go to backends by host and path, real servers among them.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use weir_tests::http::{self, Answer};
use weir_tests::origin::Origin;
use weir_tests::pattern::Pattern;
use weir_tests::scripts;
use weir_tests::weir::{SOON, Weir, connect, eventually, free_port};

/// A server program; ended when dropped.
struct Program(Child);

impl Program {
    /// Starts it, and waits until it listens.
    fn start(command: &mut Command, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let program = Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("a server that listens", || std::net::TcpStream::connect_timeout(&address, SOON).ok());
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// nginx, which answers with what it got, and has a file.
fn nginx(folder: &std::path::Path, file: &[u8]) -> (Program, u16) {
    let port = free_port();
    let shown = folder.display();
    std::fs::write(folder.join("file"), file).expect("a file");
    let configuration = format!(
        "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log;\n\
         events {{ }}\n\
         http {{ access_log off; client_body_temp_path {shown}/b; proxy_temp_path {shown}/p;\n\
         fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
         server {{ listen 127.0.0.1:{port}; root {shown};\n\
         location /echo {{ return 200 \"nginx $request_uri $http_host $http_x_forwarded_for $http_via\"; }} }} }}\n"
    );
    std::fs::write(folder.join("nginx.conf"), configuration).expect("a file");
    // Where a distribution puts it, whatever PATH says.
    let binary = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    let mut command = Command::new(binary.unwrap_or("nginx"));
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-e")
        .arg(folder.join("error.log"));
    (Program::start(&mut command, port), port)
}

fn python(folder: &std::path::Path) -> (Program, u16) {
    let port = free_port();
    std::fs::write(folder.join("page"), "a page").expect("a file");
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string(), "--directory"]).arg(folder);
    (Program::start(&mut command, port), port)
}

/// Loopback is denied: what the operator names is reached all the same.
fn gateway(routing: &str) -> Weir {
    Weir::explicit(&format!("security: {{acl: {{destinations: {{loopback: deny}}}}}}\n{routing}"))
}

#[track_caller]
fn ask(weir: &Weir, host: &str, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    http::send(weir.proxy, request.as_bytes()).expect("an answer")
}

#[test]
fn real_servers_behind_rules() {
    let (web, files) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let content = Pattern::bytes(7, 3 << 20);
    let (_nginx, nginx) = nginx(web.path(), &content);
    let (_python, python) = python(files.path());
    let weir = gateway(&format!(
        "routing:\n  default_backend: http://127.0.0.1:{nginx}\n  rules:\n  - match: {{host: '*.files.example'}}\n    \
         forward: {{target: 'http://127.0.0.1:{python}'}}\n"
    ));
    let echo = ask(&weir, "shop.example", "/echo/a?b=c");
    let (text, port) = (echo.text(), weir.proxy.port());
    assert_eq!(echo.status, 200, "{text}");
    assert!(text.starts_with("nginx /echo/a?b=c shop.example 127.0.0.1 1.1 weir-"), "{text}");

    let page = ask(&weir, "my.files.example", "/page");
    assert_eq!((page.status, page.text().as_str()), (200, "a page"));
    assert!(page.field("server").is_some_and(|server| server.starts_with("SimpleHTTP")), "{}", page.head);

    // As a user sees it: curl, a large file, a part of it, a HEAD.
    let url = format!("http://127.0.0.1:{port}/file");
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl").args(["-sS", "--noproxy", "*"]).args(arguments).arg(&url).output();
        output.expect("curl is installed").stdout
    };
    assert!(curl(&[]) == content, "another file");
    assert!(curl(&["-r", "1000-1999"]) == content[1000..2000], "another part");
    let head = String::from_utf8_lossy(&curl(&["-I"])).to_lowercase();
    assert!(head.contains(&format!("content-length: {}", content.len())), "{head}");
    let flows = weir.flows(5);
    assert!(flows.iter().all(|flow| flow["front"] == "gateway" && flow["end"] == "complete"), "{flows:?}");
    assert!(flows.iter().any(|flow| flow["url"] == "http://shop.example/echo/a?b=c"), "{flows:?}");
}

#[test]
fn the_rule_decides_and_explain_says_which() {
    let origin =
        |name: &str| Origin::fixed(&format!("HTTP/1.1 200 OK\r\nX-Is: {name}\r\nContent-Length: 0\r\n\r\n"));
    let (a, b, c) = (origin("a"), origin("b"), origin("c"));
    let rules = format!(
        "routing:\n  rules:\n  - {{match: {{host: app.example, path: /api/*}}, forward: {{target: 'http://{}'}}}}\n  \
         - {{match: {{host: app.example}}, forward: {{target: 'http://{}'}}}}\n  \
         - {{match: {{path: /shared}}, forward: {{target: 'http://{}'}}}}\n",
        a.address, b.address, c.address
    );
    let weir = gateway(&rules);
    for (host, path, expected) in [
        ("app.example", "/api/x", Some(&a)),
        ("APP.example:1234", "/api", Some(&a)),
        ("app.example", "/x/../api/x", Some(&a)),
        ("app.example", "/apis", Some(&b)),
        ("other.example", "/shared?x", Some(&c)),
        ("other.example", "/", None),
    ] {
        let name = expected.map(|origin| match origin.address {
            address if address == a.address => "a",
            address if address == b.address => "b",
            _ => "c",
        });
        let answer = ask(&weir, host, path);
        let status = if expected.is_some() { 200 } else { 404 };
        assert_eq!((answer.status, answer.field("x-is")), (status, name), "{host} {path}");
        let url = format!("http://{host}{path}");
        let explained = scripts::stdout(&mut weir.command(&["explain", "--gateway", &url]));
        let backend = expected.map_or("404".to_owned(), |origin| format!("http://{}", origin.address));
        assert!(explained.starts_with(&format!("{backend}: ")), "{url}: {explained}");
    }
    let explained = scripts::stdout(&mut weir.command(&["explain", "--gateway", "http://app.example/api/"]));
    assert!(explained.contains("rule 1 of routing.rules: host app.example, path /api/*"), "{explained}");
    // The path is the client's own, whatever it was compared as.
    assert!(a.requests().iter().any(|request| request.head.starts_with("GET /x/../api/x HTTP/1.1\r\n")));
}

#[test]
fn what_a_backend_is_told() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let told = |more: &str, request: &str| {
        let weir =
            gateway(&more.replace("BACKEND", &format!("default_backend: 'http://{}'", origin.address)));
        assert_eq!(http::send(weir.proxy, request.as_bytes()).expect("an answer").status, 200, "{request}");
        let head = origin.requests().pop().expect("a request").head.to_lowercase();
        let lines = head.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with("via:"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let spoofed = "GET / HTTP/1.1\r\nHost: A.example:81\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_Proto: https\r\n\
                   Forwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nConnection: close\r\n\r\n";
    let x = ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-forwarded-host: a.example:81"];
    assert_eq!(told("routing: {BACKEND}", spoofed), [&["host: a.example:81"][..], &x].concat());
    assert_eq!(
        told("routing: {BACKEND}\nforwarded: {gateway: forwarded}", spoofed),
        ["host: a.example:81", "forwarded: for=127.0.0.1;host=\"a.example:81\";proto=http"]
    );
    let off = told("routing: {BACKEND}\nforwarded: {gateway: off}", spoofed);
    assert!(off.contains(&"x-forwarded-for: 1.2.3.4".to_owned()), "{off:?}");
    let trusted = told("routing: {BACKEND}\nforwarded: {trusted: [127.0.0.0/8]}", spoofed);
    assert!(trusted.contains(&"x-forwarded-for: 1.2.3.4, 127.0.0.1".to_owned()), "{trusted:?}");

    let own = format!("host: {}", origin.address);
    assert_eq!(told("routing: {host_field: backend, BACKEND}", spoofed)[0], own);
    // HTTP/1.0 without Host: the backend has a name all the same.
    assert_eq!(told("routing: {BACKEND}", "GET / HTTP/1.0\r\n\r\n")[0], own);
}

#[test]
fn what_the_gateway_does_not_do() {
    let port = free_port();
    let listener = format!("server: {{port: {port}, port_range: {port}-{port}}}");
    let mut weir = gateway(&format!("{listener}\nrouting: {{default_backend: 'http://127.0.0.1:{port}'}}"));
    weir.proxy.set_port(port);
    let own = ask(&weir, "x", "/");
    assert_eq!(own.status, 403, "{}", own.text());
    let flows = weir.flows(1);
    assert!(flows[0]["verdict"].as_str().is_some_and(|verdict| verdict.contains("weir's own")), "{flows:?}");
    // A rule opens the backend to requests of the gateway, not to those of the explicit proxy.
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let weir = gateway(&format!("routing: {{default_backend: 'http://{}'}}", origin.address));
    let absolute = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", origin.address);
    assert_eq!(http::send(weir.proxy, absolute.as_bytes()).expect("an answer").status, 403);
    let connect_to = format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
    assert_eq!(http::send(weir.proxy, connect_to.as_bytes()).expect("an answer").status, 403);
    for bad in ["Host: a b", "Host: a@b", "Host: a/b", "Host: a\r\nHost: a"] {
        let request = format!("GET / HTTP/1.1\r\n{bad}\r\n\r\n");
        assert_eq!(http::send(weir.proxy, request.as_bytes()).expect("an answer").status, 400, "{bad}");
    }
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn an_upgrade_goes_through() {
    let server = http::server("127.0.0.1", |mut stream| {
        let head = http::read_head(&mut stream);
        assert!(head.to_lowercase().contains("upgrade: echo\r\n"), "{head}");
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        let mut buffer = [0; 5];
        if stream.read_exact(&mut buffer).is_ok() {
            let _ = stream.write_all(&buffer);
        }
    });
    let weir = gateway(&format!(
        "routing: {{rules: [{{match: {{path: /ws}}, forward: {{target: 'http://{server}'}}}}]}}"
    ));
    let mut stream = connect(weir.proxy);
    let request = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("weir takes it");
    assert!(http::read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    stream.write_all(b"hello").expect("weir takes it");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("the echo");
    assert_eq!(&answer, b"hello");
}

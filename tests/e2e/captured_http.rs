//! HTTP that was not meant for a proxy: weir must not be stricter than the server, nor speak in its place.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use weir_tests::http::{self, Server};
use weir_tests::http2;
use weir_tests::weir::{Weir, eventually};
use weir_tests::{netns, scripts, venv};

/// What a captured program reads after `GET /`: everything, with the name of the error that ended it.
fn captured_get(weir: &Weir, server: &Server) -> String {
    let script = format!(
        "import client, errno\n\
         s = client.connect('{0}', {1})\n\
         s.sendall(b'GET / HTTP/1.1\\r\\nHost: {0}:{1}\\r\\nConnection: close\\r\\n\\r\\n')\n\
         try:\n\
         \x20   while piece := s.recv(65536): print(piece.decode(), end='')\n\
         \x20   print('EOF')\n\
         except OSError as error: print(errno.errorcode[error.errno])",
        server.ip(),
        server.port()
    );
    scripts::stdout(&mut weir.exec(&scripts::python(&script)))
}

/// timeouts.read bounds how long weir waits for a server that a client has asked it for. A program that does not
/// know of weir has its own idea of how long an answer may take.
#[test]
fn a_server_may_take_its_time() {
    netns::enter();
    let weir = Weir::capturing("server: {timeouts: {read: 1s, write: 1s}}");
    let server = http::server(netns::V4, |mut stream| {
        http::read_head(&mut stream);
        std::thread::sleep(Duration::from_secs(2));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        std::thread::sleep(Duration::from_secs(2));
        let _ = stream.write_all(b"world");
    });
    let told = captured_get(&weir, &server);
    assert!(told.starts_with("HTTP/1.1 200 OK") && told.ends_with("helloworldEOF"), "{told}");
    let flow = &weir.flows(1)[0];
    assert_eq!((&flow["protocol"], &flow["end"]), (&"http1".into(), &"complete".into()), "{flow}");
}

/// HTTP/2 with prior knowledge, as gRPC without TLS has it: request by request, to a server that speaks nothing else.
#[test]
fn http2_is_served_request_by_request() {
    netns::enter();
    let (weir, server) = (Weir::capturing(""), http2::Server::start_on(netns::V4));
    let url = format!("http://{}/a?b", server.address);
    for connections in 1..=2 {
        let mut curl = weir.exec(&["curl", "-sS", "--http2-prior-knowledge", "-d", "hello", &url]);
        assert_eq!(scripts::stdout(&mut curl), "hello");
        assert_eq!(server.connections(), connections, "a program's connection is its own");
    }
    let flows = weir.flows(2);
    for flow in &flows {
        assert_eq!((&flow["front"], &flow["protocol"]), (&"captured".into(), &"http2".into()), "{flow}");
        assert_eq!((&flow["method"], &flow["status"]), (&"POST".into(), &200.into()), "{flow}");
        assert_eq!((&flow["sent"], &flow["end"]), (&5.into(), &"complete".into()), "{flow}");
    }
    assert!(flows[0]["url"].as_str().is_some_and(|url| url.ends_with("/a?b")), "{}", flows[0]);
    assert_eq!(weir.metric("http2_connections_total"), 2);
    let heads = server.heads();
    assert!(heads.iter().all(|head| head.headers().get("via").is_some()), "{heads:?}");
}

/// What a captured program hears of a stream: its status, or the code with which it was reset (RFC 9113 §7).
fn captured_stream(weir: &Weir, server: SocketAddr, method: &str, path: &str) -> String {
    let script = format!(
        "import client, h2.connection, h2.events\n\
         s = client.connect('{0}', {1})\n\
         c = h2.connection.H2Connection()\n\
         c.initiate_connection()\n\
         c.send_headers(1, [(':method', '{method}'), (':scheme', 'http'), (':authority', '{0}:{1}'), (':path', '{path}')],\n\
         \x20   end_stream='{method}' == 'GET')\n\
         if '{method}' == 'POST': c.send_data(1, b'x', end_stream=True)\n\
         while True:\n\
         \x20   s.sendall(c.data_to_send())\n\
         \x20   for event in c.receive_data(s.recv(65536)):\n\
         \x20       if isinstance(event, h2.events.ResponseReceived): print(dict(event.headers)[b':status'].decode(), end=' ')\n\
         \x20       if isinstance(event, h2.events.StreamReset): raise SystemExit(print(int(event.error_code)))\n\
         \x20       if isinstance(event, h2.events.StreamEnded): raise SystemExit(print('end'))",
        server.ip(),
        server.port()
    );
    let python = venv::python();
    scripts::stdout(&mut weir.exec(&[python.to_str().expect("text"), "-c", &script]))
}

/// The codes that say what was done of a request, and by whom it was refused, get through.
#[test]
fn a_stream_ends_with_the_code_that_its_server_gave_it() {
    const REFUSED_STREAM: &str = "7";
    netns::enter();
    let (weir, server) = (Weir::capturing(""), http2::Server::start_on(netns::V4));
    assert_eq!(captured_stream(&weir, server.address, "GET", "/"), "200 end");
    assert_eq!(captured_stream(&weir, server.address, "GET", "/reset"), "200 2");
    assert_eq!(captured_stream(&weir, server.address, "GET", "/calm"), "11");
    assert_eq!(captured_stream(&weir, server.address, "POST", "/refuse"), REFUSED_STREAM);
    // Nobody is there: nothing of it was done, either.
    let nobody = SocketAddr::new(server.address.ip(), weir_tests::weir::free_port());
    assert_eq!(captured_stream(&weir, nobody, "GET", "/"), REFUSED_STREAM);
    assert_eq!(captured_stream(&weir, nobody, "POST", "/"), REFUSED_STREAM);
}

/// A program that asks a proxy of its own, in HTTP/2 in the clear: weir asks that one for the tunnel, and both ends of it
/// stay what they are.
#[test]
fn a_tunnel_through_a_proxy_that_speaks_http2() {
    netns::enter();
    let weir = Weir::capturing(
        "security: {acl: {rules: [{methods: [CONNECT], domains: [never.example], action: deny}]}}",
    );
    let proxy = http2::Server::start_on(netns::V4);
    let script = format!(
        "import client, h2.connection, h2.events, sys\n\
         s = client.connect('{}', {})\n\
         c = h2.connection.H2Connection()\n\
         c.initiate_connection()\n\
         got = {{}}\n\
         def connect(stream, authority):\n\
         \x20   c.send_headers(stream, [(':method', 'CONNECT'), (':authority', authority)])\n\
         def read(until):\n\
         \x20   while not until():\n\
         \x20       s.sendall(c.data_to_send())\n\
         \x20       for event in c.receive_data(s.recv(65536)):\n\
         \x20           if isinstance(event, h2.events.ResponseReceived): got[event.stream_id] = dict(event.headers)[b':status'].decode()\n\
         \x20           if isinstance(event, h2.events.DataReceived):\n\
         \x20               if event.data: got[event.stream_id] += ' ' + event.data.decode()\n\
         \x20               c.acknowledge_received_data(event.flow_controlled_length, event.stream_id)\n\
         \x20           if isinstance(event, h2.events.StreamEnded): got[event.stream_id] += ' end'\n\
         \x20           if isinstance(event, h2.events.StreamReset): got[event.stream_id] += ' reset'\n\
         connect(1, 'a.example:443')\n\
         connect(3, 'no.example:443')\n\
         connect(5, 'never.example:443')\n\
         read(lambda: len(got) == 3)\n\
         c.send_data(1, b'hello')\n\
         read(lambda: 'hello' in got[1])\n\
         c.end_stream(1)\n\
         read(lambda: 'end' in got[1])\n\
         print(sorted((stream, what.split(' weir')[0]) for stream, what in got.items()))",
        proxy.address.ip(),
        proxy.address.port()
    );
    let python = venv::python();
    let told = scripts::stdout(&mut weir.exec(&[python.to_str().expect("text"), "-c", &script]));
    assert!(told.starts_with("[(1, '200 hello end'), (3, '403"), "{told}");
    assert!(told.contains("(5, '403"), "{told}");
    let asked: Vec<_> =
        proxy.heads().iter().map(|head| format!("{} {}", head.method(), head.uri())).collect();
    assert_eq!(asked, ["CONNECT a.example:443", "CONNECT no.example:443"]);
    let flows = weir.flows(3);
    let through = flows.iter().find(|flow| flow["authority"] == "a.example:443").expect("the tunnel's flow");
    assert_eq!(
        (&through["method"], &through["status"], &through["sent"], &through["received"]),
        (&"CONNECT".into(), &200.into(), &5.into(), &5.into()),
        "{through}"
    );
    assert!(through.get("url").is_none() && through["end"] == "complete", "{through}");
    let denied = flows.iter().find(|flow| flow["authority"] == "never.example:443").expect("that flow");
    assert!(denied["verdict"].is_string(), "{denied}");
}

/// tinyproxy, and the folder of its configuration; ended when dropped.
struct Tinyproxy {
    child: Child,
    _folder: TempDir,
}

impl Tinyproxy {
    fn start(address: &str, port: u16) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let configuration = folder.path().join("tinyproxy.conf");
        fs::write(&configuration, format!("Port {port}\nListen {address}\nTimeout 60\nMaxClients 20\n"))
            .expect("a folder of ours");
        let child = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(configuration)
            .stdout(Stdio::null())
            .spawn()
            .expect("tinyproxy is installed");
        let proxy = Self { child, _folder: folder };
        eventually("tinyproxy listens", || TcpStream::connect((address, port)).ok());
        proxy
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        // Ended already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A captured program with a proxy of its own: what it asks that one is between the two.
#[test]
fn a_program_may_have_a_proxy_of_its_own() {
    netns::enter();
    let weir = Weir::capturing("");
    let port = weir_tests::weir::free_port();
    let _tinyproxy = Tinyproxy::start(netns::V4, port);
    let origin = http::server(netns::V4_OTHER, |mut stream| {
        let head = http::read_head(&mut stream);
        let via = head.matches("weir").count();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{via} \n");
    });
    let (proxy, url) = (format!("http://{}:{port}", netns::V4), format!("http://{origin}/"));
    let plain = scripts::stdout(&mut weir.exec(&["curl", "-sS", "-x", &proxy, &url]));
    assert_eq!(plain.trim(), "0", "weir has nothing to say there");
    let tunnelled = scripts::stdout(&mut weir.exec(&["curl", "-sS", "-p", "-x", &proxy, &url]));
    assert_eq!(tunnelled.trim(), "0");
    let flows = weir.flows(2);
    for flow in &flows {
        assert_eq!((&flow["front"], &flow["protocol"]), (&"captured".into(), &"opaque".into()), "{flow}");
    }
}

/// The same on a connection that has begun as one to a server.
#[test]
fn a_server_may_turn_out_to_be_a_proxy() {
    netns::enter();
    let weir = Weir::capturing("");
    let proxy = http::server(netns::V4, |mut stream| {
        assert!(http::read_head(&mut stream).contains("\r\nVia: "));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("weir takes it");
        // Each as it was sent, to the byte.
        assert_eq!(
            http::read_head(&mut stream),
            "GET http://a.invalid/ HTTP/1.1\r\nhost:  a.invalid\r\n\r\n"
        );
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nme").expect("weir takes it");
        assert_eq!(http::read_head(&mut stream), "CONNECT a.invalid:443 HTTP/1.1\r\nHost: a.invalid\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nup").expect("weir takes it");
    });
    let script = format!(
        "import client\n\
         s = client.connect('{0}', {1})\n\
         def ask(text):\n\
         \x20   s.sendall(text)\n\
         \x20   got = b''\n\
         \x20   while not got.endswith((b'ok', b'me', b'up')): got += s.recv(65536)\n\
         \x20   print(got[-2:].decode(), end='')\n\
         ask(b'GET /proxy.pac HTTP/1.1\\r\\nHost: {0}\\r\\n\\r\\n')\n\
         ask(b'GET http://a.invalid/ HTTP/1.1\\r\\nhost:  a.invalid\\r\\n\\r\\n')\n\
         ask(b'CONNECT a.invalid:443 HTTP/1.1\\r\\nHost: a.invalid\\r\\n\\r\\n')",
        proxy.ip(),
        proxy.port()
    );
    assert_eq!(scripts::stdout(&mut weir.exec(&scripts::python(&script))), "okmeup");
    assert_eq!(weir.metric("upstream_connects_total"), 1, "over the connection that it had");
}

/// Its server is gone: the program must not take that for an answer.
#[test]
fn http2_without_a_server_is_an_error() {
    netns::enter();
    let weir = Weir::capturing("");
    let port = weir_tests::weir::free_port();
    let url = format!("http://{}:{port}/", netns::V4);
    let output = weir.exec(&["curl", "-sS", "--http2-prior-knowledge", &url]).output().expect("curl runs");
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let end = weir.flows(1)[0]["end"].to_string();
    assert!(end.contains("Connection refused"), "{end}");
}

#[test]
fn what_is_no_answer_is_a_reset() {
    netns::enter();
    let weir = Weir::capturing("");
    for (number, answer) in [
        "garbage garbage garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 3\r\n\r\nleak",
        "HTTP/1.1 200 OK\r\nX: cut off",
    ]
    .into_iter()
    .enumerate()
    {
        let server = http::server(netns::V4, move |mut stream| {
            http::read_head(&mut stream);
            let _ = stream.write_all(answer.as_bytes());
        });
        assert_eq!(captured_get(&weir, &server), "ECONNRESET", "after {answer:?}");
        let flow = weir.flows(number + 1).pop().expect("a flow");
        assert_ne!(flow["end"], "complete", "{flow}");
    }
}

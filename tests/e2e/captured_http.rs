//! HTTP that was not meant for a proxy: weir must not be stricter than the server, nor speak in its place.

use std::io::Write;
use std::time::Duration;

use weir_tests::http::{self, Server};
use weir_tests::http2;
use weir_tests::weir::Weir;
use weir_tests::{netns, scripts};

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

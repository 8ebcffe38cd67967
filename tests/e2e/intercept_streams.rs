//! Intercepted TLS that carries more than requests, or is carried by a stream: WebSockets, other protocols, tunnels in HTTP/2.

use std::process::Command;

use weir_tests::background::Background;
use weir_tests::intercepting::Intercepting;
use weir_tests::{scripts, venv};

const ALL: &str = "rules: [{name: all, action: intercept}]";

#[test]
fn a_websocket_passes_inside() {
    let site = Intercepting::start(ALL, "");
    let identity = site.authority.issue("socket", "DNS:localhost,IP:127.0.0.1");
    let files = [&identity.certificate, &identity.key].map(|path| path.display().to_string());
    let server = Background::start_with(&venv::python(), "websocket_server.py", &[&files[0], &files[1]]);
    let chat = "import asyncio, ssl, sys, websockets\n\
        trust = ssl.create_default_context(cafile=sys.argv[3])\n\
        async def chat():\n\
        \x20   async with websockets.connect(sys.argv[1], proxy=sys.argv[2], ssl=trust, subprotocols=['chat'], compression=None) as peer:\n\
        \x20       for message in ['a text', b'x' * 200000]:\n\
        \x20           await peer.send(message)\n\
        \x20           assert await peer.recv() == message\n\
        asyncio.run(chat())\n\
        print('all well')\n";
    let mut python = Command::new(venv::python());
    python.args([
        "-c",
        chat,
        &format!("wss://localhost:{}/", server.port),
        &format!("http://{}", site.weir.proxy),
    ]);
    assert_eq!(scripts::stdout(python.arg(site.trusted())), "all well");
    let flows = site.weir.flows(2);
    assert!(flows.iter().any(|flow| flow["status"] == 101 && flow["intercepted"] == true), "{flows:?}");
}

/// A server that speaks first or second, inside TLS, and has nothing to do with HTTP.
const OTHER: &str = "import socket, ssl, sys\n\
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
    context.load_cert_chain(sys.argv[1], sys.argv[2])\n\
    listener = socket.create_server(('127.0.0.1', 0))\n\
    print(listener.getsockname()[1], flush=True)\n\
    while True:\n\
    \x20   with context.wrap_socket(listener.accept()[0], server_side=True) as peer:\n\
    \x20       if sys.argv[3] == 'first':\n\
    \x20           peer.sendall(b'* OK ready\\r\\n')\n\
    \x20       while more := peer.recv(65536):\n\
    \x20           peer.sendall(more.upper())\n\
    \x20       peer.unwrap()\n";

const TALK: &str = "import socket, ssl, sys\n\
    proxy, port, trusted, who = sys.argv[1:]\n\
    host, number = proxy.split(':')\n\
    raw = socket.create_connection((host, int(number)))\n\
    raw.sendall(f'CONNECT localhost:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.encode())\n\
    assert b' 200 ' in raw.recv(4096)\n\
    peer = ssl.create_default_context(cafile=trusted).wrap_socket(raw, server_hostname='localhost')\n\
    if who == 'first':\n\
    \x20   assert peer.recv(4096) == b'* OK ready\\r\\n'\n\
    peer.sendall(b'a001 capability\\r\\n')\n\
    assert peer.recv(4096) == b'A001 CAPABILITY\\r\\n'\n\
    print(peer.getpeercert()['issuer'][-1][0][1])\n";

#[test]
fn what_is_not_http_is_relayed_from_session_to_session() {
    let site = Intercepting::start(ALL, "");
    let identity = site.authority.issue("other", "DNS:localhost");
    for who in ["first", "second"] {
        let mut server = Command::new("python3");
        server.args(["-c", OTHER]).args([&identity.certificate, &identity.key]).arg(who);
        let server = Background::run(server);
        let mut talk = Command::new("python3");
        talk.args(["-c", TALK, &site.weir.proxy.to_string(), &server.port]).arg(site.trusted()).arg(who);
        assert!(scripts::stdout(&mut talk).starts_with("weir CA "), "{who}");
    }
    let flows = site.weir.flows(2);
    assert!(flows.iter().all(|flow| flow["intercepted"] == true && flow["method"] == "CONNECT"), "{flows:?}");
}

#[test]
fn a_tunnel_on_a_stream_of_http2_is_intercepted_too() {
    let site = Intercepting::start(ALL, "");
    let (_server, port) = site.server(&[]);
    let script = "import socket, ssl, sys\n\
        import h2.connection, h2.config, h2.events\n\
        proxy, port, trusted = sys.argv[1:]\n\
        host, number = proxy.split(':')\n\
        raw = socket.create_connection((host, int(number)))\n\
        peer = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding='utf-8'))\n\
        peer.initiate_connection()\n\
        peer.send_headers(1, [(':method', 'CONNECT'), (':authority', f'localhost:{port}')])\n\
        raw.sendall(peer.data_to_send())\n\
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()\n\
        def receive():\n\
        \x20   for event in peer.receive_data(raw.recv(65536)):\n\
        \x20       if isinstance(event, h2.events.DataReceived):\n\
        \x20           incoming.write(event.data)\n\
        \x20           peer.acknowledge_received_data(event.flow_controlled_length, 1)\n\
        \x20       assert not isinstance(event, h2.events.StreamReset), event\n\
        def send():\n\
        \x20   peer.send_data(1, outgoing.read()) if outgoing.pending else None\n\
        \x20   raw.sendall(peer.data_to_send())\n\
        tls = ssl.create_default_context(cafile=trusted).wrap_bio(incoming, outgoing, server_hostname='localhost')\n\
        def until(step):\n\
        \x20   while True:\n\
        \x20       try:\n\
        \x20           done = step()\n\
        \x20           send()\n\
        \x20           return done\n\
        \x20       except ssl.SSLWantReadError:\n\
        \x20           send()\n\
        \x20           receive()\n\
        until(tls.do_handshake)\n\
        tls.write(f'GET /seen HTTP/1.1\\r\\nHost: localhost:{port}\\r\\n\\r\\n'.encode())\n\
        answer = b''\n\
        while b'}' not in answer:\n\
        \x20   answer += until(lambda: tls.read(65536))\n\
        print(answer.split(b'\\r\\n\\r\\n', 1)[1].decode())\n";
    let mut python = Command::new(venv::python());
    python.args(["-c", script, &site.weir.proxy.to_string(), &port]).arg(site.trusted());
    let told = scripts::stdout(&mut python);
    assert!(told.contains("Via: 1.1 weir-"), "{told}");
    let flows = site.weir.flows(2);
    assert!(flows.iter().all(|flow| flow["intercepted"] == true), "{flows:?}");
}

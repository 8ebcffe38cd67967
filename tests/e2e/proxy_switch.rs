//! POST /proxy/start and /proxy/stop: the explicit proxy listens or not, while weir runs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect, free_port};

fn start(weir: &Weir, body: &Value) -> (u16, Value) {
    weir.api("POST", "/proxy/start", Some(body))
}

fn stop(weir: &Weir) -> (u16, Value) {
    weir.api("POST", "/proxy/stop", None)
}

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

#[test]
fn it_is_stopped_and_started() {
    let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let weir = Weir::explicit("");
    let (mut client, mut server) = weir.tunnel_ends();
    // Running already: that is told, and nothing else happens.
    let running = json!({ "status": "running", "port": weir.proxy.port(), "system_proxy": null });
    assert_eq!(start(&weir, &json!({})), (200, running.clone()));
    let stopped = json!({ "status": "stopped", "system_proxy": null });
    assert_eq!(stop(&weir), (200, stopped.clone()));
    assert!(!listens(weir.proxy));
    assert_eq!(stop(&weir), (200, stopped));
    let status = weir.status();
    assert_eq!(
        (&status["running"], &status["port"], &status["proxy_url"]),
        (&json!(false), &Value::Null, &Value::Null)
    );
    let state = std::fs::read_to_string(weir.folder().join("state/state.json")).expect("a state file");
    assert_eq!(serde_json::from_str::<Value>(&state).expect("JSON")["proxy"], Value::Null);
    let (code, test) = weir.api("POST", "/proxy/test", None);
    assert_eq!((code, &test["success"], &test["proxy_url"]), (200, &json!(false), &Value::Null), "{test}");
    // A reload does not start it; what was open goes on.
    weir.reload("server: {limits: {url: 4096}}");
    assert!(!listens(weir.proxy));
    client.write_all(b"ping").expect("the tunnel takes it");
    server.read_exact(&mut [0; 4]).expect("the tunnel brings it");
    assert_eq!(start(&weir, &json!({ "system_proxy": false })), (200, running));
    assert_eq!(weir.status()["proxy_url"], format!("http://{}", weir.proxy));
    let mut stream = connect(weir.proxy);
    write!(stream, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 200);
}

#[test]
fn it_is_started_where_it_is_wanted_or_not_at_all() {
    let weir = Weir::explicit("");
    let (other, taken) = (free_port(), TcpListener::bind(("127.0.0.1", 0)).expect("a port"));
    let (code, problem) = start(&weir, &json!({ "port": other }));
    assert_eq!(code, 409, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("stop it")), "{problem}");
    stop(&weir);
    for (body, expected) in [
        (json!({ "port": taken.local_addr().expect("an address").port() }), 409),
        (json!({ "listen_host": "0.0.0.0" }), 403),
        (json!({ "listen_host": "192.0.2.77" }), 403),
        (json!({ "port": 70000 }), 422),
        (json!({ "prot": 1 }), 422),
        (json!({ "listen_host": "localhost" }), 422),
    ] {
        let (code, problem) = start(&weir, &body);
        assert_eq!(code, expected, "{body}: {problem}");
        assert!(problem["detail"].is_string() && !listens(weir.proxy), "{problem}");
    }
    let (code, told) = start(&weir, &json!({ "port": other, "listen_host": "127.0.0.2" }));
    assert_eq!((code, &told["port"]), (200, &json!(other)), "{told}");
    assert!(listens(([127, 0, 0, 2], other).into()));
    assert_eq!(weir.status()["proxy_url"], format!("http://127.0.0.2:{other}"));
    // It stays there when something else changes.
    weir.reload("server: {limits: {url: 4096}}");
    assert_eq!(weir.status()["port"], other);
}

#[test]
fn callers_at_one_time_get_one_after_the_other() {
    let weir = Weir::explicit("");
    std::thread::scope(|scope| {
        for turn in 0..20 {
            let weir = &weir;
            scope.spawn(move || {
                let (code, told) = if turn % 2 == 0 { start(weir, &json!({})) } else { stop(weir) };
                let expected = if turn % 2 == 0 { "running" } else { "stopped" };
                assert_eq!((code, &told["status"]), (200, &json!(expected)), "{told}");
            });
        }
    });
    let runs = weir.status()["running"] == true;
    assert_eq!(runs, listens(weir.proxy));
    assert_eq!(start(&weir, &json!({})).0, 200);
    assert!(listens(weir.proxy));
}

#[test]
fn it_stays_stopped_over_an_upgrade() {
    let mut weir = Weir::explicit("");
    stop(&weir);
    weir.upgrade(&[]);
    assert_eq!(weir.status()["running"], false);
    assert!(!listens(weir.proxy));
    assert_eq!(start(&weir, &json!({})).0, 200);
    assert!(listens(weir.proxy));
    // And it moves with the next one, to where it listens by then.
    weir.upgrade(&[]);
    assert!(listens(weir.proxy));
}

#[test]
fn the_guide_is_for_this_machine() {
    let weir = Weir::explicit("");
    let (_, guide) = weir.api("GET", "/proxy/setup-guide", None);
    let text = guide.to_string();
    assert!(
        text.contains(&format!("curl -x http://{}", weir.proxy)) && text.contains("git config"),
        "{guide}"
    );
    stop(&weir);
    let (_, guide) = weir.api("GET", "/proxy/setup-guide", None);
    assert_eq!(guide["proxy_url"], Value::Null);
    assert!(guide.to_string().contains("/proxy/start"), "{guide}");
}

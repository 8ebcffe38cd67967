//! Bodies judged by what is in them: downloads and uploads, in every coding and framing, bombs and bodies without an end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use weir_tests::coded::{CODINGS, coded, ten_gibibytes};
use weir_tests::http::{self, Answer};
use weir_tests::intercepting::Intercepting;
use weir_tests::origin::{Origin, chunked, read_answer};
use weir_tests::scripts;
use weir_tests::weir::{Weir, connect, eventually};

/// The EICAR test file, put together here so that this file is not one.
fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat().into_bytes()
}

fn on(more: &str) -> String {
    let wait = if more.contains("max_wait") { "" } else { ", max_wait: 30s" };
    format!("security: {{inspection: {{enabled: true, timeout: 30s{wait}{more}}}}}")
}

fn answer(fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An origin that answers every request with this.
fn origin(fields: &str, body: &[u8]) -> Origin {
    let answer = answer(fields, body);
    Origin::start(move |_| answer.clone())
}

fn ask(weir: &Weir, origin: &Origin, fields: &str) -> Answer {
    send(weir, &format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n", origin.address), b"")
}

fn send(weir: &Weir, head: &str, body: &[u8]) -> Answer {
    let mut client = connect(weir.proxy);
    client.write_all(head.as_bytes()).expect("weir takes it");
    // It may have answered already, and read no more.
    let _ = client.write_all(body);
    read_answer(&mut client, "GET").expect("an answer")
}

#[track_caller]
fn assert_blocked(answer: &Answer, rule: &str) {
    assert_eq!(answer.status, 403, "{}", answer.head);
    let text = answer.text();
    assert!(text.contains(rule) && !text.contains("STANDARD-ANTIVIRUS"), "{text}");
}

#[test]
fn a_download_that_matches_is_refused_in_every_coding() {
    let weir = Weir::explicit(&on(""));
    let body = [b"some text ".as_slice(), &eicar(), &[b'.'; 5000]].concat();
    assert_blocked(&ask(&weir, &origin("", &body), ""), "EICAR_test_file");
    for coding in CODINGS {
        let fields = format!("Content-Encoding: {coding}\r\n");
        let found = ask(&weir, &origin(&fields, &coded(coding, &body)), "");
        assert_blocked(&found, "EICAR_test_file");
        let clean = coded(coding, &[b'.'; 5000]);
        let passed = ask(&weir, &origin(&fields, &clean), "");
        assert_eq!((passed.status, passed.body), (200, clean), "{coding}");
    }
    let twice = coded("gzip", &coded("br", &body));
    let nested = origin("Content-Encoding: br\r\nContent-Encoding: gzip\r\n", &twice);
    assert_blocked(&ask(&weir, &nested, ""), "EICAR_test_file");
    let page = ask(&weir, &nested, "Accept: text/html\r\n");
    assert!(page.field("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{}", page.head);
    let json = ask(&weir, &nested, "Accept: application/json\r\n").json();
    assert!(json.to_string().contains("EICAR_test_file"), "{json}");
    assert_eq!(weir.metric("denied_by_inspection_total"), 4 + CODINGS.len() as u64);
    assert_eq!(weir.metric("inspected_total"), 4 + 2 * CODINGS.len() as u64);
    let flows = weir.flows(12);
    let refused: Vec<_> = flows.iter().filter(|flow| flow["verdict_rule"] == "EICAR_test_file").collect();
    assert_eq!(refused.len(), 8, "{flows:?}");
    assert!(refused.iter().all(|flow| flow["status"] == 403 && flow["end"] == "denied"), "{refused:?}");
}

#[test]
fn what_is_clean_arrives_as_it_was_sent() {
    let weir = Weir::explicit(&on(", max_size: 256KiB"));
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for size in [0, 1, 100_000, 256 << 10, (256 << 10) + 1, body.len()] {
        let (body, chunks) = (&body[..size], chunked(&body[..size]));
        let framed = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), &chunks].concat();
        let until_close = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".as_slice(), body].concat();
        for bytes in [answer("", body), framed, until_close] {
            let origin = Origin::start(move |_| bytes.clone());
            assert!(ask(&weir, &origin, "").body == body, "{size} bytes differ");
        }
    }
    assert!(weir.metric("inspection_partial_total") > 0);
    let chunks =
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), &chunked(&body)].concat();
    let origin = Origin::start(move |_| chunks.clone());
    let routing = format!("routing: {{default_backend: 'http://{}'}}\n", origin.address);
    let weir = Weir::explicit(&(routing + &on(", max_size: 256KiB")));
    let url = format!("http://{}/", weir.proxy);
    let over_http2 = weir.curl(&["-x", "", "--http2-prior-knowledge", &url]).output().expect("curl runs");
    assert!(over_http2.stdout == body, "it differs over HTTP/2");
}

#[test]
fn an_upload_that_matches_does_not_reach_its_server() {
    let weir = Weir::explicit(&on(""));
    let origin = origin("", b"taken");
    let url = format!("http://{}/", origin.address);
    let form =
        [b"--x\r\nContent-Disposition: form-data; name=f\r\n\r\n".as_slice(), &eicar(), b"\r\n--x--\r\n"]
            .concat();
    for (fields, body) in [
        (format!("Content-Length: {}\r\n", form.len()), form.clone()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), chunked(&form)),
        {
            let body = coded("gzip", &form);
            (format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", body.len()), body)
        },
    ] {
        let refused = send(&weir, &format!("POST {url} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"), &body);
        assert_blocked(&refused, "EICAR_test_file");
    }
    assert_eq!(origin.requests().len(), 0);
    let folder = weir.folder().join("upload");
    let clean: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&folder, &clean).expect("a file");
    let data = format!("@{}", folder.display());
    for more in
        [&["-H", "Expect: 100-continue"][..], &["-H", "Expect:"], &["-H", "Transfer-Encoding: chunked"]]
    {
        let arguments = [&["--data-binary", &data, &url, "--expect100-timeout", "60"], more].concat();
        let said = weir.curl(&arguments).output().expect("curl runs");
        assert_eq!(said.stdout, b"taken", "{said:?}");
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.body == clean), "an upload has changed");
}

#[test]
fn what_cannot_be_judged_is_up_to_a_rule() {
    let strict = Weir::explicit(&on(", max_size: 64KiB, partial: block"));
    let lax = Weir::explicit(&on(", max_size: 64KiB, undecided: allow"));
    let large = vec![b'.'; 100_000];
    for (fields, body, rule) in [
        ("", large.as_slice(), "security.inspection.partial"),
        ("Content-Encoding: compress\r\n", b"x", "security.inspection.undecided"),
        ("Content-Encoding: gzip\r\n", b"this is none", "security.inspection.undecided"),
    ] {
        let origin = origin(fields, body);
        assert_blocked(&ask(&strict, &origin, ""), rule);
        assert!(ask(&lax, &origin, "").body == body, "{fields}");
    }
    // Its beginning is judged all the same.
    let begins = [eicar(), large].concat();
    assert_blocked(&ask(&lax, &origin("", &begins), ""), "EICAR_test_file");
    let part = Origin::fixed(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/9\r\nContent-Length: 1\r\n\r\nx",
    );
    assert_blocked(&ask(&strict, &part, "Range: bytes=0-0\r\n"), "security.inspection.undecided");
    assert_eq!(part.requests()[0].field("range"), None, "of parts nobody can say what the whole is");
}

#[test]
fn bombs_are_refused_and_disturb_nobody() {
    let weir = Weir::explicit(&on(""));
    let other = origin("", b"served");
    ask(&weir, &other, "");
    let before = weir.resident_kib();
    for coding in CODINGS {
        let bomb = ten_gibibytes(coding);
        let fields = format!("Content-Encoding: {coding}\r\n");
        let bomb = origin(&fields, &bomb);
        let judged = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (weir, bomb) = (&weir, &bomb);
                scope.spawn(move || assert_blocked(&ask(weir, bomb, ""), "security.inspection.max_"));
            }
            let (weir, other, done) = (&weir, &other, Arc::clone(&judged));
            let others = scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    assert_eq!(ask(weir, other, "").text(), "served");
                }
            });
            assert_blocked(&ask(weir, &bomb, ""), "security.inspection.max_");
            judged.store(true, Ordering::SeqCst);
            others.join().expect("others are served");
        });
    }
    // Two threads hold 64 MiB each at most, and buffers double as they grow; five bodies of up to 8 MiB are held.
    let grown = weir.resident_kib().saturating_sub(before);
    assert!(grown < 450 << 10, "{grown} KiB for bombs of 10 GiB");
}

#[test]
fn a_body_without_an_end_is_held_no_longer_than_that() {
    let weir = Weir::explicit(&on(", max_wait: 300ms"));
    let endless = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        while stream.write_all(b"data: x\n\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{endless}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    let head = http::read_head(&mut client);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    eventually("the beginning judged", || (weir.metric("inspection_partial_total") == 1).then_some(()));
    let fast = http::server("127.0.0.1", |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
    });
    let before = weir.resident_kib();
    let mut clients: Vec<_> = (0..20).map(|_| connect(weir.proxy)).collect();
    for client in &mut clients {
        write!(client, "GET http://{fast}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    }
    for client in &mut clients {
        assert!(http::read_head(client).starts_with("HTTP/1.1 200 "));
    }
    let grown = weir.resident_kib().saturating_sub(before);
    // 8 MiB each at most, in buffers that double.
    assert!(grown < (20 * 20) << 10, "{grown} KiB for 20 bodies");
}

#[test]
fn what_the_cache_has_was_judged_by_the_rules_in_force() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = folder.path().join("rules.yar");
    std::fs::write(&rules, "rule first { strings: $a = \"nothing like it\" condition: $a }")
        .expect("written");
    let more = format!(", rules: ['{}']", rules.display());
    let weir = Weir::explicit(&format!("cache: {{enabled: true}}\n{}", on(&more)));
    let origin = origin("Cache-Control: max-age=600\r\nETag: \"a\"\r\n", b"secret recipe");
    for _ in 0..3 {
        assert_eq!(ask(&weir, &origin, "").text(), "secret recipe");
    }
    assert_eq!((origin.requests().len(), weir.metric("inspected_total")), (1, 1));
    let part = ask(&weir, &origin, "Range: bytes=0-5\r\n");
    assert_eq!((part.status, part.text()), (206, "secret".to_owned()), "of a whole that was judged");
    std::fs::write(&rules, "rule second { strings: $a = \"secret recipe\" condition: $a }").expect("written");
    eventually("the rules read again", || {
        let answer = ask(&weir, &origin, "");
        (answer.status == 403).then(|| assert_blocked(&answer, "second"))
    });
    assert_eq!(origin.requests().len(), 2, "what others have judged is not used");
    // Nothing that was refused is stored.
    assert_blocked(&ask(&weir, &origin, ""), "second");
    assert_eq!(origin.requests().len(), 3);
    std::fs::write(&rules, "rule broken {").expect("written");
    let refused = weir.command(&["policy", "reload"]).output().expect("weir runs");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("rules.yar"), "{refused:?}");
    assert_blocked(&ask(&weir, &origin, ""), "second");
}

#[test]
fn a_range_is_asked_for_as_the_whole() {
    let weir = Weir::explicit(&on(""));
    let origin = origin("", &[b"..".as_slice(), &eicar()].concat());
    assert_blocked(&ask(&weir, &origin, "Range: bytes=0-40\r\nIf-Range: \"a\"\r\n"), "EICAR_test_file");
    assert_eq!(origin.requests()[0].field("range"), None);
    assert_eq!(origin.requests()[0].field("if-range"), None);
}

#[test]
fn servers_may_be_excepted_and_directions_left_out() {
    let weir = Weir::explicit(&on(", except: [localhost], requests: false"));
    let origin = origin("", &eicar());
    assert_blocked(&ask(&weir, &origin, ""), "EICAR_test_file");
    let head = format!("GET http://localhost:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address.port());
    assert_eq!(send(&weir, &head, b"").body, eicar());
    let url = format!("http://{}/", origin.address);
    let length = eicar().len();
    send(&weir, &format!("POST {url} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"), &eicar());
    assert_eq!(origin.requests().last().map(|request| request.body.clone()), Some(eicar()));
}

#[test]
fn what_is_intercepted_is_judged_too() {
    let site = Intercepting::start("rules: [{name: all, action: intercept}]", &on(""));
    let (_server, port) = site.server(&[]);
    let url = format!("https://localhost:{port}/echo");
    let sent = String::from_utf8(eicar()).expect("ASCII");
    for version in ["--http1.1", "--http2"] {
        let output = site.curl(&["-i", version, "--data-binary", &sent, &url]).output().expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(" 403") && text.contains("EICAR_test_file"), "{version}: {text}");
        let clean = scripts::stdout(&mut site.curl(&[version, "--data-binary", "clean", &url]));
        assert!(!clean.is_empty());
    }
}

/// What stands in for a clamd: it speaks INSTREAM as that does, and finds "worm".
fn clamd(behaviour: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut command = [0; 10];
                stream.read_exact(&mut command).expect("a command");
                assert_eq!(&command, b"zINSTREAM\0");
                let mut content = Vec::new();
                loop {
                    let mut length = [0; 4];
                    stream.read_exact(&mut length).expect("a length");
                    let (length, at) = (u32::from_be_bytes(length) as usize, content.len());
                    if length == 0 {
                        break;
                    }
                    content.resize(at + length, 0);
                    stream.read_exact(&mut content[at..]).expect("a chunk");
                }
                let found = content.windows(4).any(|window| window == b"worm");
                let said = match behaviour {
                    "silent" => {
                        std::thread::sleep(std::time::Duration::from_secs(60));
                        Vec::new()
                    }
                    "confused" => b"INSTREAM size limit exceeded. ERROR\0".to_vec(),
                    _ if found => b"stream: Test.Worm FOUND\0".to_vec(),
                    _ => b"stream: OK\0".to_vec(),
                };
                let _ = stream.write_all(&said);
            });
        }
    });
    address
}

#[test]
fn a_clamd_is_asked() {
    let address = clamd("well");
    let weir = Weir::explicit(&on(&format!(", clamd: {{address: '{address}'}}")));
    let worm = [&[b'.'; 600_000][..], b"worm"].concat();
    assert_blocked(&ask(&weir, &origin("", &worm), ""), "Test.Worm");
    let fields = "Content-Encoding: zstd\r\n";
    assert_blocked(&ask(&weir, &origin(fields, &coded("zstd", &worm)), ""), "Test.Worm");
    assert_eq!(ask(&weir, &origin("", b"a bird"), "").text(), "a bird");
    assert_blocked(&ask(&weir, &origin("", &eicar()), ""), "EICAR_test_file");
}

#[test]
fn a_clamd_without_a_verdict_is_up_to_a_rule() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    for address in [
        clamd("silent").to_string(),
        clamd("confused").to_string(),
        gone.expect("an address").to_string(),
        "/nonexistent/clamd.ctl".to_owned(),
    ] {
        let clamd = format!(", clamd: {{address: '{address}', timeout: 200ms");
        let strict = Weir::explicit(&on(&format!("{clamd}}}")));
        let lax = Weir::explicit(&on(&format!("{clamd}, on_failure: allow}}")));
        let (clean, bad) = (origin("", b"a bird"), origin("", &eicar()));
        assert_blocked(&ask(&strict, &clean, ""), "security.inspection.clamd.on_failure");
        assert_eq!(ask(&lax, &clean, "").text(), "a bird", "{address}");
        assert_blocked(&ask(&lax, &bad, ""), "EICAR_test_file");
        assert_eq!(lax.metric("inspection_undecided_total"), 1);
    }
}

#[test]
fn it_is_told_what_bodies_are_judged_by() {
    let weir = Weir::explicit(&on(""));
    let policy = http::get(weir.admin, "/policy").expect("the admin API answers").json();
    assert_eq!(policy["inspection"]["rules"], 1, "{policy}");
}

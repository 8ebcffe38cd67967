//! Disguises of what is looked for in bodies, each with its name: none may pass.

use std::io::{Read as _, Write as _};

use weir_tests::coded::coded;
use weir_tests::http;
use weir_tests::origin::{chunk, chunked};
use weir_tests::weir::{Weir, connect};

/// The EICAR test file, put together here so that this file is not one.
fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat().into_bytes()
}

/// A part of it that no client may ever see.
const SEEN: &[u8] = b"STANDARD-ANTIVIRUS";

fn with_length(status: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn in_codings(fields: &str, codings: &[&str]) -> Vec<u8> {
    let body = codings.iter().fold(eicar(), |body, coding| coded(coding, &body));
    with_length("200 OK", fields, &body)
}

fn framed(fields: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes(), body].concat()
}

fn framings() -> Vec<(String, Vec<u8>)> {
    let (file, chunked_field) = (eicar(), "Transfer-Encoding: chunked\r\n");
    let bytewise: Vec<u8> = file.chunks(1).flat_map(chunk).chain(*b"0\r\n\r\n").collect();
    let halves = |at: usize| [chunk(&file[..at]), chunk(&file[at..]), b"0\r\n\r\n".to_vec()].concat();
    let extended = [format!("{:x};name=value\r\n", file.len()).as_bytes(), &file, b"\r\n0\r\n\r\n"].concat();
    let trailed = [chunk(&file), b"0\r\nX-Trailer: yes\r\n\r\n".to_vec()].concat();
    let interim =
        [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".as_slice(), &with_length("200 OK", "", &file)];
    let mut all = vec![
        ("a chunk for each byte".to_owned(), framed(chunked_field, &bytewise)),
        ("a chunk with an extension".to_owned(), framed(chunked_field, &extended)),
        ("chunks before a trailer".to_owned(), framed(chunked_field, &trailed)),
        ("growing chunks".to_owned(), framed(chunked_field, &chunked(&file))),
        ("until the connection ends".to_owned(), framed("Connection: close\r\n", &file)),
        ("HTTP/1.0".to_owned(), [b"HTTP/1.0 200 OK\r\n\r\n".as_slice(), &file].concat()),
        ("behind an interim response".to_owned(), interim.concat()),
    ];
    all.extend(
        [1, 10, 33, 34, 67].map(|at| (format!("two chunks, at {at}"), framed(chunked_field, &halves(at)))),
    );
    for status in [
        "200 OK",
        "201 Created",
        "203 Other",
        "299 Fine",
        "302 Found",
        "404 Not Found",
        "410 Gone",
        "500 Oh",
        "503 Busy",
        "599 Odd",
    ] {
        all.push((format!("status {status}"), with_length(status, "Location: /\r\n", &file)));
    }
    for kind in
        ["image/png", "text/plain; charset=utf-16", "application/octet-stream", "text/event-stream", "x", ""]
    {
        all.push((
            format!("type {kind:?}"),
            with_length("200 OK", &format!("Content-Type: {kind}\r\n"), &file),
        ));
    }
    let part = "Content-Range: bytes 0-67/68\r\n";
    all.push(("a part that is the whole".to_owned(), with_length("206 Partial Content", part, &file)));
    let parts =
        [b"--b\r\nContent-Range: bytes 0-67/999\r\n\r\n".as_slice(), &file, b"\r\n--b--\r\n"].concat();
    let multipart = "Content-Type: multipart/byteranges; boundary=b\r\n";
    all.push(("one of several parts".to_owned(), with_length("206 Partial Content", multipart, &parts)));
    let filled = [vec![b' '; 500_000], file.clone(), vec![0; 500_000]].concat();
    all.push(("amid other bytes".to_owned(), with_length("200 OK", "", &filled)));
    all
}

fn codings() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for coding in ["gzip", "deflate", "br", "zstd"] {
        for said in
            [coding.to_owned(), coding.to_uppercase(), format!(" {coding} ,"), format!("identity, {coding}")]
        {
            let field = format!("Content-Encoding: {said}\r\n");
            all.push((format!("coding {said:?}"), in_codings(&field, &[coding])));
        }
        for outer in ["gzip", "deflate", "br", "zstd"] {
            let field = format!("Content-Encoding: {coding}, {outer}\r\n");
            all.push((format!("{coding} in {outer}"), in_codings(&field, &[coding, outer])));
            let fields = format!("Content-Encoding: {coding}\r\ncontent-encoding: {outer}\r\n");
            all.push((format!("{coding} in {outer}, two fields"), in_codings(&fields, &[coding, outer])));
        }
        let plain = format!("Content-Encoding: {coding}\r\n");
        all.push((format!("{coding} that is none"), with_length("200 OK", &plain, &eicar())));
        let mut cut = coded(coding, &[eicar(), vec![b'.'; 50_000]].concat());
        cut.truncate(cut.len() - 3);
        all.push((format!("{coding} that is cut off"), with_length("200 OK", &plain, &cut)));
        let followed = [coded(coding, b"harmless"), eicar()].concat();
        all.push((format!("{coding} with more behind it"), with_length("200 OK", &plain, &followed)));
    }
    let members = [coded("gzip", b"harmless"), coded("gzip", &eicar())].concat();
    all.push((
        "the second member".to_owned(),
        with_length("200 OK", "Content-Encoding: x-gzip\r\n", &members),
    ));
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4], &*coded("zstd", &eicar())].concat();
    all.push((
        "behind a skippable frame".to_owned(),
        with_length("200 OK", "Content-Encoding: zstd\r\n", &skipped),
    ));
    for unknown in ["compress", "dcb", "aes128gcm", "gzip;q=1", "gz ip", "gzip gzip"] {
        let field = format!("Content-Encoding: {unknown}\r\n");
        all.push((format!("the coding {unknown:?}"), in_codings(&field, &["gzip"])));
    }
    let five = ["gzip", "deflate", "br", "zstd", "gzip"];
    all.push((
        "five codings".to_owned(),
        in_codings(&format!("Content-Encoding: {}\r\n", five.join(", ")), &five),
    ));
    all
}

/// What comes back, whatever it is.
fn answer(weir: &Weir, request: &str) -> Vec<u8> {
    let mut stream = connect(weir.proxy);
    stream.write_all(request.as_bytes()).expect("weir takes it");
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut all);
    all
}

#[test]
fn no_disguise_of_a_download_passes() {
    let weir = Weir::explicit("security: {inspection: {enabled: true, max_wait: 30s, timeout: 30s}}");
    let disguises: Vec<_> = framings().into_iter().chain(codings()).collect();
    let asked = ["", "Range: bytes=0-40\r\n", "Range: bytes=10-\r\nIf-Range: \"x\"\r\n", "TE: trailers\r\n"];
    let mut attempts = 0;
    for (name, bytes) in &disguises {
        let sent = bytes.clone();
        let server = http::server("127.0.0.1", move |mut stream| {
            http::read_head(&mut stream);
            let _ = stream.write_all(&sent);
        });
        for fields in asked {
            let request =
                format!("GET http://{server}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
            let got = answer(&weir, &request);
            assert!(!got.windows(SEEN.len()).any(|window| window == SEEN), "{name}, {fields:?}");
            let text = String::from_utf8_lossy(&got);
            // Interim responses go on; what they are for does not.
            let mut heads = text.split("\r\n\r\n").map(|head| head.lines().next().unwrap_or_default());
            let head = heads.find(|line| !line.starts_with("HTTP/1.1 1")).unwrap_or_default();
            assert!(
                head.starts_with("HTTP/1.1 403 ") || head.starts_with("HTTP/1.1 502 "),
                "{name}, {fields:?}: {head}"
            );
            attempts += 1;
        }
    }
    assert!(attempts > 300, "{attempts}");
    // And what is none does.
    let clean = with_length("200 OK", "Content-Encoding: gzip\r\n", &coded("gzip", b"harmless"));
    let server = http::server("127.0.0.1", move |mut stream| {
        http::read_head(&mut stream);
        let _ = stream.write_all(&clean);
    });
    let request = format!("GET http://{server}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer(&weir, &request).starts_with(b"HTTP/1.1 200 "));
}

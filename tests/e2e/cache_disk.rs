//! The cache's store on disk: what is found again after weir's end, what is too large for memory, and what a disk that
//! fails, or somebody who meddles with its files, can not bring about.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use weir_tests::folder::files;
use weir_tests::http::{self, Answer};
use weir_tests::origin::{Origin, Request, chunked, read_answer};
use weir_tests::pattern::Pattern;
use weir_tests::scripts;
use weir_tests::weir::{Weir, binary, connect, eventually};

/// Larger than what is stored in memory.
const LARGE: usize = 60_000_000;

/// A weir with a store in `folder`, and little memory.
fn start(folder: &Path) -> Weir {
    Weir::explicit(&format!(
        "cache: {{enabled: true, max_memory: 8MiB, max_object: 256KiB, disk: {{path: '{}', max_size: 1GB, \
         max_object: 100MB}}}}\nserver: {{workers: 2}}",
        folder.display()
    ))
}

fn get(weir: &Weir, origin: &Origin, path: &str, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{}{path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n", origin.address)
        .expect("weir takes it");
    read_answer(&mut client, "GET").expect("an answer")
}

/// Waits until weir answers from what an earlier one has stored: it reads that in while it serves.
fn found_again(weir: &Weir, origin: &Origin, path: &str) -> Answer {
    eventually("an answer from store", || {
        let answer = get(weir, origin, path, "Cache-Control: only-if-cached\r\n");
        (answer.status == 200).then_some(answer)
    })
}

fn disk(weir: &Weir, name: &str) -> u64 {
    weir.metric(&format!("cache_store_{name}{{store=\"disk\"}}"))
}

/// An origin whose answers differ by path, and by a field that they vary by.
fn origin() -> Origin {
    Origin::start(|request: &Request| {
        let body = body(&request.head, request.field("x-who"));
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nVary: X-Who\r\nETag: \"a\"\r\n";
        match request.head.split(' ').nth(1) {
            Some(path) if path.ends_with("/c") => {
                [head.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n", &chunked(&body)].concat()
            }
            _ => [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat(),
        }
    })
}

/// What is found at `/LENGTH...`.
fn body(head: &str, who: Option<&str>) -> Vec<u8> {
    let path = head.split(' ').nth(1).unwrap_or_default();
    let length = path[1..].split('/').next().and_then(|length| length.parse().ok()).unwrap_or(0);
    let seed = path.bytes().chain(who.unwrap_or_default().bytes());
    Pattern::bytes(seed.fold(7, |sum, byte| sum * 31 + u64::from(byte)), length)
}

fn expected(path: &str, who: Option<&str>) -> Vec<u8> {
    body(&format!("GET {path} HTTP/1.1"), who)
}

#[test]
fn what_was_stored_is_found_again_however_weir_ended() {
    let folder = TempDir::new().expect("a folder");
    let origin = origin();
    let paths = ["/100", "/100/b", "/200000", "/20000000"];
    let mut weir = start(folder.path());
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for path in paths {
            assert!(get(&weir, &origin, path, "").body == expected(path, None), "{path}");
        }
        let mine = get(&weir, &origin, "/100", "X-Who: me\r\n");
        assert!(mine.body == expected("/100", Some("me")));
        eventually("everything stored", || (disk(&weir, "keys") == 4).then_some(()));
        // What is stored once is not written twice.
        eventually("both variants", || [0, 5].contains(&disk(&weir, "stores_total")).then_some(()));
        weir.signal(signal);
        weir.wait();
        weir = start(folder.path());
        for path in paths {
            let answer = found_again(&weir, &origin, path);
            assert!(answer.body == expected(path, None), "{signal} {path}");
            assert!(answer.field("cache-status").is_some_and(|status| status.starts_with("weir; hit")));
        }
        let mine = get(&weir, &origin, "/100", "X-Who: me\r\nCache-Control: only-if-cached\r\n");
        assert!(mine.body == expected("/100", Some("me")), "{signal}");
        assert_eq!(origin.requests().len(), 5, "{signal}");
        assert_eq!((disk(&weir, "hits_total"), disk(&weir, "damaged_total")), (5, 0));
    }
}

#[test]
fn what_is_too_large_for_memory_is_answered_from_disk() {
    let folder = TempDir::new().expect("a folder");
    let (weir, origin) = (start(folder.path()), origin());
    let path = format!("/{LARGE}");
    let before = weir.resident_kib();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| get(&weir, &origin, &path, "").body)).collect();
        clients.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    let whole = expected(&path, None);
    assert!(answers.iter().all(|answer| *answer == whole));
    let asked = origin.requests().len();
    assert_eq!(asked, 1, "who asks at the same time waits for the same answer");
    for (range, part) in [
        ("0-99", &whole[..100]),
        ("262100-262199", &whole[262_100..262_200]),
        ("10000000-19999999", &whole[10_000_000..20_000_000]),
        ("-1", &whole[LARGE - 1..]),
    ] {
        let answer = get(&weir, &origin, &path, &format!("Range: bytes={range}\r\n"));
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == part, "{range}: {} bytes", answer.body.len());
    }
    let out = weir.folder().join("out");
    let url = format!("http://{}{path}", origin.address);
    let output = weir.curl(&["-f", "-o", out.to_str().expect("a path"), &url]).output().expect("curl runs");
    assert!(output.status.success() && std::fs::read(&out).expect("a file") == whole, "{output:?}");
    assert_eq!(origin.requests().len(), asked);
    assert!(weir.resident_kib() < before + 30_000, "{} KiB, {before} before", weir.resident_kib());
}

/// Of what comes in chunks nobody knows how much there will be.
#[test]
fn what_turns_out_too_large_for_memory_is_answered_from_disk() {
    let folder = TempDir::new().expect("a folder");
    let (weir, origin) = (start(folder.path()), origin());
    let before = weir.resident_kib();
    for length in [100, 200_000, 3_000_000, LARGE] {
        let path = format!("/{length}/c");
        let whole = expected(&path, None);
        for _ in 0..2 {
            assert!(get(&weir, &origin, &path, "").body == whole, "{path}");
        }
        let part = get(&weir, &origin, &path, "Range: bytes=-50\r\n");
        assert!(part.status == 206 && part.body == whole[length - 50..], "{}", part.head);
    }
    assert_eq!(origin.requests().len(), 4);
    assert!(weir.resident_kib() < before + 30_000, "{} KiB, {before} before", weir.resident_kib());
    // Larger than any that is stored.
    let path = "/110000000/c";
    for count in 5..=6 {
        assert!(get(&weir, &origin, path, "").body == expected(path, None));
        assert_eq!(origin.requests().len(), count);
    }
    eventually("nothing to be left of it", || {
        (!files(folder.path()).iter().any(|file| file.parent().is_some_and(|at| at.ends_with("tmp"))))
            .then_some(())
    });
}

/// What is stored came from somewhere: it is not given out where that is refused now.
#[test]
fn what_the_access_list_refuses_is_not_answered_from_store() {
    let folder = TempDir::new().expect("a folder");
    let origin = origin();
    let mut first = start(folder.path());
    get(&first, &origin, "/100", "");
    first.signal(Signal::SIGTERM);
    first.wait();
    let overlay = format!("cache: {{enabled: true, disk: {{path: '{}'}}}}", folder.path().display());
    let again = Weir::explicit(&overlay);
    found_again(&again, &origin, "/100");
    drop(again);
    let refuses = format!("{overlay}\nsecurity: {{acl: {{destinations: {{loopback: deny}}}}}}");
    let strict = Weir::explicit(&refuses);
    eventually("what is stored to be found", || (disk(&strict, "keys") > 0).then_some(()));
    assert_eq!(get(&strict, &origin, "/100", "").status, 403);
    assert_eq!(get(&strict, &origin, "/100", "Cache-Control: only-if-cached\r\n").status, 504);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn what_memory_drops_is_found_on_disk() {
    let folder = TempDir::new().expect("a folder");
    let (weir, origin) = (start(folder.path()), origin());
    let paths: Vec<_> = (0..60).map(|number| format!("/200000/{number}")).collect();
    for path in &paths {
        get(&weir, &origin, path, "");
    }
    eventually("everything stored", || (disk(&weir, "keys") == 60).then_some(()));
    for path in &paths {
        assert!(get(&weir, &origin, path, "").body == expected(path, None), "{path}");
    }
    assert_eq!(origin.requests().len(), 60);
    assert!(disk(&weir, "hits_total") >= 20, "{}", disk(&weir, "hits_total"));
    assert!(weir.metric("cache_stored_bytes") <= 8 << 20);
    let stats = scripts::stdout(&mut weir.command(&["cache", "stats"]));
    assert!(
        stats.contains("disk (ready): 60 URLs in ") && stats.contains(", 60 stored, 0 dropped for"),
        "{stats}"
    );
    let stats = http::get(weir.admin, "/admin/cache/stats").expect("an answer").json();
    assert_eq!((&stats["stores"][0]["store"], &stats["stores"][0]["stored"]), (&"disk".into(), &60.into()));
}

#[test]
fn what_is_renewed_or_removed_is_so_on_disk_too() {
    let folder = TempDir::new().expect("a folder");
    let count = Arc::new(AtomicUsize::new(0));
    let answers = Arc::clone(&count);
    let origin = Origin::start(move |request: &Request| match request.field("if-none-match") {
        Some(_) => b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=600\r\nX: new\r\n\r\n".to_vec(),
        None => {
            let number = answers.fetch_add(1, Ordering::SeqCst);
            let (age, length) = match request.head.contains("/stale") {
                true => (0, 1_000_000),
                false => (600, 10),
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age={age}\r\nETag: \"a\"\r\nX: {number}\r\nContent-Length: {length}\r\n\r\n"
            );
            [head.into_bytes(), vec![b'x'; length]].concat()
        }
    });
    let mut weir = start(folder.path());
    let restart = |weir: Weir, stored: u64| {
        eventually("everything stored", || (disk(&weir, "stores_total") == stored).then_some(()));
        weir.signal(Signal::SIGKILL);
        drop(weir);
        start(folder.path())
    };
    // A body in a file of its own, whose head is renewed, and then found with it.
    assert_eq!(get(&weir, &origin, "/stale", "").field("x"), Some("0"));
    assert_eq!(get(&weir, &origin, "/stale", "").field("x"), Some("new"));
    for path in ["/posted", "/purged"] {
        get(&weir, &origin, path, "");
    }
    weir = restart(weir, 4);
    let renewed = found_again(&weir, &origin, "/stale");
    assert_eq!((renewed.field("x"), renewed.body.len()), (Some("new"), 1_000_000));
    assert_eq!(origin.requests().len(), 4);
    let mut client = connect(weir.proxy);
    write!(client, "DELETE http://{}/posted HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)
        .expect("weir takes it");
    assert_eq!(read_answer(&mut client, "DELETE").expect("an answer").status, 200);
    let say = |weir: &Weir, arguments: &[&str]| {
        scripts::stdout(&mut weir.command(&[&["cache"], arguments].concat()))
    };
    assert!(
        say(&weir, &["inspect", "*/purged"]).contains("disk: 200 10 bytes"),
        "{}",
        say(&weir, &["inspect", "*"])
    );
    assert_eq!(say(&weir, &["purge", "*/purged"]), "1 removed");
    eventually("one left", || (files(folder.path()).len() == 2).then_some(()));
    weir = restart(weir, 0);
    found_again(&weir, &origin, "/stale");
    for path in ["/posted", "/purged"] {
        let answer = get(&weir, &origin, path, "Cache-Control: only-if-cached\r\n");
        assert_eq!(answer.status, 504, "{path}");
    }
    assert_eq!(say(&weir, &["purge", "*"]), "1 removed");
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn damaged_files_are_misses() {
    let folder = TempDir::new().expect("a folder");
    let origin = origin();
    let paths = ["/100", "/200000", "/20000000"];
    for (harm, harms) in [
        ("cut off", &(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2)) as &dyn Fn(&mut Vec<u8>)),
        ("one bit", &|bytes| *bytes.last_mut().expect("a byte") ^= 1),
        ("zeroed", &|bytes| bytes.fill(0)),
        ("something else", &|bytes| *bytes = b"<html>".repeat(100)),
    ] {
        let weir = start(folder.path());
        for path in paths {
            get(&weir, &origin, path, "");
        }
        eventually("everything stored", || (disk(&weir, "stores_total") == 3).then_some(()));
        weir.signal(Signal::SIGKILL);
        drop(weir);
        for file in files(folder.path()) {
            let mut bytes = std::fs::read(&file).expect("a file");
            harms(&mut bytes);
            std::fs::write(&file, bytes).expect("a file");
        }
        let weir = start(folder.path());
        eventually("everything found", || (disk(&weir, "up") == 1).then_some(()));
        for path in paths {
            let answer = get(&weir, &origin, path, "");
            assert!(answer.body == expected(path, None), "{harm} {path}");
            assert!(
                answer.field("cache-status").is_some_and(|status| status.contains("miss")),
                "{}",
                answer.head
            );
        }
        assert!(disk(&weir, "damaged_total") >= 3, "{harm}");
        scripts::stdout(&mut weir.command(&["cache", "purge", "*"]));
    }
}

/// Whoever removes files while they are served takes them from nobody who has begun to read.
#[test]
fn files_that_vanish_are_misses() {
    let folder = TempDir::new().expect("a folder");
    let (weir, origin) = (start(folder.path()), origin());
    let path = format!("/{LARGE}");
    get(&weir, &origin, &path, "");
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{}{path} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    let mut beginning = [0; 100];
    client.read_exact(&mut beginning).expect("the beginning of an answer");
    files(folder.path()).iter().for_each(|file| std::fs::remove_file(file).expect("a file"));
    let rest = std::io::copy(&mut client.take((LARGE - 100) as u64), &mut std::io::sink()).expect("the rest");
    assert_eq!(rest, (LARGE - 100) as u64);
    let answer = get(&weir, &origin, &path, "");
    assert!(answer.body == expected(&path, None));
    assert_eq!(origin.requests().len(), 2, "{}", answer.head);
}

/// What another version of weir has left is not what this one reads: it goes at the start, and weir says so.
#[test]
fn what_another_version_has_stored_is_dropped() {
    let (folder, origin) = (TempDir::new().expect("a folder"), origin());
    let first = start(folder.path());
    get(&first, &origin, "/100", "");
    eventually("it on disk", || (disk(&first, "keys") == 1).then_some(()));
    drop(first);
    std::fs::write(folder.path().join("format"), "weircache 2\n").expect("a file");
    let weir = start(folder.path());
    eventually("it to say so", || weir.log().contains("written by another version of weir").then_some(()));
    assert_eq!((files(folder.path()), disk(&weir, "damaged_total")), (Vec::new(), 0));
    assert!(get(&weir, &origin, "/100", "").body == expected("/100", None));
    assert_eq!(origin.requests().len(), 2);
}

/// A file may not grow: that is an error of the store's, not the end of weir.
#[test]
fn a_limit_on_files_costs_nobody_an_answer() {
    let folder = TempDir::new().expect("a folder");
    let (weir, origin) = (start(folder.path()), origin());
    let pid = weir.pid().to_string();
    let limited =
        Command::new("prlimit").args(["--pid", &pid, "--fsize=150000"]).status().expect("prlimit runs");
    assert!(limited.success());
    for path in ["/100", "/200000", "/20000000", "/20000000", "/200000"] {
        assert!(get(&weir, &origin, path, "").body == expected(path, None), "{path}");
    }
    assert!(disk(&weir, "errors_total") > 0);
    assert_eq!(files(&folder.path().join("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn a_folder_that_is_not_ours_alone_is_refused() {
    let refused = |folder: &Path| {
        let state = TempDir::new().expect("a folder");
        let mut command = Command::new(binary());
        command.args([
            "serve",
            "--set",
            "capture.mode=off",
            "--set",
            "server.port=0",
            "--set",
            "admin.port=0",
        ]);
        command.args(["--set", &format!("admin.state_dir={}", state.path().display())]);
        command
            .args(["--set", "cache.enabled=true"])
            .args(["--set", &format!("cache.disk.path={}", folder.display())]);
        let output = command.stdin(Stdio::null()).output().expect("weir starts");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let folder = TempDir::new().expect("a folder");
    let weir = start(folder.path());
    assert!(refused(folder.path()).contains("another weir uses"), "{}", refused(folder.path()));
    drop(weir);
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("a folder of ours");
    assert!(refused(folder.path()).contains("everybody may write"), "{}", refused(folder.path()));
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    assert!(refused(&file).contains("can't be used"), "{}", refused(&file));
}

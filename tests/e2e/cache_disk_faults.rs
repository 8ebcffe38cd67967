//! File systems that are full, or take nothing any more, below the cache's store on disk. Needs root, for mounts.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use weir_tests::http::Answer;
use weir_tests::origin::{Origin, Request, read_answer};
use weir_tests::pattern::Pattern;
use weir_tests::weir::{Weir, connect, eventually};

/// A file system of its own; gone when dropped.
struct Mount(TempDir);

impl Mount {
    fn new(bytes: u64) -> Self {
        let mount = Self(TempDir::new().expect("a folder"));
        mount.run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes},mode=700"), "weir-test"]);
        mount
    }

    fn read_only(&self) {
        self.run("mount", &["-o", "remount,ro"]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status =
            Command::new(program).args(arguments).arg(self.0.path()).status().expect("it is installed");
        assert!(status.success(), "{program} {arguments:?}: this test needs root");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The folder below it goes with the TempDir.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn start(folder: &Path) -> Weir {
    Weir::explicit(&format!(
        "cache: {{enabled: true, max_memory: 8MiB, max_object: 256KiB, disk: {{path: '{}', max_size: 1GB, \
         max_object: 100MB}}}}",
        folder.display()
    ))
}

/// `/LENGTH/SEED` has so many bytes, which the seed tells.
fn origin() -> Origin {
    Origin::start(|request: &Request| {
        let body = expected(request.head.split(' ').nth(1).unwrap_or_default());
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    })
}

fn expected(path: &str) -> Vec<u8> {
    let mut numbers = path.split('/').skip(1).map(|number| number.parse().unwrap_or(0));
    let length = numbers.next().unwrap_or(0);
    Pattern::bytes(numbers.next().unwrap_or(0), usize::try_from(length).expect("a length"))
}

#[track_caller]
fn get(weir: &Weir, origin: &Origin, path: &str, fields: &str) -> Answer {
    let mut client = connect(weir.proxy);
    write!(client, "GET http://{}{path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n", origin.address)
        .expect("weir takes it");
    let answer = read_answer(&mut client, "GET").expect("a whole answer");
    assert!(answer.status != 200 || answer.body == expected(path), "{path}: {}", answer.head);
    answer
}

fn disk(weir: &Weir, name: &str) -> u64 {
    weir.metric(&format!("cache_store_{name}{{store=\"disk\"}}"))
}

#[test]
fn a_full_disk_costs_nobody_an_answer() {
    let mount = Mount::new(6 << 20);
    let (weir, origin) = (start(mount.path()), origin());
    // Small ones and large ones, until far more has been asked for than there is room.
    for number in 0..60 {
        get(&weir, &origin, &format!("/200000/{number}"), "");
        get(&weir, &origin, &format!("/{}/{number}", 2 << 20), "");
        get(&weir, &origin, &format!("/{}/{number}", 20 << 20), "");
    }
    assert!(disk(&weir, "errors_total") > 0, "it was never full");
    assert_eq!(disk(&weir, "damaged_total"), 0);
    // It pauses, drops some of what it has, and goes on.
    let stored = eventually("something stored", || {
        get(&weir, &origin, "/100/60", "Cache-Control: no-cache\r\n");
        Some(disk(&weir, "keys")).filter(|keys| *keys > 0)
    });
    drop(weir);
    // What is there is whole.
    let weir = start(mount.path());
    let hits = eventually("answers from store", || {
        let paths = (0..60).flat_map(|number| {
            [format!("/200000/{number}"), format!("/{}/{number}", 2 << 20), format!("/100/{number}")]
        });
        let from_store =
            |path: &String| get(&weir, &origin, path, "Cache-Control: only-if-cached\r\n").status == 200;
        let hits = paths.chain(["/100/60".to_owned()]).filter(from_store).count();
        (hits > 0).then_some(hits)
    });
    assert!(hits as u64 <= stored, "{hits} of {stored}");
    assert_eq!(disk(&weir, "damaged_total"), 0);
}

/// Others fill the disk while a large response is on its way to it.
#[test]
fn a_disk_that_others_fill_costs_nobody_an_answer() {
    let mount = Mount::new(24 << 20);
    let (weir, origin) = (start(mount.path()), origin());
    get(&weir, &origin, "/100/1", "");
    eventually("it stored", || (disk(&weir, "keys") == 1).then_some(()));
    // It fails in the end, for want of room.
    let _ = std::fs::write(mount.path().join("somebody's"), vec![0; 30 << 20]);
    for number in 0..3 {
        get(&weir, &origin, &format!("/{}/{number}", 4 << 20), "");
        get(&weir, &origin, &format!("/200000/{number}"), "");
    }
    assert!(disk(&weir, "errors_total") > 0);
    assert_eq!(disk(&weir, "up"), 0, "it pauses");
    std::fs::remove_file(mount.path().join("somebody's")).expect("a file");
    eventually("it goes on", || {
        let path = format!("/{}/9", 4 << 20);
        get(&weir, &origin, &path, "");
        (get(&weir, &origin, &path, "Cache-Control: only-if-cached\r\n").status == 200).then_some(())
    });
}

#[test]
fn a_disk_that_takes_nothing_is_read_from() {
    let mount = Mount::new(24 << 20);
    let origin = origin();
    let paths = ["/100/1", "/200000/1", "/4000000/1"];
    let weir = start(mount.path());
    for path in paths {
        get(&weir, &origin, path, "");
    }
    eventually("everything stored", || (disk(&weir, "stores_total") == 3).then_some(()));
    drop(weir);
    mount.read_only();
    let weir = start(mount.path());
    for path in paths {
        eventually("an answer from store", || {
            let answer = get(&weir, &origin, path, "Cache-Control: only-if-cached\r\n");
            (answer.status == 200).then_some(())
        });
    }
    assert_eq!(origin.requests().len(), 3);
    for path in ["/100/2", "/4000000/2"] {
        get(&weir, &origin, path, "");
    }
    assert!(disk(&weir, "dropped_total") > 0);
}

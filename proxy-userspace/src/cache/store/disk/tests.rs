//! The store against a real folder.

use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::cache::body::Body;
use crate::cache::store::record;
use crate::cache::store::tests::{entry, key, wants};

const LARGE: usize = 3 << 20;

fn open(folder: &Path) -> Disk {
    let disk = Disk::open(folder, 64 << 20, 8 << 20).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !disk.0.scanned.load(Ordering::Acquire) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    disk
}

/// Waits for a store to be gone, its threads' jobs included: another may then take its folder.
async fn close(disk: Disk) {
    disk.settle().await;
    let shared = Arc::downgrade(&disk.0);
    drop(disk);
    while shared.strong_count() > 0 {
        tokio::time::sleep(LOOK).await;
    }
}

async fn store(disk: &Disk, path: &str, vary: &str, body: &[u8]) {
    disk.store(&key(path), &entry(vary, body));
    disk.settle().await;
}

async fn load(disk: &Disk, path: &str, vary: &str) -> Option<Vec<u8>> {
    let entry = disk.load(&key(path), &wants(vary)).await?;
    content(&entry.body).await
}

async fn content(body: &Body) -> Option<Vec<u8>> {
    let Some((file, _)) = body.file() else { return Some(body.held()?.concat()) };
    let mut content = Vec::new();
    for number in 0..file.len().div_ceil(record::CHUNK) {
        content.extend_from_slice(&file.chunk(number).await.ok()?);
    }
    Some(content)
}

/// A body that was written as it arrived.
async fn spooled(disk: &Disk, path: &str, content: &[u8]) -> Arc<Entry> {
    let spool = disk.spool(&key(path), Some(content.len() as u64)).unwrap();
    spool.prepare().unwrap();
    content.chunks(100_000).for_each(|piece| spool.append(piece).unwrap());
    let body = Body::filed(spool.finish().unwrap());
    Arc::new(Entry { body, ..Entry::clone(&entry("1", b"")) })
}

/// The files of a store, without folders and the note of their format.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.retain(|path| !path.ends_with("format"));
    found.sort();
    found
}

#[tokio::test]
async fn variants_are_found_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = open(folder.path());
    store(&disk, "/", "1", b"one").await;
    store(&disk, "/", "2", b"two").await;
    store(&disk, "/", "1", b"uno").await;
    store(&disk, "/empty", "1", b"").await;
    store(&disk, "/large", "1", &[7; LARGE]).await;
    let huge: Vec<u8> = (0..2 * LARGE).map(|at| (at % 251) as u8).collect();
    let entry = spooled(&disk, "/huge", &huge).await;
    disk.store(&key("/huge"), &entry);
    drop(entry);
    for restarts in 0..2 {
        disk.settle().await;
        assert_eq!(load(&disk, "/", "1").await.as_deref(), Some(&b"uno"[..]), "{restarts}");
        assert_eq!(load(&disk, "/", "2").await.as_deref(), Some(&b"two"[..]));
        assert_eq!(load(&disk, "/", "3").await, None);
        assert_eq!(load(&disk, "/empty", "1").await, Some(Vec::new()));
        assert_eq!(load(&disk, "/large", "1").await.map(|body| body.len()), Some(LARGE));
        assert!(load(&disk, "/huge", "1").await == Some(huge.clone()));
        assert!(!disk.may_have(&key("/other")));
        assert_eq!(files(folder.path()).len(), 6, "{:?}", files(folder.path()));
        close(disk).await;
        disk = open(folder.path());
    }
}

/// After a restart of the machine, the number of its namespace may be another one's.
#[tokio::test]
async fn what_is_of_a_network_namespace_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    let key = Key::from_text("198.18.0.1:80%7 http://a.example:80/");
    disk.store(&key, &entry("1", b"x"));
    disk.settle().await;
    assert!(!disk.may_have(&key) && disk.spool(&key, Some(1000)).is_none());
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

/// Whatever is done to a file, what is delivered is what was stored, or nothing; and then the file is gone.
#[tokio::test]
async fn what_is_not_as_it_was_is_a_miss_and_is_removed() {
    type Harm = (&'static str, fn(&Path));
    let harms: &[Harm] = &[
        ("cut off", |path| cut_off(path, 1)),
        ("half", |path| cut_off(path, std::fs::metadata(path).unwrap().len() / 2)),
        ("emptied", |path| std::fs::write(path, b"").unwrap()),
        ("zeroed", |path| {
            std::fs::write(path, vec![0; std::fs::metadata(path).unwrap().len() as usize]).unwrap();
        }),
        ("one bit", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("longer", |path| {
            let bytes = [std::fs::read(path).unwrap(), vec![0]].concat();
            std::fs::write(path, bytes).unwrap();
        }),
        ("a link", |path| {
            let other = path.with_file_name("somebody's");
            std::fs::rename(path, &other).unwrap();
            std::os::unix::fs::symlink(&other, path).unwrap();
        }),
        ("a pipe", |path| {
            std::fs::remove_file(path).unwrap();
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("gone", |path| std::fs::remove_file(path).unwrap()),
    ];
    for (harm, harms) in harms {
        for (path, body) in [("/small", false), ("/large", false), ("/huge", false), ("/huge", true)] {
            let folder = tempfile::tempdir().unwrap();
            let disk = open(folder.path());
            match path {
                "/small" => store(&disk, path, "1", b"content").await,
                "/large" => store(&disk, path, "1", &[7; LARGE]).await,
                _ => {
                    let entry = spooled(&disk, path, &[9; LARGE]).await;
                    disk.store(&key(path), &entry);
                    disk.settle().await;
                }
            }
            let found = files(folder.path());
            let is_body = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "body");
            harms(found.iter().find(|path| is_body(path) == body).unwrap());
            assert_eq!(load(&disk, path, "1").await, None, "{harm} {path} {body}");
            assert!(!disk.may_have(&key(path)), "{harm} {path} {body}");
            disk.settle().await;
            let left = files(folder.path());
            let left = left.iter().filter(|path| !path.ends_with("somebody's")).count();
            assert_eq!(left, 0, "{harm} {path} {body}: {left:?}");
        }
    }
}

fn cut_off(path: &Path, bytes: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

#[tokio::test]
async fn a_restart_clears_what_was_not_finished_and_leaves_what_is_not_ours() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    store(&disk, "/a", "1", b"content").await;
    let entry = spooled(&disk, "/huge", &[9; LARGE]).await;
    disk.store(&key("/huge"), &entry);
    disk.settle().await;
    drop(entry);
    close(disk).await;
    let shard = folder.path().join("ab");
    std::fs::create_dir_all(&shard).unwrap();
    let foreign = [folder.path().join("README"), shard.join("notes.txt"), folder.path().join("tmp/mine")];
    for path in &foreign {
        std::fs::write(path, "somebody's").unwrap();
    }
    // Half a record, a body whose record was never written, and a record whose body is gone.
    std::fs::write(folder.path().join(format!("tmp/{:016x}", 5)), "half").unwrap();
    std::fs::write(shard.join(format!("ab{:030x}-{:016x}.body", 1, 6)), "orphan").unwrap();
    let body = files(folder.path())
        .into_iter()
        .find(|path| path.extension().is_some_and(|ending| ending == "body") && !path.starts_with(&shard));
    std::fs::remove_file(body.unwrap()).unwrap();
    let disk = open(folder.path());
    assert_eq!(load(&disk, "/a", "1").await.as_deref(), Some(&b"content"[..]));
    assert!(!disk.may_have(&key("/huge")));
    assert_eq!(files(folder.path()).len(), foreign.len() + 1, "{:?}", files(folder.path()));
    assert!(foreign.iter().all(|path| path.exists()));
}

#[tokio::test]
async fn what_is_removed_stays_removed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    store(&disk, "/a", "1", b"old").await;
    // It is on its way to the disk, and is not to arrive.
    for _ in 0..50 {
        disk.store(&key("/a"), &entry("1", &[1; 100_000]));
        disk.remove(&key("/a"));
        assert!(!disk.may_have(&key("/a")));
    }
    disk.settle().await;
    assert!(!disk.may_have(&key("/a")));
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    disk.store(&key("/a"), &entry("1", b"new"));
    disk.settle().await;
    assert_eq!(load(&disk, "/a", "1").await.as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn what_operators_want_removed_is() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    for path in ["/a/1", "/a/2", "/b"] {
        store(&disk, path, "1", b"content").await;
    }
    let purge = |pattern: &str| Purge::of_pattern(pattern).unwrap();
    assert_eq!(disk.select(10, &purge("*/a/*")).await.len(), 2);
    assert_eq!(disk.select(1, &purge("*")).await[0].1.bytes, 7);
    assert_eq!(disk.purge(&purge("*/a/*")).await.len(), 2);
    assert_eq!(disk.purge(&purge("b.example")).await.len(), 0);
    assert!(disk.may_have(&key("/b")));
    assert_eq!(disk.purge(&Purge::All).await.len(), 1);
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn it_takes_no_more_room_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path(), 8 << 20, 1 << 20).unwrap();
    for number in 0..40 {
        store(&disk, &format!("/{number}"), "1", &[1; 500_000]).await;
        let entry = spooled(&disk, &format!("/huge{number}"), &[9; 1 << 20]).await;
        disk.store(&key(&format!("/huge{number}")), &entry);
        disk.settle().await;
        drop(entry);
        disk.settle().await;
        let total: u64 = files(folder.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!(total <= 8 << 20, "{total}");
    }
    let (keys, bytes) = disk.0.index.size();
    assert!(keys > 3 && bytes <= 7 << 20, "{keys} {bytes}");
    assert_eq!(disk.0.index.evictions(), 80 - keys);
    assert!(disk.spool(&key("/"), Some((1 << 20) + 1)).is_none());
}

/// A body that nobody has noted is nobody's.
#[tokio::test]
async fn an_abandoned_body_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    drop(spooled(&disk, "/", &[1; 1000]).await);
    let half = disk.spool(&key("/"), Some(1000)).unwrap();
    half.prepare().unwrap();
    half.append(&[1; 500]).unwrap();
    assert!(half.finish().is_err());
    drop(half);
    disk.settle().await;
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(disk.0.spooled.load(Ordering::Relaxed), 0);
}

/// A body of unknown length takes room as it grows, up to the largest that is stored.
#[tokio::test]
async fn a_body_of_unknown_length_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path(), 8 << 20, 600_000).unwrap();
    let (a, b, c) = (disk.spool(&key("/"), None), disk.spool(&key("/"), None), disk.spool(&key("/"), None));
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(a.append(&[1; 400_000]).is_ok() && a.append(&[1; 100_000]).is_ok());
    assert!(a.append(&[1; 200_000]).is_err(), "it is too large");
    assert!(b.append(&[2; 500_000]).is_ok());
    assert!(c.append(&[3; 100_000]).is_err(), "there is no room for it");
    assert_eq!(b.finish().unwrap().len(), 500_000);
    drop((a, b, c));
    disk.settle().await;
    assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(disk.0.spooled.load(Ordering::Relaxed), 0);
    assert!(!disk.0.is_paused(), "that says nothing of the disk");
}

/// What is open can be read to its end, though its file is removed.
#[tokio::test]
async fn who_reads_is_not_disturbed_by_a_removal() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path());
    let stored = spooled(&disk, "/", &[1; LARGE]).await;
    disk.store(&key("/"), &stored);
    disk.settle().await;
    let (file, _) = stored.body.file().unwrap();
    let open = file.open().await.unwrap();
    disk.remove(&key("/"));
    disk.settle().await;
    assert_eq!(content(&stored.body).await.map(|body| body.len()), Some(LARGE));
    drop(open);
    assert!(file.open().await.is_none());
}

/// What another version of weir has written is not this one's: it goes as a whole, and what is not ours stays.
#[tokio::test]
async fn another_format_is_dropped() {
    for text in [Some("weircache 2\n"), Some("weircache 9999\n"), Some(""), None] {
        let folder = tempfile::tempdir().unwrap();
        let disk = open(folder.path());
        store(&disk, "/small", "1", b"small").await;
        let large = spooled(&disk, "/large", &[7; LARGE]).await;
        disk.store(&key("/large"), &large);
        drop(large);
        close(disk).await;
        let foreign = folder.path().join("00").join("README");
        std::fs::create_dir_all(foreign.parent().unwrap()).unwrap();
        std::fs::write(&foreign, "mine").unwrap();
        let note = folder.path().join("format");
        match text {
            Some(text) => std::fs::write(&note, text).unwrap(),
            None => std::fs::remove_file(&note).unwrap(),
        }
        let disk = open(folder.path());
        assert_eq!((files(folder.path()), disk.report().keys), (vec![foreign], Some(0)), "{text:?}");
        assert_eq!(disk.report().damaged, 0, "{text:?}");
        store(&disk, "/small", "1", b"new").await;
        close(disk).await;
        let disk = open(folder.path());
        assert_eq!(load(&disk, "/small", "1").await.as_deref(), Some(b"new".as_slice()), "{text:?}");
        close(disk).await;
    }
}

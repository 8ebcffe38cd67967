use super::*;
use crate::cache::Cache;
use crate::cache::directives::ResponseDirectives;
use crate::cache::freshness::{Exchanged, Freshness};
use crate::cache::key::Key;
use crate::cache::storable::Storable;
use crate::cache::store::disk::Disk;
use crate::cache::tests::{RULES, response};
use crate::cache::vary::Selection;

fn begin(length: Option<u64>) -> (Writer, Reader) {
    let response = response(200, "");
    let directives = ResponseDirectives::default();
    let exchanged = Exchanged { sent: 0, received: 0 };
    let freshness = Freshness::of(&response, &directives, false, exchanged, &RULES);
    let storable = Storable { freshness, selection: Selection::default(), directives };
    Filling::begin(Stored::of(&response, storable), length, None, None, None)
}

/// What a reader can have without waiting, and how that ends.
fn read(reader: &mut Reader) -> (Vec<u8>, &'static str) {
    let mut content = Vec::new();
    loop {
        match reader.take() {
            Given::Piece(piece) => content.extend_from_slice(&piece),
            Given::Filed(_) => panic!("it is in memory"),
            Given::Nothing => return (content, "nothing"),
            Given::Whole(_) => return (content, "whole"),
            Given::Cut => return (content, "cut"),
        }
    }
}

#[test]
fn readers_see_what_is_there_from_the_beginning() {
    let (mut writer, mut first) = begin(Some(5));
    writer.put(b"he");
    assert_eq!(read(&mut first), (b"".to_vec(), "nothing"));
    writer.show();
    assert_eq!(read(&mut first), (b"he".to_vec(), "nothing"));
    let mut second = writer.filling().follow().unwrap();
    assert!(writer.filling().has_followers());
    writer.put(b"llo");
    let filling = Arc::clone(writer.filling());
    assert_eq!(writer.complete().unwrap().held().unwrap().concat(), b"hello");
    assert_eq!(read(&mut first), (b"llo".to_vec(), "whole"));
    assert_eq!(read(&mut second), (b"hello".to_vec(), "whole"));
    drop(second);
    assert!(!filling.has_followers());
}

#[test]
fn a_writer_that_is_dropped_leaves_a_response_that_is_cut_off() {
    let (mut writer, mut reader) = begin(Some(5));
    writer.put(b"he");
    writer.show();
    drop(writer);
    assert_eq!(read(&mut reader), (b"he".to_vec(), "cut"));
}

#[test]
fn one_of_unknown_length_has_one_reader() {
    let (writer, _reader) = begin(None);
    assert!(writer.filling().follow().is_none());
}

#[tokio::test]
async fn what_is_too_large_is_passed_on_with_a_bound_and_not_kept() {
    let (writer, mut reader) = begin(None);
    let mut writer = writer.limited_to(1 << 20);
    let mut content = Vec::new();
    for _ in 0..64 {
        writer.put(&[7; 100_000]);
        writer.show();
        loop {
            tokio::select! {
                biased;
                () = writer.room() => break,
                () = std::future::ready(()) => content.extend(read(&mut reader).0),
            }
        }
        let held: usize = writer.filling().state().pieces.iter().map(Bytes::len).sum();
        assert!(held <= (1 << 20) + 200_000 + WINDOW as usize, "{held}");
    }
    assert!(writer.complete().is_none());
    content.extend(read(&mut reader).0);
    assert_eq!(content.len(), 6_400_000);
}

/// Memory for a body of unknown length is set aside as it arrives; if there is none, it is passed on.
#[tokio::test]
async fn one_of_unknown_length_takes_memory_as_it_grows() {
    for (others, is_kept) in [(0, true), (7 << 19, false)] {
        let cache = Cache::new(8 << 20, 4 << 20);
        let _others = cache.reserve(others).unwrap();
        let stored = Arc::clone(&begin(None).0.filling).stored.clone();
        let (writer, mut reader) = Filling::begin(stored, None, None, cache.reserve(1 << 16), None);
        let mut writer = writer.in_memory_up_to(2 << 20);
        let mut content = Vec::new();
        for _ in 0..20 {
            writer.put(&[7; 100_000]);
            writer.show();
            content.extend(read(&mut reader).0);
            writer.room().await;
        }
        assert_eq!(writer.complete().map(|body| body.len()), is_kept.then_some(2_000_000));
        assert_eq!(content.len(), 2_000_000);
        assert_eq!(cache.reserve(2 << 20).is_some(), is_kept, "no more than twice of what it needs");
        drop(reader);
    }
}

/// What turns out too large for memory goes to disk.
#[tokio::test]
async fn one_of_unknown_length_goes_to_disk() {
    let folder = tempfile::tempdir().unwrap();
    let content = pattern(5 << 20);
    let disk = Disk::open(folder.path(), 64 << 20, 8 << 20).unwrap();
    for length in [100_000, content.len()] {
        let spool = disk.spool(&Key::from_text("http://a.example:80/"), None);
        let stored = Arc::clone(&begin(None).0.filling).stored.clone();
        let (writer, reader) = Filling::begin(stored, None, None, None, spool);
        let mut writer = writer.in_memory_up_to(1 << 20);
        writer.prepare().await;
        for piece in content[..length].chunks(90_000) {
            writer.put(piece);
            writer.show();
            writer.room().await;
        }
        writer.settle().await;
        let body = writer.complete().unwrap();
        assert_eq!((body.len(), body.held().is_some()), (length as u64, length < 1 << 20));
        assert!(read_all(reader).await == (content[..length].to_vec(), "whole"));
    }
}

#[tokio::test]
async fn readers_of_other_threads_are_woken() {
    let (mut writer, _first) = begin(Some(100_000));
    let mut reader = writer.filling().follow().unwrap();
    let thread = std::thread::spawn(move || {
        for _ in 0..1000 {
            writer.put(&[1; 100]);
            writer.show();
        }
        writer.complete()
    });
    let mut content = 0;
    loop {
        match reader.take() {
            Given::Piece(piece) => content += piece.len(),
            Given::Nothing => reader.more().await,
            Given::Whole(_) => break,
            Given::Cut | Given::Filed(_) => panic!("cut"),
        }
    }
    assert_eq!(content, 100_000);
    assert_eq!(thread.join().unwrap().unwrap().len(), 100_000);
}

/// A response that is written to a store in this folder.
fn begin_spooled(folder: &std::path::Path, length: u64) -> (Disk, Writer, Reader) {
    let disk = Disk::open(folder, 64 << 20, 8 << 20).unwrap();
    let spool = disk.spool(&Key::from_text("http://a.example:80/"), Some(length)).unwrap();
    let stored = Arc::clone(&begin(None).0.filling).stored.clone();
    let (writer, reader) = Filling::begin(stored, Some(length), None, None, Some(spool));
    (disk, writer.limited_to(length), reader)
}

/// Reads to the end, from memory or disk.
async fn read_all(mut reader: Reader) -> (Vec<u8>, &'static str) {
    let mut content = Vec::new();
    loop {
        match reader.take() {
            Given::Piece(piece) => content.extend_from_slice(&piece),
            Given::Filed(place) => {
                content.extend_from_slice(&reader.filling().read(place).await.unwrap());
            }
            Given::Nothing => reader.more().await,
            Given::Whole(_) => return (content, "whole"),
            Given::Cut => return (content, "cut"),
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn what_is_too_large_for_memory_is_read_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let content = pattern(8 << 20);
    let (_disk, mut writer, first) = begin_spooled(folder.path(), content.len() as u64);
    let filling = Arc::clone(writer.filling());
    writer.prepare().await;
    let second = filling.follow().unwrap();
    for piece in content.chunks(90_000) {
        writer.put(piece);
        writer.show();
        writer.room().await;
        let held: usize = filling.state().pieces.iter().map(Bytes::len).sum();
        assert!(held as u64 <= spooled::WINDOW + 90_000, "{held}");
    }
    let third = filling.follow().unwrap();
    let mut fourth = filling.follow().unwrap();
    writer.show();
    let mut given = 0;
    loop {
        match fourth.take() {
            Given::Piece(piece) => given += piece.len(),
            Given::Filed(place) => given += place.length,
            Given::Nothing => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(given < content.len(), "it is not in store yet, and somebody has all of it");
    writer.settle().await;
    let body = writer.complete().unwrap();
    assert_eq!((body.len(), body.held().is_none()), (8 << 20, true));
    for reader in [first, second, third] {
        assert!(read_all(reader).await == (content.clone(), "whole"));
    }
}

/// A disk that takes no more does not keep the first client from what it has asked for. Others are told that they have
/// not got all.
#[tokio::test]
async fn a_disk_that_fails_half_way_costs_the_first_reader_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let content = pattern(4 << 20);
    let (_disk, mut writer, first) = begin_spooled(folder.path(), content.len() as u64);
    let filling = Arc::clone(writer.filling());
    writer.prepare().await;
    let second = filling.follow().unwrap();
    let (written, fails) = content.split_at(1 << 20);
    writer.put(written);
    writer.show();
    while filling.state().unwritten() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    filling.state().passing = true;
    assert!(filling.follow().is_none());
    let reading = tokio::spawn(read_all(first));
    for piece in fails.chunks(90_000) {
        writer.put(piece);
        writer.show();
        writer.room().await;
    }
    writer.settle().await;
    assert!(writer.complete().is_none());
    assert!(reading.await.unwrap() == (content, "whole"));
    assert_eq!(read_all(second).await.1, "cut");
}

#[tokio::test]
async fn a_disk_without_room_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, mut writer, first) = begin_spooled(folder.path(), 1000);
    let tmp = folder.path().join("tmp");
    std::fs::remove_dir(&tmp).unwrap();
    std::fs::write(&tmp, "in the way").unwrap();
    writer.prepare().await;
    assert!(!writer.filling().is_stored());
    writer.put(&[7; 1000]);
    writer.settle().await;
    assert!(writer.complete().is_none());
    assert_eq!(read_all(first).await, (vec![7; 1000], "whole"));
    assert!(disk.spool(&Key::from_text("x"), Some(1000)).is_none(), "it pauses");
}

//! Bodies that lie in a file, over real connections.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::net::deadline::Deadline;
use crate::net::transport::Transport;
use crate::relay::body::{Patience, Terms, transfer};

/// More than a socket has room for.
const LENGTH: usize = 20_000_003;

/// What its holder has in memory is not what lies in the file: so it shows which of them went out.
struct Placed {
    held: Vec<u8>,
    place: Option<Place>,
}

impl Source for Placed {
    fn side(&self) -> Side {
        Side::Upstream
    }

    fn next(&mut self) -> Result<Piece<'_>, BodyError> {
        Ok(match self.place.take() {
            Some(place) => Piece::Placed(&self.held, place),
            None => Piece::End(None),
        })
    }

    async fn fill(&mut self) -> Result<(), BodyError> {
        Ok(())
    }
}

/// Sends a body that is in a file to a client that reads slowly; what that gets.
async fn sent(framing: Framing, held: Vec<u8>, place: Place) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut transport = Transport::Plain(listener.accept().await.unwrap().0);
    let deadline = Deadline::new();
    let second = Duration::from_secs(30);
    let patience = Patience { deadline: &deadline, read: second, write: second, least_rate: 0, pace: None };
    let terms = Terms { patience, limit: None, paces_streams: false, moved: None };
    let send = async {
        let (_, writer) = transport.split();
        let mut sink = Leaving::new(Side::Downstream, writer, framing);
        sink.stage_head(framing, |out| out.extend_from_slice(b"head "));
        transfer(Placed { held, place: Some(place) }, &mut sink, terms).await.unwrap();
        sink.shutdown().await.unwrap();
    };
    let read = async {
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        got
    };
    tokio::join!(send, read).1
}

fn file(content: &[u8]) -> Place {
    let file = File::from(memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all_at(content, 4096).unwrap();
    Place::new(Box::leak(Box::new(file)), 4096)
}

#[tokio::test]
async fn large_content_leaves_from_its_file_and_in_its_order() {
    let content: Vec<u8> = (0..LENGTH).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8).collect();
    let got = sent(Framing::Length(LENGTH as u64), vec![0; LENGTH], file(&content)).await;
    assert!(got.starts_with(b"head ") && got.len() == LENGTH + 5);
    // The end is too little for a call of its own: it is copied.
    let from_file = got[5..].iter().zip(&content).take_while(|(got, there)| got == there).count();
    assert!(from_file > LENGTH - 32_768 && got[5 + from_file..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn content_in_chunks_is_copied() {
    let got = sent(Framing::Chunked, vec![b'm'; 100_000], file(&[b'f'; 100_000])).await;
    assert!(!got.contains(&b'f') && got.ends_with(b"m\r\n0\r\n\r\n"));
}

//! Asks a clamd (clamd(8), INSTREAM). Each body has a connection of its own: clamd closes those that it has answered.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Finding, Form, Scanner};
use crate::config::ClamdAddress;

/// Bytes of a chunk: clamd takes up to StreamMaxLength.
const CHUNK: usize = 256 << 10;

/// The longest answer that is read: a name of a signature and a few words.
const MAX_ANSWER: u64 = 1024;

#[derive(Debug)]
pub(super) struct Clamd {
    address: ClamdAddress,
    timeout: Duration,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Clamd {
    pub(super) fn new(address: ClamdAddress, timeout: Duration) -> Self {
        Self { address, timeout }
    }

    fn connect(&self, until: Instant) -> io::Result<Box<dyn Stream>> {
        let left = until.saturating_duration_since(Instant::now()).min(self.timeout);
        // Zero is no time-out, but an error.
        let left = left.max(Duration::from_millis(1));
        match &self.address {
            ClamdAddress::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(left))?;
                stream.set_write_timeout(Some(left))?;
                Ok(Box::new(stream))
            }
            ClamdAddress::Tcp(address) => {
                let mut last = io::Error::other("its name has no address");
                for address in address.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, left) {
                        Ok(stream) => {
                            stream.set_read_timeout(Some(left))?;
                            stream.set_write_timeout(Some(left))?;
                            return Ok(Box::new(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    fn ask(&self, content: &[u8], until: Instant) -> io::Result<Vec<u8>> {
        let mut stream = self.connect(until)?;
        let sent = send(&mut *stream, content);
        let mut answer = Vec::new();
        // It answers before it has seen everything where that is too large for it.
        let read = stream.take(MAX_ANSWER).read_to_end(&mut answer);
        if answer.is_empty() {
            sent?;
            read?;
        }
        Ok(answer)
    }
}

fn send(stream: &mut dyn Stream, content: &[u8]) -> io::Result<()> {
    stream.write_all(b"zINSTREAM\0")?;
    for chunk in content.chunks(CHUNK) {
        let length = u32::try_from(chunk.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(chunk)?;
    }
    stream.write_all(&0_u32.to_be_bytes())?;
    stream.flush()
}

impl Scanner for Clamd {
    fn scan(&self, content: &[u8], form: Form, until: Instant) -> Finding {
        // What is inside is shown to it next.
        if form == Form::Coded {
            return Finding::Nothing;
        }
        match self.ask(content, until) {
            Ok(answer) => read_answer(&answer),
            Err(error) => Finding::Failed(format!("clamd can't be asked: {error}").into()),
        }
    }
}

/// `stream: OK`, `stream: NAME FOUND`, or `... ERROR`.
fn read_answer(answer: &[u8]) -> Finding {
    let text = String::from_utf8_lossy(answer);
    let text = text.trim_end_matches(['\0', '\n']);
    let said = text.strip_prefix("stream: ").unwrap_or(text);
    match said.strip_suffix(" FOUND") {
        Some(name) => Finding::Match(name.to_owned()),
        None if said == "OK" => Finding::Nothing,
        None => Finding::Failed(format!("clamd says: {}", said.escape_debug()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(read_answer(b"stream: OK\0"), Finding::Nothing);
        let found = "Win.Test.EICAR_HDB-1";
        assert_eq!(read_answer(format!("stream: {found} FOUND\0").as_bytes()), Finding::Match(found.into()));
        for failed in ["INSTREAM size limit exceeded. ERROR\0", "", "OK", "UNKNOWN COMMAND\0"] {
            // A bare OK is clamd's word as well; anything else is not.
            let expected = failed == "OK";
            assert_eq!(read_answer(failed.as_bytes()) == Finding::Nothing, expected, "{failed:?}");
        }
    }
}

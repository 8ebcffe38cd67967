//! A tunnel of which one end, or both, is no socket of its own: a stream on a connection that others share. Both directions
//! are copied; what bounds them is the stream's flow control one way, and the socket's or other stream's the other.

use std::cell::Cell;
use std::io;

use super::body::http1::{Arriving, Leaving, Receiver};
use super::body::{BodyError, Patience, Sink, Source, Terms, Trailers, transfer};
use super::tunnel::{End, Settings, Side};
use crate::http::framing::Framing;
use crate::net::buffered::Inbox;
use crate::net::deadline::Deadline;
use crate::net::pacing::Pace;
use crate::net::place::Place;
use crate::net::transport::Transport;

/// Relays between a stream's two directions and `upstream`, as [`relay_streams`] does. After an unclean end, the upstream
/// is reset.
pub async fn to_connection(
    incoming: impl Source,
    outgoing: &mut impl Sink,
    mut upstream: Transport,
    settings: Settings,
    paces: (Option<&Pace>, Option<&Pace>),
    moved: (&Cell<u64>, &Cell<u64>),
) -> End {
    let (reader, writer) = upstream.split();
    let mut inbox = Inbox::default();
    let received = Arriving::new(Side::Upstream, reader, &mut inbox, Framing::UntilClose);
    let mut sent = Closing::over(Side::Upstream, writer);
    let end = relay_streams((incoming, outgoing), (received, &mut sent), settings, paces, moved).await;
    drop(sent);
    if matches!(end, End::Complete) {
        upstream.end_in_order();
    }
    end
}

/// Relays between two ends until the tunnel ends. Bytes that were taken are counted in `moved`, sent and received; each way keeps to its pace. After
/// an unclean end, no sink has heard of an end that its source has not had.
pub async fn relay_streams(
    (incoming, outgoing): (impl Source, &mut impl Sink),
    (received, sent): (impl Source, &mut impl Sink),
    settings: Settings,
    paces: (Option<&Pace>, Option<&Pace>),
    moved: (&Cell<u64>, &Cell<u64>),
) -> End {
    // One deadline for both ways: either that moves gives the other time.
    let deadline = Deadline::new();
    let terms = |pace, moved| {
        let (read, write) = (settings.idle, settings.idle);
        let patience = Patience { deadline: &deadline, read, write, least_rate: 0, pace };
        Terms { patience, limit: None, paces_streams: false, moved: Some(moved) }
    };
    let up = transfer(incoming, sent, terms(paces.0, moved.0));
    let down = transfer(received, outgoing, terms(paces.1, moved.1));
    match tokio::try_join!(up, down) {
        Ok(_) => End::Complete,
        Err(BodyError::TimedOut(_)) => End::Idle,
        Err(BodyError::Io(side, error)) => End::Broken(side, error),
        Err(error) => End::Broken(Side::Downstream, io::Error::other(error)),
    }
}

/// A socket as an end of a tunnel: its stream ends with FIN.
#[derive(Debug)]
pub struct Closing<W> {
    socket: Leaving<W>,
    /// FIN is due.
    ending: bool,
}

impl<W> Closing<W> {
    pub fn over(side: Side, writer: W) -> Self {
        Self { socket: Leaving::new(side, writer, Framing::UntilClose), ending: false }
    }
}

impl<W: Receiver> Sink for Closing<W> {
    fn side(&self) -> Side {
        self.socket.side()
    }

    fn put(&mut self, content: &[u8]) -> Result<(), BodyError> {
        self.socket.put(content)
    }

    fn put_some(
        &mut self,
        content: &[u8],
        place: Option<Place>,
    ) -> impl Future<Output = Result<usize, BodyError>> {
        self.socket.put_some(content, place)
    }

    fn staged(&self) -> usize {
        self.socket.staged() + usize::from(self.ending)
    }

    fn end(&mut self, _trailers: Trailers) -> Result<(), BodyError> {
        self.ending = true;
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().await?;
        if std::mem::take(&mut self.ending) { self.socket.shutdown().await } else { Ok(()) }
    }

    fn gone(&mut self) -> impl Future<Output = ()> {
        self.socket.gone()
    }
}

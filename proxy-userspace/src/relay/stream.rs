//! A tunnel of which one end is no socket of its own: a stream on a connection that others share. Both directions are
//! copied; what bounds them is the stream's flow control one way, and the socket's the other.

use std::cell::Cell;
use std::io;

use super::body::http1::{Arriving, Leaving};
use super::body::{BodyError, Patience, Sink, Source, Terms, transfer};
use super::tunnel::{End, Settings, Side};
use crate::http::framing::Framing;
use crate::net::buffered::Inbox;
use crate::net::deadline::Deadline;
use crate::net::transport::Transport;

/// Relays between a stream's two directions and `upstream` until the tunnel ends. Bytes that were taken are counted in
/// `moved`, sent and received. After an unclean end, `outgoing` has not heard of an end, and the upstream is reset.
pub async fn relay_stream(
    incoming: impl Source,
    outgoing: &mut impl Sink,
    mut upstream: Transport,
    settings: Settings,
    moved: (&Cell<u64>, &Cell<u64>),
) -> End {
    // One deadline for both ways: either that moves gives the other time.
    let deadline = Deadline::new();
    let patience = Patience { deadline: &deadline, read: settings.idle, write: settings.idle };
    let terms = |moved| Terms { patience, limit: None, moved: Some(moved) };
    let (reader, writer) = upstream.split();
    let up = async {
        let mut socket = Leaving::new(Side::Upstream, writer, Framing::UntilClose);
        transfer(incoming, &mut socket, terms(moved.0)).await?;
        socket.shutdown().await.map_err(|error| BodyError::Io(Side::Upstream, error))
    };
    let mut inbox = Inbox::default();
    let socket = Arriving::new(Side::Upstream, reader, &mut inbox, Framing::UntilClose);
    let down = transfer(socket, outgoing, terms(moved.1));
    match tokio::try_join!(up, down) {
        Ok(_) => {
            upstream.end_in_order();
            End::Complete
        }
        Err(BodyError::TimedOut(_)) => End::Idle,
        Err(BodyError::Io(side, error)) => End::Broken(side, error),
        Err(error) => End::Broken(Side::Downstream, io::Error::other(error)),
    }
}

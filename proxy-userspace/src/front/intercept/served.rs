//! What is spoken inside a session: HTTP is served as on any other connection, all else is relayed from session to session.

use std::io;
use std::rc::Rc;

use tokio::io::AsyncWriteExt as _;

use crate::front::detect::{Detected, MAX_LOOK, inside};
use crate::front::{http1, http2};
use crate::net::buffered::Inbox;
use crate::net::stream::Downstream;
use crate::net::transport::Transport;
use crate::pipeline::Engine;
use crate::pipeline::interception::Taken;
use crate::target::Target;
use crate::tls::alpn::{HTTP1, HTTP2};

/// Serves what is spoken inside.
pub(super) async fn serve(engine: Rc<Engine>, mut downstream: Downstream, mut taken: Taken, base: Target) {
    let spoken = match downstream.stream.alpn().as_deref() {
        Some(HTTP2) => Inside::Http2,
        Some(HTTP1) => Inside::Http1,
        _ if taken.failure().is_some() => Inside::Http1,
        _ => {
            let limit = engine.config.server.timeouts.tunnel_idle;
            let Downstream { stream, inbox, deadline, .. } = &mut downstream;
            match deadline.limit(limit, look_inside(stream, inbox, &mut taken)).await {
                Ok(Ok(inside)) => inside,
                Ok(Err(_)) | Err(_) => {
                    return taken.note_client("nothing was said in the TLS session".into());
                }
            }
        }
    };
    match spoken {
        Inside::Http1 => {
            let own = taken.begin(&engine).await;
            http1::serve(engine, downstream, base, own).await;
        }
        Inside::Http2 => {
            taken.begin(&engine).await;
            http2::serve(engine, downstream, base).await;
        }
        Inside::Other(first) => match (taken.into_opened(), downstream.stream.write_all(&first).await) {
            (Ok(opened), Ok(())) => opened.relay(&engine, downstream),
            (Err(refused), _) => refused.reset(downstream),
            (Ok(_), Err(_)) => {}
        },
    }
}

/// What is spoken inside a session, and what the server has said of itself.
enum Inside {
    Http1,
    Http2,
    Other(Vec<u8>),
}

/// Where nothing was agreed upon in the handshake, the first bytes tell, of whoever speaks first.
async fn look_inside(stream: &mut Transport, inbox: &mut Inbox, taken: &mut Taken) -> io::Result<Inside> {
    let mut from_server = Inbox::default();
    loop {
        match inside(inbox.bytes()) {
            Detected::Http1 => return Ok(Inside::Http1),
            Detected::Http2 => return Ok(Inside::Http2),
            Detected::Unknown if inbox.bytes().len() < MAX_LOOK => {}
            _ => return Ok(Inside::Other(Vec::new())),
        }
        let Some(server) = taken.stream() else { return Ok(Inside::Http1) };
        tokio::select! {
            filled = inbox.fill_patiently(stream) => {
                if filled? == 0 {
                    return Ok(Inside::Other(Vec::new()));
                }
            }
            filled = from_server.fill_patiently(server) => {
                filled?;
                return Ok(Inside::Other(from_server.bytes().to_vec()));
            }
        }
    }
}

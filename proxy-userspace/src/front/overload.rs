//! Connections for which there is no place. One that is idle makes room for them; failing that, they are told to come
//! back later, as far as they understand it.

use std::cell::Cell;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::http::forward::{self, Delivery};
use crate::http::framing::Framing;
use crate::http::status::{self, Form};
use crate::net::admission::{Admitted, Refusal};
use crate::net::deadline;
use crate::telemetry::metrics;

/// Connections without a place that wait, or are being told, at one time on each worker. More are reset at once.
const MAX_WITHOUT_PLACE: usize = 64;

/// How long one waits for the place of an idle one, and how often it looks.
const WAIT: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);

/// How long a client has to begin its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a client may have sent already: unread, it would have the kernel reset the connection, and the answer with it.
const MAX_UNREAD: usize = 64 << 10;

/// One of the connections without a place that a worker deals with.
#[derive(Debug)]
pub(super) struct Waiting;

thread_local! {
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

impl Waiting {
    /// None: there are enough of them.
    pub(super) fn begin() -> Option<Self> {
        let waiting = WAITING.get();
        (waiting < MAX_WITHOUT_PLACE).then(|| {
            WAITING.set(waiting + 1);
            Self
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Not there any more: the thread ends.
        let _ = WAITING.try_with(|waiting| waiting.set(waiting.get() - 1));
    }
}

/// A place, once the connection that has been idle for longest on this worker has given its own.
pub(super) async fn place(admit: impl Fn() -> Result<Admitted, Refusal>) -> Result<Admitted, Refusal> {
    if !deadline::end_longest_idle() {
        return Err(Refusal::Full);
    }
    metrics::with(|metrics| metrics.shed_connections.increment());
    for _ in 0..WAIT.as_millis() / LOOK.as_millis() {
        sleep(LOOK).await;
        match admit() {
            Err(Refusal::Full) => {}
            result => return result,
        }
    }
    Err(Refusal::Full)
}

/// Answers an HTTP/1 client with 503 and Retry-After. Others have their connection reset: what it is about can't be said
/// before a handshake that weir has no room for.
pub(super) async fn turn_away(mut stream: TcpStream, refusal: Refusal) {
    let mut first = [0; 1];
    let began = timeout(PATIENCE, stream.peek(&mut first)).await;
    // A method's first letter; that of HTTP/2's preface is one, too, and its client ends the connection by itself.
    if !matches!(began, Ok(Ok(1))) || !first[0].is_ascii_alphabetic() {
        return;
    }
    let why = match refusal {
        Refusal::Full => "too many connections are open (server.limits.connections); try again later",
        Refusal::Client => {
            "this client has too many connections open (server.limits.connections_per_client); close some"
        }
    };
    let (head, text) = status::answer(503, "proxy_internal_response", why, Form::Text);
    let framing = Framing::Length(text.len() as u64);
    let mut answer = Vec::new();
    forward::response(&head, Delivery { framing, close: true, ..Delivery::of_head() }, None, &mut answer);
    answer.extend_from_slice(text.as_bytes());
    // Without this, close(2) would send RST: see `net::listener`.
    if SockRef::from(&stream).set_linger(None).is_err() {
        return;
    }
    metrics::with(|metrics| metrics.overload_answers.increment());
    let _ = timeout(PATIENCE, async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        let mut unread = (&mut stream).take(MAX_UNREAD as u64);
        tokio::io::copy(&mut unread, &mut tokio::io::sink()).await
    })
    .await;
}

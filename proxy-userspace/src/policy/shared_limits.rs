//! `security.rate_limiting.redis`: limits that several weirs share. The same bucket as [`super::limits`] has, kept by a Redis
//! server: asked by a thread of its own, for as long as `timeout` says. While it is gone or late nobody waits for it, and
//! each weir limits for itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::{self, RateLimiting};
use crate::net;

/// Questions that may be under way; who asks one more is answered by this weir alone.
const MOST_QUESTIONS: usize = 4096;

/// How long is waited before the server is tried again.
const DELAY: Duration = Duration::from_millis(500);

/// How long connecting to it may take.
const CONNECT: Duration = Duration::from_secs(1);

/// Takes a token of the bucket in KEYS[1]: each is worth ARGV[1] microseconds, and there is room for ARGV[2]. Answers 0, or
/// how long it will be until there is one. The time is the server's own: those of weirs differ.
const TAKE: &str = "local time = redis.call('TIME')\n\
    local now = time[1] * 1000000 + time[2]\n\
    local token, room = tonumber(ARGV[1]), tonumber(ARGV[2])\n\
    local full_at = tonumber(redis.call('GET', KEYS[1])) or 0\n\
    local after = math.max(full_at, now) + token\n\
    if after - now > room then return math.ceil(after - now - room) end\n\
    redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + 1000)\n\
    return 0";

/// The limits of several weirs.
#[derive(Debug)]
pub(super) struct SharedLimits {
    questions: mpsc::Sender<Question>,
    state: Arc<State>,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct State {
    answers: AtomicBool,
    late: Notify,
}

#[derive(Debug)]
struct Question {
    whose: String,
    token: u64,
    room: u64,
    /// Microseconds to wait; 0 for none.
    answer: oneshot::Sender<u64>,
}

impl SharedLimits {
    /// None: none are shared. The server need not be there yet.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn start(config: &config::SharedLimits) -> io::Result<Option<Self>> {
        let Some(url) = config.url.clone() else { return Ok(None) };
        let (questions, asked) = mpsc::channel(MOST_QUESTIONS);
        let state = Arc::new(State::default());
        let (working, ca) = (Arc::clone(&state), config.ca.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("weir-limits".to_owned()).spawn(move || {
            runtime.block_on(run(&url, ca.as_deref(), &working, asked));
        })?;
        Ok(Some(Self { questions, state, timeout: config.timeout }))
    }

    /// Takes a token; says how long it will be until there is one, where there is none. None: the server does not answer.
    pub(super) async fn take(&self, whose: String, settings: &RateLimiting) -> Option<Result<(), Duration>> {
        if !self.state.answers.load(Ordering::Acquire) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let token = (MICROS / u64::from(settings.requests_per_second.max(1))).max(1);
        let room = token.saturating_mul(u64::from(settings.burst.max(1)));
        self.questions.try_send(Question { whose, token, room, answer }).ok()?;
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(0)) => Some(Ok(())),
            Ok(Ok(wait)) => Some(Err(Duration::from_micros(wait))),
            Ok(Err(_)) => None,
            Err(_) => {
                self.state.answers.store(false, Ordering::Release);
                self.state.late.notify_one();
                None
            }
        }
    }
}

const MICROS: u64 = 1_000_000;

/// Runs for as long as anybody may ask.
async fn run(
    url: &config::RedisUrl,
    ca: Option<&std::path::Path>,
    state: &State,
    mut asked: mpsc::Receiver<Question>,
) {
    loop {
        match connect(url, ca).await {
            Ok(connection) => {
                state.answers.store(true, Ordering::Release);
                tracing::info!(server = %url, "limits are shared through Redis");
                if serve(&connection, state, &mut asked).await {
                    return;
                }
                tracing::warn!(server = %url, "Redis does not answer: this weir limits for itself");
            }
            Err(error) => tracing::debug!(%error, server = %url, "can't connect to Redis"),
        }
        state.answers.store(false, Ordering::Release);
        // Who asked last is not to wait for nothing.
        while asked.try_recv().is_ok() {}
        if asked.is_closed() {
            return;
        }
        tokio::time::sleep(DELAY).await;
    }
}

async fn connect(url: &config::RedisUrl, ca: Option<&std::path::Path>) -> RedisResult<MultiplexedConnection> {
    let limits = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(CONNECT));
    let client = net::redis::client(url, ca)?;
    let mut connection = client.get_multiplexed_async_connection_with_config(&limits).await?;
    redis::cmd("PING").query_async::<()>(&mut connection).await?;
    Ok(connection)
}

/// Until the server is gone or late; true: nobody can ask any more.
async fn serve(
    connection: &MultiplexedConnection,
    state: &State,
    asked: &mut mpsc::Receiver<Question>,
) -> bool {
    let broken = Arc::new(Notify::new());
    loop {
        tokio::select! {
            () = state.late.notified() => return false,
            () = broken.notified() => return false,
            question = asked.recv() => {
                let Some(question) = question else { return true };
                let mut connection = connection.clone();
                let broken = Arc::clone(&broken);
                tokio::spawn(async move {
                    let mut call = redis::cmd("EVAL");
                    call.arg(TAKE).arg(1).arg(question.whose).arg(question.token).arg(question.room);
                    match call.query_async::<u64>(&mut connection).await {
                        // Whoever asked may not have waited.
                        Ok(wait) => drop(question.answer.send(wait)),
                        Err(error) => {
                            tracing::debug!(%error, "Redis does not take a token");
                            broken.notify_one();
                        }
                    }
                });
            }
        }
    }
}

//! `fail: closed` beyond weir's death: the holder is started last, and missed if it ends.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::StartError;
use crate::config::CaptureMode;
use crate::running::{Capture, Running};

/// Takes over from a weir that died, and provides for the death of this one. Nothing may be announced before.
pub(super) fn take_over(running: &Arc<Running>) -> Result<(), StartError> {
    let mut capture = running.capture();
    let Capture::On(redirect) = &mut *capture else { return Ok(()) };
    match redirect.take_over(&running.config.admin.state_dir) {
        Ok(()) => {
            if let Some(end) = redirect.holder_end()? {
                tokio::spawn(warn_at(end, Arc::clone(running)));
            }
            Ok(())
        }
        Err(error) if running.config.capture.mode == CaptureMode::Required => Err(error.into()),
        Err(error) => {
            tracing::warn!("nothing is captured: {error}");
            *capture = Capture::Unavailable(error);
            Ok(())
        }
    }
}

async fn warn_at(end: UnixStream, running: Arc<Running>) {
    let Ok(end) = AsyncFd::register_with_interest(end, Interest::READABLE) else { return };
    // Not when weir itself has ended it, to stop capturing.
    if end.readable().await.is_ok() && matches!(*running.capture(), Capture::On(_)) {
        tracing::warn!(
            "the process `weir hold` has ended: weir goes on, but if it dies, connections go direct in spite of \
             `capture.fail: closed`; start weir again"
        );
    }
}

//! `fail: closed` beyond weir's death: the holder is started last, and missed if it ends.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::config::CaptureMode;
use crate::running::{Capture, Running};

/// How often the holder is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Takes over from a weir that died, and provides for the death of this one. Nothing may be announced before.
pub(super) fn take_over(running: &Arc<Running>) -> Result<(), StartError> {
    let mut capture = running.capture();
    let Capture::On(redirect) = &mut *capture else { return Ok(()) };
    match redirect.take_over(&running.config().admin.state_dir) {
        Ok(()) => {
            drop(capture);
            watch(running);
            Ok(())
        }
        Err(error) if running.config().capture.mode == CaptureMode::Required => Err(error.into()),
        Err(error) => {
            tracing::warn!("nothing is captured: {error}");
            *capture = Capture::Unavailable(error);
            Ok(())
        }
    }
}

/// Tells if the holder ends, where there is one.
pub(super) fn watch(running: &Arc<Running>) {
    if let Capture::On(redirect) = &*running.capture()
        && redirect.holder().is_some()
    {
        tokio::spawn(miss(Arc::clone(running)));
    }
}

/// Ends with the holder, or with capturing.
async fn miss(running: Arc<Running>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let capture = running.capture();
        let Capture::On(redirect) = &*capture else { return };
        if redirect.holder().is_none_or(|holder| !holder.running) {
            tracing::warn!(
                "the process `weir hold` has ended: weir goes on, but if it dies, connections go direct in spite of \
                 `capture.fail: closed`; start weir again"
            );
            return;
        }
    }
}

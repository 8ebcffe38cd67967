//! The thread that serves DNS of captured processes over UDP: `weir-dns`. It beats as a worker does, so the kernel half
//! sends queries to it, and connections to the workers, only while all are well.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval};

use crate::config;
use crate::dns::{Bound, Door, Inspection, MAX_DOORS, Service};
use crate::net::deadline::TICK;
use crate::redirect::{Listeners, Redirect};
use crate::running::Beats;

/// Sockets in weir's own network namespace, and the way to have others served.
pub(super) struct Queries {
    sockets: Bound,
    doors: mpsc::Sender<Door>,
    opened: mpsc::Receiver<Door>,
}

/// The thread.
pub(super) struct Thread {
    ended: Arc<Notify>,
    /// Dropped, the thread ends.
    _running: mpsc::Sender<()>,
}

impl Queries {
    /// None: DNS is not to be captured.
    pub(super) fn listen(capture: &config::Capture) -> io::Result<Option<Self>> {
        if capture.mode == config::CaptureMode::Off || !capture.dns.enabled {
            return Ok(None);
        }
        let (doors, opened) = mpsc::channel(MAX_DOORS);
        Ok(Some(Self { sockets: Bound::bind()?, doors, opened }))
    }

    pub(super) fn announce(&self, listeners: &mut Listeners) {
        self.sockets.announce(listeners);
    }

    pub(super) fn doors(&self) -> mpsc::Sender<Door> {
        self.doors.clone()
    }

    /// Serves until what is returned is dropped.
    pub(super) fn serve(
        self,
        config: &config::Dns,
        redirect: &Redirect,
        inspection: Inspection,
        (beats, index): (Arc<Beats>, usize),
    ) -> io::Result<Thread> {
        let own = Door { sockets: self.sockets, namespace: None };
        self.doors.try_send(own).map_err(io::Error::other)?;
        let (config, servers, opened) = (config.clone(), redirect.dns_servers(), self.opened);
        let (running, mut stop) = mpsc::channel::<()>(1);
        let ended = Arc::new(Notify::new());
        let note = EndNote(Arc::clone(&ended));
        std::thread::Builder::new().name("weir-dns".to_owned()).spawn(move || -> io::Result<()> {
            let _note = note;
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
            let service = Service::new(&config, servers, inspection);
            runtime.block_on(async {
                tokio::select! {
                    () = service.run(opened) => {}
                    () = beat(&beats, index) => {}
                    _ = stop.recv() => {}
                }
            });
            Ok(())
        })?;
        Ok(Thread { ended, _running: running })
    }
}

impl Thread {
    /// Ready when it has ended on its own: no more queries are taken.
    pub(super) async fn ended(this: Option<&Self>) {
        match this {
            Some(thread) => thread.ended.notified().await,
            None => std::future::pending().await,
        }
    }
}

async fn beat(beats: &Beats, index: usize) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = beats.beat(index) {
            tracing::error!(%error, "the kernel half does not take the heartbeat");
        }
    }
}

/// Tells when its thread ends, by a panic too.
struct EndNote(Arc<Notify>);

impl Drop for EndNote {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

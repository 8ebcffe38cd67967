//! The system's proxy over weir's life: what an earlier weir has left is given back before anything begins, and the guardian
//! is started while weir has the rights that it needs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::{Config, Configure};
use crate::privilege;
use crate::running::Running;
use crate::sysproxy::{self, Client, Guardian, Settings};

/// How long the guardian of a weir that has just died may take.
const RESTORING: Duration = Duration::from_secs(5);

/// How often it is looked whether the guardian is there.
const LOOK: Duration = Duration::from_secs(1);

/// Started before weir has become another user.
static EARLY: Mutex<Option<Guardian>> = Mutex::new(None);

/// Gives back what a weir that is gone has left, and starts the guardian if weir is about to give up its rights. The log
/// has not begun. There must be no other thread.
pub fn prepare(config: &Config, takes_over: bool) {
    if takes_over {
        // What is set is the running weir's, and so is the guardian.
        return;
    }
    let system = &config.system_proxy;
    match sysproxy::restore(&system.state_dir, RESTORING) {
        Ok(None) => {}
        Ok(Some(restored)) => {
            eprintln!("weir: an earlier weir has left the system's proxy set; it is again what it was");
            restored.warnings.iter().for_each(|warning| eprintln!("weir: {warning}"));
        }
        Err(None) => {}
        Err(Some(why)) => eprintln!("weir: an earlier weir has left the system's proxy set: {why}"),
    }
    let settings = Settings::of(config);
    let is_likely = system.configure == Configure::OnStart || settings.has_named();
    if config.server.user.is_some() && system.configure != Configure::Never && is_likely {
        match Guardian::start(&settings) {
            Ok(guardian) => *early() = Some(guardian),
            Err(error) => {
                eprintln!("weir: the system's proxy can't be set: no guardian can be started: {error}");
            }
        }
    }
}

fn early() -> std::sync::MutexGuard<'static, Option<Guardian>> {
    EARLY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the running weir does about it; `inherited`: the guardian of the weir whose place it takes.
pub(super) fn client(config: &Config, inherited: Option<Guardian>) -> Arc<Client> {
    let settings = (config.system_proxy.configure != Configure::Never).then(|| Settings::of(config));
    let guardian = inherited.or_else(|| early().take());
    Arc::new(Client::new(settings, privilege::assistant().is_none(), guardian))
}

/// Misses the guardian when it is gone, and starts another.
pub(super) async fn watch(running: Arc<Running>) {
    let mut told = false;
    loop {
        tokio::time::sleep(LOOK).await;
        if running.system_proxy.state().configured.is_none() {
            continue;
        }
        let client = Arc::clone(&running.system_proxy);
        let looked = tokio::task::spawn_blocking(move || client.look_after()).await;
        match looked {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                told = false;
                tracing::warn!(
                    "the process that restores the system's proxy had ended; there is another one"
                );
            }
            Ok(Err(why)) if !told => {
                told = true;
                tracing::warn!("nobody restores the system's proxy if weir is killed: {why}");
            }
            _ => {}
        }
    }
}

/// weir is stopping: before its listeners close, nobody is led to them any more.
pub(super) async fn end(running: &Running) {
    let client = Arc::clone(&running.system_proxy);
    match tokio::task::spawn_blocking(move || client.end()).await {
        Ok(Some(Ok(restored))) => {
            tracing::info!("the system's proxy settings are again what they were");
            restored.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        }
        Ok(Some(Err(why))) => {
            tracing::error!(
                "the system's proxy settings are not restored: {why}; it is tried again, then try `weir restore`"
            );
        }
        _ => {}
    }
}

//! The system's proxy goes with the door: it is set when that is open, and given back before it closes.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Control;
use crate::config::Configure;
use crate::sysproxy::{Client, Configured, Refused, Restored, reached_at};

impl Control {
    /// When weir begins to serve: as the configuration wants it; or what an earlier weir has set, for where this one listens.
    pub(super) async fn begin_system_proxy(&mut self) {
        let _ = self.with_client(Client::inherit).await;
        if self.running.system_proxy.state().configured.is_some() {
            self.retarget().await;
        } else if self.plan.config.system_proxy.configure == Configure::OnStart && self.door.is_some() {
            self.configure_or_warn(None).await;
        }
    }

    pub(super) async fn configure_system(
        &mut self,
        interface: Option<String>,
    ) -> Result<Configured, Refused> {
        let proxy = self.door.as_ref().map(|door| door.address).ok_or(Refused::NotRunning)?;
        let configured = self.with_client(move |client| client.configure(proxy, interface)).await?;
        configured.warnings.iter().for_each(|warning| tracing::warn!("system proxy: {warning}"));
        tracing::info!(
            backends = configured.backends.join(", "),
            "the system's proxy is {}",
            configured.proxy_target
        );
        self.tell_everybody();
        Ok(configured)
    }

    pub(super) async fn unconfigure_system(&mut self) -> Result<Restored, Refused> {
        let restored = self.with_client(Client::unconfigure).await?;
        restored.warnings.iter().for_each(|warning| tracing::warn!("system proxy: {warning}"));
        tracing::info!("the system's proxy settings are again what they were");
        self.tell_everybody();
        Ok(restored)
    }

    /// What is set already, or is set now. The proxy runs anyway.
    pub(super) async fn configure_or_warn(&mut self, interface: Option<String>) -> Option<Configured> {
        if let Some(configured) = self.running.system_proxy.state().configured {
            return Some(configured);
        }
        let configured = self.configure_system(interface).await;
        configured.inspect_err(|why| tracing::warn!("the system's proxy is not set: {why}")).ok()
    }

    /// Before the door closes. An error: the system would be led to a closed door.
    pub(super) async fn restore_system(&mut self) -> Result<Option<Restored>, Refused> {
        match self.running.system_proxy.state().configured {
            Some(_) => self.unconfigure_system().await.map(Some),
            None => Ok(None),
        }
    }

    /// The door is elsewhere now.
    pub(super) async fn retarget(&mut self) {
        let Some(configured) = self.running.system_proxy.state().configured else { return };
        let here = |proxy: SocketAddr| configured.proxy_target == format!("http://{}", reached_at(proxy));
        match &self.door {
            Some(door) if here(door.address) => return,
            Some(_) | None => {}
        }
        if let Err(why) = self.unconfigure_system().await {
            tracing::error!("the system's proxy still is {}: {why}", configured.proxy_target);
        } else if self.door.is_some() {
            self.configure_or_warn(configured.interface).await;
        }
    }

    async fn with_client<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Client) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let client = Arc::clone(&self.running.system_proxy);
        let asked = tokio::task::spawn_blocking(move || ask(&client)).await;
        asked.unwrap_or_else(|_| Err(Refused::Failed("weir is stopping".to_owned())))
    }
}

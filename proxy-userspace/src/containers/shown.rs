//! Containers as their engine shows them: whether they run, what they are labelled with, where their ports are. All of
//! them, those that have ended too.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use super::engine::{Engine, EngineError};
use crate::target::Container;

/// A container, running or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub container: Arc<Container>,
    pub labels: BTreeMap<String, String>,
    pub is_running: bool,
    /// For people: `Up 3 seconds`, `Exited (0) 3 minutes ago`.
    pub status: String,
    /// TCP ports.
    pub ports: Vec<Port>,
    pub addresses: Vec<IpAddr>,
}

/// A TCP port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub inside: u16,
    /// Where the host leads to it.
    pub published: Option<(IpAddr, u16)>,
}

/// What only the container's own description tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Its first process, as this pid namespace numbers it; None: it does not run.
    pub pid: Option<u32>,
    /// TCP ports that its image or its maker says it listens on.
    pub exposed: Vec<u16>,
    /// The last of its starts, as the engine writes it.
    pub started: String,
}

impl Engine {
    /// All containers that it knows, running or not.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn shown(&self) -> Result<Vec<Shown>, EngineError> {
        let listed: Vec<Listed> = self.ask("/containers/json?all=true").await?;
        Ok(listed.into_iter().map(Shown::from).collect())
    }

    /// What a container's own description tells.
    ///
    /// # Errors
    /// [`EngineError`]
    pub async fn inside(&self, id: &str) -> Result<Inside, EngineError> {
        let inspected: Inspected = self.ask(&format!("/containers/{id}/json")).await?;
        let exposed = inspected.config.exposed_ports.unwrap_or_default();
        let mut exposed: Vec<u16> = exposed.keys().filter_map(|port| tcp(port)).collect();
        exposed.sort_unstable();
        Ok(Inside {
            pid: Some(inspected.state.pid).filter(|pid| *pid != 0),
            exposed,
            started: inspected.state.started_at.unwrap_or_default(),
        })
    }
}

/// `80/tcp`
fn tcp(port: &str) -> Option<u16> {
    port.strip_suffix("/tcp").unwrap_or(port).parse().ok()
}

/// An entry of GET /containers/json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    state: Option<String>,
    status: Option<String>,
    ports: Option<Vec<ListedPort>>,
    network_settings: Option<Networks>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPort {
    #[serde(rename = "IP")]
    ip: Option<String>,
    private_port: u16,
    public_port: Option<u16>,
    r#type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Networks {
    networks: Option<BTreeMap<String, Option<Network>>>,
}

#[derive(Debug, Deserialize)]
struct Network {
    #[serde(rename = "IPAddress")]
    v4: Option<String>,
    #[serde(rename = "GlobalIPv6Address")]
    v6: Option<String>,
}

/// What is used of GET /containers/ID/json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: InspectedState,
    config: InspectedConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    pid: u32,
    started_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
}

impl From<Listed> for Shown {
    fn from(listed: Listed) -> Self {
        // Links of other containers to it are shown as /other/name.
        let names = listed.names.unwrap_or_default();
        let name = names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
        let name = name.map_or_else(|| listed.id.chars().take(12).collect(), str::to_owned);
        let networks = listed.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let addresses = networks.into_values().flatten().flat_map(|network| [network.v4, network.v6]);
        Self {
            container: Arc::new(Container {
                id: listed.id.into(),
                name: name.into(),
                image: listed.image.unwrap_or_default().into(),
            }),
            labels: listed.labels.unwrap_or_default(),
            is_running: listed.state.as_deref() == Some("running"),
            status: listed.status.or(listed.state).unwrap_or_default(),
            ports: ports(listed.ports.unwrap_or_default()),
            addresses: addresses.flatten().filter_map(|address| address.parse().ok()).collect(),
        }
    }
}

fn ports(listed: Vec<ListedPort>) -> Vec<Port> {
    let is_tcp = |port: &ListedPort| port.r#type.as_deref().is_none_or(|kind| kind == "tcp");
    listed
        .into_iter()
        .filter(is_tcp)
        .map(|port| {
            let address = port.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok());
            let address = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
            let published = port.public_port.filter(|public| *public != 0).map(|public| (address, public));
            Port { inside: port.private_port, published }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_show() {
        let docker = r#"[{"Id":"0123456789abcdef","Names":["/other/db","/web"],"Image":"nginx","Labels":{"weir.port":"80"},
            "State":"running","Status":"Up 3 seconds","Ports":[
            {"PrivatePort":80,"Type":"tcp"},{"IP":"127.0.0.1","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
            {"PrivatePort":53,"Type":"udp"}],
            "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2","GlobalIPv6Address":""}}}},
            {"Id":"ff","Names":null,"State":"exited","Status":"Exited (0) 1 second ago","Ports":[],"Labels":null,
            "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"","GlobalIPv6Address":""},"x":null}}}]"#;
        let listed: Vec<Listed> = serde_json::from_str(docker).unwrap();
        let shown: Vec<Shown> = listed.into_iter().map(Shown::from).collect();
        let [web, ended] = shown.as_slice() else { panic!("{shown:?}") };
        assert_eq!((&*web.container.name, web.is_running), ("web", true));
        let published = Some(("127.0.0.1".parse().unwrap(), 8080));
        assert_eq!(web.ports, [Port { inside: 80, published: None }, Port { inside: 80, published }]);
        assert_eq!(web.addresses, ["172.17.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!((ended.is_running, ended.addresses.len(), &*ended.container.name), (false, 0, "ff"));
    }
}

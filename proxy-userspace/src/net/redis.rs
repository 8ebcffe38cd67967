//! Where a Redis server is, as its client library wants to know it. What it is asked is not known here.

use std::path::Path;

use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisResult, TlsCertificates};

use crate::config::{RedisPlace, RedisUrl};

/// A client of a server, whose certificate is checked with these authorities, or the system's; it connects when it is told
/// to.
///
/// # Errors
/// The authorities can't be read, or are none.
pub fn client(url: &RedisUrl, ca: Option<&Path>) -> RedisResult<Client> {
    let address = match &url.place {
        RedisPlace::Tcp(authority) => ConnectionAddr::Tcp(authority.host.to_string(), authority.port),
        RedisPlace::Tls(authority) => ConnectionAddr::TcpTls {
            host: authority.host.to_string(),
            port: authority.port,
            insecure: false,
            tls_params: None,
        },
        RedisPlace::Unix(path) => ConnectionAddr::Unix(path.clone()),
    };
    let info = address.into_connection_info()?;
    let mut settings = info.redis_settings().clone().set_db(url.database.into()).set_skip_set_lib_name();
    if let Some(credentials) = &url.credentials {
        settings = settings.set_password(&credentials.password);
        if !credentials.name.is_empty() {
            settings = settings.set_username(&credentials.name);
        }
    }
    let info = info.set_redis_settings(settings);
    match (&url.place, ca) {
        (RedisPlace::Tls(_), Some(path)) => {
            let root_cert = Some(std::fs::read(path)?);
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
        }
        _ => Client::open(info),
    }
}

//! TLS: what a captured ClientHello says, and the settings of the sessions that weir itself has with upstreams and with
//! clients.

pub mod alpn;
pub mod authority;
pub mod client;
pub mod client_hello;
mod files;
pub mod minting;
pub mod server;

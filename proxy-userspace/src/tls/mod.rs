//! TLS as seen from outside: what a ClientHello says. Nothing is decrypted here.

pub mod client_hello;

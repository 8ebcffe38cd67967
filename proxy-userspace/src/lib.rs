//! weir: an eBPF-assisted transparent and explicit HTTP proxy for Linux.

#![deny(unsafe_code)]

pub mod admin;
pub mod app;
pub mod authority;
pub mod cache;
pub mod capture;
pub mod cli;
pub mod config;
pub mod containers;
pub mod dns;
pub mod execute;
pub mod filters;
pub mod front;
pub mod http;
pub mod net;
pub mod netns;
pub mod pipeline;
pub mod policy;
pub mod privilege;
pub mod redirect;
pub mod relay;
pub mod route;
pub mod running;
pub mod services;
pub mod target;
pub mod telemetry;
pub mod tls;
pub mod upstream;

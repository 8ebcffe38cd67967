//! Starts weir, peers and clients for the end-to-end tests.

pub mod background;
pub mod cache_model;
pub mod certificates;
pub mod dns;
pub mod engine;
pub mod execute;
pub mod folder;
pub mod frames;
pub mod hosts;
pub mod http;
pub mod http2;
pub mod leaks;
pub mod load;
pub mod netns;
pub mod nginx;
pub mod origin;
pub mod pattern;
pub mod podman;
pub mod prompt;
pub mod redis;
pub mod scripts;
pub mod site;
pub mod strict;
pub mod venv;
pub mod weir;
pub mod who;

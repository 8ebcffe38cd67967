//! The kernel half seen from userspace: load, attach, tell what is captured, look up original destinations.
use std::net::SocketAddr;
#[derive(Clone, Debug)]
pub struct OriginalDestinations;
#[derive(Debug)]
pub struct Captured {
    pub original: SocketAddr,
    pub pid: u32,
    pub uid: u32,
    pub cgroup: u64,
    pub comm: String,
}
impl OriginalDestinations {
    pub fn lookup(&self, _peer: SocketAddr) -> std::io::Result<Option<Captured>> {
        Ok(None)
    }
}

//! What the kernel half would do with a connect(), found out from the same maps.

use super::*;
pub struct Explained {
    pub verdict: &'static str,
    pub reason: String,
}
impl Redirect {
    pub fn explain(&self, _pid: u32, _to: std::net::SocketAddr) -> io::Result<Explained> {
        Err(io::ErrorKind::NotFound.into())
    }
}

//! A weir without a data plane, in a process that tests can kill and stop: captures, beats, and
//! answers "captured" where it knows who connects whereto, "lost" where it doesn't.
//! Arguments: the attach cgroup, the cgroup to capture. Says "ready" on standard output.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use weir::config::Capture;
use weir::redirect::{Listeners, Redirect, monotonic_ns};

const BEAT_INTERVAL: Duration = Duration::from_millis(100);

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(attach), Some(captured)) = (args.next(), args.next()) else {
        anyhow::bail!("usage: redirect-holder ATTACH_CGROUP CAPTURED_CGROUP");
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let SocketAddr::V4(address) = listener.local_addr()? else { anyhow::bail!("not an IPv4 listener") };
    let config = Capture { cgroup: Some(attach), ..Capture::default() };
    let redirect =
        Redirect::start(&config, &Listeners { v4: Some(address), v6: None, ..Listeners::default() })?;
    redirect.capture_cgroup(&captured)?;
    let heartbeat = redirect.heartbeat();
    std::thread::spawn(move || {
        while monotonic_ns().and_then(|now| heartbeat.beat(now)).is_ok() {
            std::thread::sleep(BEAT_INTERVAL);
        }
    });
    println!("ready");
    let originals = redirect.original_destinations();
    loop {
        let (mut stream, peer) = listener.accept()?;
        let named = originals.claim(peer, address.port())?.is_some_and(|captured| !captured.comm.is_empty());
        // A client that is gone is no matter.
        let _ = stream.write_all(if named { b"captured" } else { b"lost" });
    }
}

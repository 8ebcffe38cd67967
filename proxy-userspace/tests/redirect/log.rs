//! The kernel half's debug output, switched on.

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use weir::config::Capture;

use super::rig::Rig;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LINES.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_redirection_is_logged() {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(|| Lines)
        .init();
    let rig = Rig::new();
    let redirect = rig.redirect(&Capture { kernel_log: true, ..rig.config() });
    let _proxy = rig.proxy(&redirect);
    let pid = rig.captured("assert ask('198.18.0.1', 8080) == '198.18.0.1:8080'; print(os.getpid())");
    let expected = format!("redirect pid {pid} ");
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let text = String::from_utf8_lossy(&LINES.lock().unwrap()).into_owned();
        if text.lines().any(|line| line.contains(&expected) && line.contains(" port 8080")) {
            break;
        }
        assert!(Instant::now() < deadline, "not logged: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

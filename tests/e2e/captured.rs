//! Captured programs: unmodified, and none the wiser.

use std::io::Write;

use weir_tests::weir::Weir;
use weir_tests::{http, netns};

#[test]
fn a_program_is_captured_and_sees_its_real_peer() {
    netns::enter();
    let server = http::server(netns::V4, |mut stream| {
        http::read_head(&mut stream);
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    });
    let weir = Weir::capturing("");
    let output = weir
        .exec(&["curl", "-sS", "-w", " %{remote_ip}:%{remote_port}", &format!("http://{server}/")])
        .output()
        .expect("curl is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("hi {server}"));
    let flow = &weir.flows(1)[0];
    assert_eq!(flow["front"], "captured");
    assert_eq!(flow["original_destination"], server.to_string());
    assert_eq!(flow["process"]["comm"], "curl");
}

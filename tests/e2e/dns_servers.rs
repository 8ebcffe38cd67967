//! More DNS servers than can be told apart at one time: IPv6 servers, each of which needs a port of weir's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use weir_tests::dns::{self, Server, address, answers};
use weir_tests::weir::{Weir, eventually};
use weir_tests::{netns, scripts};

/// As many as can be told apart in a network namespace, and one more.
const SERVERS: usize = 17;

fn host(number: usize) -> String {
    format!("fd00:18::1:{number:x}")
}

/// Nothing is kept: each question goes to the server.
fn zone(_: &dns::Asked) -> dns::Reply {
    answers(&[address("once.example", 0, "198.18.0.1")])
}

fn servers() -> Vec<Server> {
    let started = (0..SERVERS).map(|number| {
        let arguments = ["-6", "addr", "add", &format!("{}/128", host(number)), "dev", "lo", "nodad"];
        let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
        assert!(status.success(), "{status}");
        Server::start(&host(number), zone)
    });
    started.collect()
}

/// A captured program that asks when told to.
struct Asking {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Asking {
    /// With a socket that is connected to the first server, and stays so.
    fn start(weir: &Weir) -> Self {
        let script = "import resolve, sys\n\
            held = resolve.udp('fd00:18::1:0'); held.connect(('fd00:18::1:0', 53))\n\
            def on_held():\n\
            \x20   held.send(resolve.query('once.example')); answer, source = held.recvfrom(512)\n\
            \x20   return f'{source[0]} {resolve.describe(answer)}'\n\
            print(on_held(), flush=True)\n\
            for line in sys.stdin:\n\
            \x20   print(on_held() if line == 'held\\n' else resolve.ask(line.strip(), 'once.example', 1, 'sendto'), flush=True)";
        let mut command = weir.exec(&scripts::python(script));
        let command = scripts::import(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("weir starts");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut asking = Self { child, answers };
        assert_eq!(asking.answer(), HELD);
        asking
    }

    fn ask(&mut self, what: &str) -> String {
        let input = self.child.stdin.as_mut().expect("a pipe");
        input.write_all(format!("{what}\n").as_bytes()).expect("it reads");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Ended already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the first server says on the socket that stays connected to it.
const HELD: &str = "fd00:18::1:0 0 - 198.18.0.1";

fn answered(number: usize) -> String {
    format!("{}#53 0 - 198.18.0.1", host(number))
}

#[test]
fn one_too_many_is_the_fail_modes_and_resolves_all_the_same() {
    netns::enter();
    let _servers = servers();
    let weir = Weir::capturing("");
    let mut program = Asking::start(&weir);
    for number in 1..SERVERS {
        assert_eq!(program.ask(&host(number)), answered(number));
    }
    assert_eq!(weir.metric("dns_queries_total"), SERVERS as u64 - 1, "the last one was direct");
    assert_eq!(weir.metric("kernel_gate_full_total"), 1);
    let capture = &weir.status()["capture"];
    assert_eq!(capture["state"], "degraded");
    let problems = capture["kernel"]["problems"].to_string();
    assert!(problems.contains("16 IPv6 DNS servers are asked in weir's own network namespace"), "{problems}");
}

#[test]
fn those_that_are_not_asked_make_room_but_for_who_is_connected() {
    netns::enter();
    let servers = servers();
    let weir = Weir::capturing("capture: {fail: closed}");
    let mut program = Asking::start(&weir);
    for number in 1..SERVERS - 1 {
        assert_eq!(program.ask(&host(number)), answered(number));
    }
    let last = SERVERS - 1;
    assert_eq!(program.ask(&host(last)), "ECONNREFUSED");
    // Longer than `eventually` waits: they are given back when nobody has asked for 20 s.
    let begun = Instant::now();
    while program.ask(&host(last)) != answered(last) {
        assert!(begun.elapsed().as_secs() < 90, "{:#}", weir.status()["capture"]["kernel"]);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    println!("room for another one after {:.1} s", begun.elapsed().as_secs_f32());
    eventually("the state is on", || (weir.status()["capture"]["state"] == "on").then_some(()));
    let before = servers[0].asked().len();
    assert_eq!(program.ask("held"), HELD);
    assert_eq!(servers[0].asked().len(), before + 1);
    // With the last one and the one that is held, as many as there may be.
    for number in 1..SERVERS - 2 {
        assert_eq!(program.ask(&host(number)), answered(number), "as ever");
    }
    assert_eq!(program.ask("held"), HELD);
}

//! `server.sandbox`: what weir has no use for is refused, and all else goes on.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::process::Command;

use nix::sys::signal::Signal;
use weir_tests::execute::{path_of, python, whole};
use weir_tests::netns;
use weir_tests::origin::Origin;
use weir_tests::prompt::Prompt;
use weir_tests::weir::{Weir, binary, eventually};
use weir_tests::{scripts, who};

/// Of the user `nobody`.
const NOBODY: u32 = 65_534;

/// Tries what is refused and what is not. A program that weir runs is confined as weir is.
const TRY: &str = "import ctypes, errno, os, threading
c = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    done = getattr(c, name)(*arguments)
    return errno.errorcode[ctypes.get_errno()] if done == -1 else 'done'
def write(path):
    try: open(path, 'w').close(); return 'done'
    except OSError as error: return errno.errorcode[error.errno]
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
child = os.fork()
if child == 0: os._exit(0)
os.waitpid(child, 0)
CLONE_NEWUSER, PTRACE_TRACEME = 0x10000000, 0
print('unshare', call('unshare', CLONE_NEWUSER), 'ptrace', call('ptrace', PTRACE_TRACEME, 0, 0, 0),
      'state', write('FOLDER/state/file'), 'elsewhere', write('FOLDER/open/file'), 'null', write('/dev/null'),
      'read', open('FOLDER/text').read(), end='')";

/// What a program that weir runs may do.
fn allowed(sandbox: &str) -> String {
    let commands = format!("[{{path: '{}', args: [-u, -c, '**']}}]", path_of("python3"));
    let weir = Weir::explicit(&format!(
        "server: {{user: nobody, sandbox: {sandbox}}}\ncli: {{enabled: true, allowed_commands: {commands}}}"
    ));
    let folder = weir.folder();
    fs::create_dir(folder.join("open")).expect("a folder");
    fs::set_permissions(folder.join("open"), fs::Permissions::from_mode(0o777)).expect("its mode");
    fs::write(folder.join("text"), "text").expect("a file");
    let answer = whole(&weir, python(&TRY.replace("FOLDER", &folder.display().to_string())));
    answer["stdout"]["data"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn what_weir_has_no_use_for_is_refused() {
    let refused = "unshare EPERM ptrace EPERM state done elsewhere EACCES null done read text";
    assert_eq!(allowed("on"), refused);
    // Programs of the administrator's are his affair.
    let all = "unshare done ptrace done state done elsewhere done null done read text";
    assert_eq!((allowed("auto"), allowed("off")), (all.to_owned(), all.to_owned()));
}

/// A field of the status of each of weir's threads, each value once.
fn of_threads(weir: &Weir, name: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", weir.pid())).expect("it runs").flatten();
    let all = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let mut values: Vec<String> = all
        .filter_map(|status| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned()))
        .collect();
    values.sort();
    values.dedup();
    values
}

#[test]
fn a_confined_weir_captures_stores_and_is_upgraded() {
    netns::enter();
    let server = who::server(netns::V4);
    let origin =
        Origin::fixed("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok");
    let stores = tempfile::tempdir().expect("a folder");
    chown(stores.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let disk = stores.path().join("made/here");
    let mut weir = Weir::capturing(&format!(
        "{{server: {{user: nobody, sandbox: on}}, capture: {{fail: closed}},
          cache: {{enabled: true, disk: {{path: '{}'}}}}}}",
        disk.display()
    ));
    let program = weir.folder().join("weir");
    assert!(Command::new("cp").arg(binary()).arg(&program).status().expect("cp").success());
    let status = scripts::stdout(&mut weir.command(&["status"]));
    assert!(status.contains("confined by Landlock and seccomp"), "{status}");
    for upgraded in [false, true] {
        if upgraded {
            weir.upgrade(&["--binary", &program.display().to_string()]);
            assert_eq!(weir.status()["sandbox"], serde_json::json!({ "files": true, "calls": true }));
        }
        assert_eq!(of_threads(&weir, "Seccomp:"), ["2"]);
        assert_eq!(of_threads(&weir, "Seccomp_filters:"), ["2"], "it was confined once");
        assert_eq!(Prompt::start(&weir, *server).ask(), "captured");
        let mut curl = Command::new("curl");
        let proxy = format!("http://{}", weir.proxy);
        curl.args(["-sS", "--noproxy", "", "-x", &proxy, &format!("http://{}/{upgraded}", origin.address)]);
        assert_eq!(scripts::stdout(&mut curl), "ok");
        eventually("it is on the disk", || {
            (weir.metric("cache_store_keys{store=\"disk\"}") == 1 + u64::from(upgraded)).then_some(())
        });
    }
    assert_eq!(fs::metadata(&disk).expect("it was made").uid(), NOBODY);
    weir.signal(Signal::SIGTERM);
}

#[test]
fn nobody_is_confined_who_is_root() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = format!("admin.state_dir={}", folder.path().display());
    let mut command = Command::new(binary());
    command.args(["config", "check", "--set", "server.sandbox=on", "--set", &state]);
    let output = command.output().expect("weir runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && told.contains("set server.user"), "{told}");
}

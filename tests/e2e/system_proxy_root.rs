//! The system's proxy where it takes root: the real NetworkManager, another user's home, `server.user`, a disk that is full
//! or read-only. Each test has a network and a mount namespace of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::netns;
use weir_tests::weir::{Weir, eventually, runs};

/// A namespace for mounts, beside that for the network.
fn enter() {
    netns::enter();
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root");
    run("mount --make-rprivate /");
}

/// A command of words; what it says.
#[track_caller]
fn run(words: &str) -> String {
    let mut words = words.split(' ').map(|word| word.replace('+', " "));
    let mut command = Command::new(words.next().expect("a program"));
    let output = command.args(words).stdin(Stdio::null()).output().expect("it is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn configure(weir: &Weir) -> (u16, Value) {
    weir.api("POST", "/proxy/configure-system", Some(&json!({})))
}

fn unconfigure(weir: &Weir) -> (u16, Value) {
    weir.api("POST", "/proxy/unconfigure-system", None)
}

/// A NetworkManager that has nothing but `eth7`, with a bus and folders of its own.
struct NetworkManager {
    /// In the order in which they end.
    started: Vec<Child>,
}

const PROFILE: &str = "/etc/NetworkManager/system-connections/lab.nmconnection";
const LAB: &str = "11111111-2222-3333-4444-555555555555";

impl NetworkManager {
    fn start() -> Self {
        // Where it may be written to, NetworkManager waits for udev. And it has to be of this network namespace.
        run("mount -t sysfs -o ro sysfs /sys");
        for folder in ["/run", "/etc/NetworkManager", "/var/lib/NetworkManager"] {
            run(&format!("mount -t tmpfs tmpfs {folder}"));
        }
        for folder in ["/run/dbus", "/run/NetworkManager", "/etc/NetworkManager/system-connections"] {
            fs::create_dir_all(folder).expect("a folder");
        }
        let configuration =
            "[main]\nplugins=keyfile\ndns=none\nauth-polkit=false\n[keyfile]\nunmanaged-devices=none\n";
        fs::write("/etc/NetworkManager/NetworkManager.conf", configuration).expect("a file");
        let profile = format!(
            "# mine\n[connection]\nid=lab\nuuid={LAB}\ntype=ethernet\ninterface-name=eth7\n\n[ipv6]\nmethod=disabled\n\
             [ipv4]\nmethod=manual\naddress1=198.18.7.2/24,198.18.7.1\n"
        );
        fs::write(PROFILE, profile).expect("a file");
        run(&format!("chmod 600 {PROFILE}"));
        run("ip link add eth7 type veth peer name eth8");
        run("ip link set eth8 up");
        let bus = "<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>\
                   <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
                   <allow send_destination=\"*\" eavesdrop=\"true\"/><allow receive_sender=\"*\"/></policy></busconfig>";
        fs::write("/run/dbus/bus.conf", bus).expect("a file");
        // Whatever fails from here on, they end.
        let mut this = Self { started: Vec::new() };
        let mut bus = Command::new("dbus-daemon");
        let bus = quiet(bus.args(["--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile"]));
        this.started.push(bus);
        eventually("a bus", || Path::new("/run/dbus/system_bus_socket").exists().then_some(()));
        let manager = quiet(Command::new("/usr/sbin/NetworkManager").arg("--no-daemon"));
        this.started.insert(0, manager);
        eventually("NetworkManager", || nmcli("-t -f RUNNING general").filter(|said| said == "running"));
        eventually("the device is managed", || nmcli("device set eth7 managed yes"));
        eventually("a connection", || nmcli("connection up lab"));
        eventually("a default route", || run("ip route").contains("default via 198.18.7.1").then_some(()));
        this
    }
}

fn quiet(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is installed")
}

impl Drop for NetworkManager {
    fn drop(&mut self) {
        for child in &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn nmcli(words: &str) -> Option<String> {
    let output = Command::new("nmcli").args(words.split(' ')).output().expect("nmcli is installed");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn method() -> Vec<String> {
    let said =
        nmcli(&format!("-e no -g proxy.method,proxy.pac-url connection show {LAB}")).expect("a connection");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn network_manager_gets_the_pac_file_and_its_own_back() {
    enter();
    let _manager = NetworkManager::start();
    let before = (fs::read(PROFILE).expect("a profile"), fs::metadata(PROFILE).expect("a profile").ino());
    let mut weir = Weir::explicit("system_proxy: {backends: [networkmanager]}");
    let (code, told) = configure(&weir);
    assert_eq!((code, &told["interface"]), (200, &json!("eth7")), "{told}");
    assert_eq!(method(), ["auto".to_owned(), format!("http://{}/proxy.pac", weir.proxy)]);
    // The profile's own file says nothing of it: if all the machine stops now, nothing is left.
    assert_eq!(fs::read(PROFILE).expect("a profile"), before.0);
    let given_back = || method() == ["none"];
    let (code, told) = unconfigure(&weir);
    assert_eq!(code, 200, "{told}");
    assert!(given_back());
    let after = (fs::read(PROFILE).expect("a profile"), fs::metadata(PROFILE).expect("a profile").ino());
    assert_eq!(after, before);
    let own = nmcli("-g UUID,FILENAME -e no connection show").expect("connections");
    assert!(own.contains(&format!("{LAB}:{PROFILE}")), "{own}");
    // Somebody else sets a PAC file meanwhile.
    assert_eq!(configure(&weir).0, 200);
    let others = "http://other.example/proxy.pac";
    assert!(nmcli(&format!("connection modify --temporary {LAB} proxy.pac-url {others}")).is_some());
    let (code, told) = unconfigure(&weir);
    assert!(code == 200 && told["restored_to"]["kept"].to_string().contains(others), "{told}");
    assert_eq!(method(), ["auto", others]);
    assert!(nmcli(&format!("connection modify {LAB} proxy.method none proxy.pac-url \u{20}")).is_none());
    // What it belongs to vanishes: that is told, and the rest goes on.
    assert_eq!(configure(&weir).0, 200);
    assert!(nmcli(&format!("connection delete {LAB}")).is_some());
    run("ip link del eth7");
    let (code, told) = unconfigure(&weir);
    assert!(code == 200 && told["restored_to"]["kept"].to_string().contains("not there any more"), "{told}");
    // Without an interface there is nothing to configure; the proxy runs.
    let (code, problem) = configure(&weir);
    assert_eq!(code, 500, "{problem}");
    assert_eq!(weir.api("POST", "/proxy/start", None).0, 200);
    weir.signal(Signal::SIGTERM);
    assert_eq!(weir.wait(), Some(0));
}

/// A small disk of its own, with a file on it that is to be changed.
fn disk(size: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weir-disk-{}-{size}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    run(&format!("mount -t tmpfs -o size={size} weir-test {}", folder.display()));
    fs::write(folder.join("environment"), "A=b\n".repeat(200)).expect("a file");
    folder
}

fn on_disk(folder: &Path) -> String {
    format!(
        "system_proxy: {{backends: [environment], environment_file: '{0}/environment', state_dir: '{0}/state'}}",
        folder.display()
    )
}

#[test]
fn a_full_disk_changes_nothing_and_keeps_nothing_from_being_restored() {
    enter();
    let folder = disk("64k");
    let (environment, filler) = (folder.join("environment"), folder.join("filler"));
    let before = fs::read(&environment).expect("a file");
    let fill = || {
        let _ = fs::write(&filler, vec![0; 1 << 20]);
    };
    let mut weir = Weir::explicit(&on_disk(&folder));
    fill();
    let (code, problem) = configure(&weir);
    assert_eq!(code, 500, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("space")), "{problem}");
    assert_eq!(fs::read(&environment).expect("a file"), before);
    assert!(!folder.join("state/state.json").exists());
    fs::remove_file(&filler).expect("a file");
    assert_eq!(configure(&weir).0, 200);
    assert_ne!(fs::read(&environment).expect("a file"), before);
    fill();
    weir.signal(Signal::SIGKILL);
    weir.wait();
    eventually("it is restored", || (fs::read(&environment).ok().as_ref() == Some(&before)).then_some(()));
    eventually("nothing is left", || (!folder.join("state/state.json").exists()).then_some(()));
}

#[test]
fn a_read_only_disk_is_waited_for() {
    enter();
    let folder = disk("128k");
    let environment = folder.join("environment");
    let before = fs::read(&environment).expect("a file");
    let remount = |how: &str| run(&format!("mount -o remount,{how} {}", folder.display()));
    // Its state is elsewhere: what is open for writing can't be made read-only.
    let overlay =
        format!("system_proxy: {{backends: [environment], environment_file: '{}'}}", environment.display());
    let mut weir = Weir::explicit(&overlay);
    remount("ro");
    let (code, problem) = configure(&weir);
    assert_eq!(code, 500, "{problem}");
    assert_eq!(weir.api("POST", "/proxy/start", None).1["system_proxy"], Value::Null);
    remount("rw");
    assert_eq!(configure(&weir).0, 200);
    remount("ro");
    // It is not stopped while the system is led to it.
    assert_eq!(unconfigure(&weir).0, 500);
    assert_eq!(weir.api("POST", "/proxy/stop", None).0, 500);
    assert_eq!(weir.status()["running"], true);
    assert_eq!(weir.status()["system_proxy"]["configured"], true);
    weir.signal(Signal::SIGKILL);
    weir.wait();
    assert_ne!(fs::read(&environment).expect("a file"), before);
    remount("rw");
    eventually("it is restored", || (fs::read(&environment).ok().as_ref() == Some(&before)).then_some(()));
}

#[test]
fn an_ordinary_users_weir_has_a_guardian_with_the_rights() {
    enter();
    let folder = disk("256k");
    let environment = folder.join("environment");
    let before = fs::read(&environment).expect("a file");
    let overlay = format!("server: {{user: nobody}}\n{}", on_disk(&folder));
    let mut weir = Weir::explicit(&overlay);
    assert_eq!(weir.status()["user"], 65534);
    let (code, told) = configure(&weir);
    assert_eq!(code, 200, "{told}\n{}", weir.log());
    assert_ne!(fs::read(&environment).expect("a file"), before);
    assert_eq!(fs::metadata(&environment).expect("a file").uid(), 0);
    let old = weir.upgrade(&[]);
    eventually("the old one has ended", || (!runs(old)).then_some(()));
    assert_ne!(fs::read(&environment).expect("a file"), before);
    eventually("the new one knows", || (weir.status()["system_proxy"]["configured"] == true).then_some(()));
    assert_eq!(unconfigure(&weir).0, 200);
    assert_eq!(fs::read(&environment).expect("a file"), before);
    assert_eq!(configure(&weir).0, 200);
    weir.signal(Signal::SIGKILL);
    eventually("it is restored", || (fs::read(&environment).ok().as_ref() == Some(&before)).then_some(()));
    // Where the backends are to be found first, there is no guardian: that is said.
    let weir = Weir::explicit("server: {user: nobody}\nsystem_proxy: {backends: [auto]}");
    let (code, problem) = configure(&weir);
    assert!(
        code == 500 && problem["detail"].as_str().is_some_and(|why| why.contains("server.user")),
        "{problem}"
    );
}

#[test]
fn in_another_users_home_it_is_that_user() {
    enter();
    let folder = disk("512k");
    let home = folder.join("home");
    fs::create_dir_all(home.join(".docker")).expect("a folder");
    for path in [home.clone(), home.join(".docker")] {
        chown(&path, Some(4242), Some(4242)).expect("an owner");
    }
    // A user that there is in this namespace alone.
    let users = folder.join("passwd");
    let text = fs::read_to_string("/etc/passwd").expect("users");
    fs::write(&users, format!("{text}weirtest:x:4242:4242::{}:/bin/sh\n", home.display())).expect("a file");
    run(&format!("mount --bind {} /etc/passwd", users.display()));
    let secret = folder.join("secret");
    fs::write(&secret, "{}").expect("a file");
    run(&format!("chmod 600 {}", secret.display()));
    symlink(&secret, home.join(".docker/config.json")).expect("a link");
    let overlay = |backends: &str| {
        format!(
            "system_proxy: {{user: weirtest, backends: [{backends}], state_dir: '{}/state'}}",
            folder.display()
        )
    };
    let weir = Weir::explicit(&overlay("kde"));
    assert_eq!(configure(&weir).0, 200);
    let kioslaverc = home.join(".config/kioslaverc");
    let about = fs::metadata(&kioslaverc).expect("a file");
    assert_eq!((about.uid(), about.gid()), (4242, 4242));
    assert_eq!(unconfigure(&weir).0, 200);
    assert!(!home.join(".config").exists());
    drop(weir);
    // A link to what only root may write leads nowhere.
    let weir = Weir::explicit(&overlay("docker"));
    let (code, problem) = configure(&weir);
    assert!(code == 500 && problem["detail"].as_str().is_some_and(|why| why.contains("denied")), "{problem}");
    assert_eq!(fs::read_to_string(&secret).expect("a file"), "{}");
}

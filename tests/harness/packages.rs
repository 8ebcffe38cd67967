//! Programs of Debian packages that must not be installed to be tried: unpacked beside what cargo builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scripts::stdout;
use crate::weir;

/// Where the contents of these packages lie: downloaded by apt when they are first asked for.
#[track_caller]
pub fn unpacked(packages: &[&str]) -> PathBuf {
    let place = weir::binary().with_file_name("debian-packages").join(packages.join("+"));
    if place.join("done").exists() {
        return place.join("root");
    }
    let folder = place.join("archives");
    std::fs::create_dir_all(&folder).expect("a folder beside the binary under test");
    if !download(&folder, packages) {
        stdout(Command::new("apt-get").args(["--quiet=2", "update"]));
        assert!(download(&folder, packages), "apt-get download {packages:?} fails");
    }
    for archive in std::fs::read_dir(&folder).expect("the folder").flatten() {
        stdout(Command::new("dpkg-deb").arg("-x").arg(archive.path()).arg(place.join("root")));
    }
    std::fs::write(place.join("done"), "").expect("a file");
    place.join("root")
}

fn download(folder: &Path, packages: &[&str]) -> bool {
    let mut apt = Command::new("apt-get");
    apt.current_dir(folder).args(["--quiet=2", "-o", "APT::Sandbox::User=root", "download"]).args(packages);
    apt.status().expect("apt is installed").success()
}

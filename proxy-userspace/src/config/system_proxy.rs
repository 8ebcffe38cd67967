//! `system_proxy`: weir as the proxy that this system uses.

use std::path::PathBuf;

use super::kinds::{Fault, auto_or, choice, optional, path, quoted, switch};
use super::section::Section;
use super::shape::{Shape, shaped};

/// `system_proxy`.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemProxy {
    /// Default on_request.
    pub configure: Configure,
    /// Whose settings are changed. Default auto alone.
    pub backends: Vec<SystemBackend>,
    /// Whose desktop. Default: the user of this process, or for root whoever sits at this machine.
    pub user: Option<String>,
    /// By the PAC file, where there is a choice. Default off.
    pub pac: bool,
    /// What is asked for without a proxy, beside what is so already.
    pub no_proxy: Vec<String>,
    /// Default: /etc/environment for root, else environment.d of the user.
    pub environment_file: Option<PathBuf>,
    pub apt_file: PathBuf,
    /// Default: .docker/config.json of the desktop's user.
    pub docker_file: Option<PathBuf>,
    /// Folder of `state.json`, which has what is to be restored. It must outlive the machine's start.
    pub state_dir: PathBuf,
}

/// When the system's settings are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configure {
    /// When somebody asks for it.
    OnRequest,
    /// As soon as weir serves, and when somebody asks for it.
    OnStart,
    Never,
}

/// A place where settings are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemBackend {
    /// The desktop's and NetworkManager, those that there are.
    Auto,
    /// This one, by its name.
    Named(&'static str),
}

const BACKENDS: &[(&str, SystemBackend)] = &[
    ("auto", SystemBackend::Auto),
    ("gnome", SystemBackend::Named("gnome")),
    ("kde", SystemBackend::Named("kde")),
    ("networkmanager", SystemBackend::Named("networkmanager")),
    ("environment", SystemBackend::Named("environment")),
    ("apt", SystemBackend::Named("apt")),
    ("docker", SystemBackend::Named("docker")),
];

const CONFIGURE: &[(&str, Configure)] =
    &[("on_request", Configure::OnRequest), ("on_start", Configure::OnStart), ("never", Configure::Never)];

impl Default for SystemProxy {
    fn default() -> Self {
        Self {
            configure: Configure::OnRequest,
            backends: vec![SystemBackend::Auto],
            user: None,
            pac: false,
            no_proxy: ["localhost", "127.0.0.0/8", "::1"].map(str::to_owned).to_vec(),
            environment_file: None,
            apt_file: "/etc/apt/apt.conf.d/95weir-proxy".into(),
            docker_file: None,
            state_dir: super::defaults::default_lasting_dir(),
        }
    }
}

pub(super) fn read(s: &mut Section<'_, '_>) -> SystemProxy {
    let d = SystemProxy::default();
    SystemProxy {
        configure: s.read("configure", d.configure, choice(CONFIGURE)),
        backends: s.list("backends", d.backends, choice(BACKENDS)),
        user: s.read("user", d.user, auto_or(|| None, optional(|text: &str| Ok(text.to_owned())))),
        pac: s.read("pac", d.pac, switch()),
        no_proxy: s.list("no_proxy", d.no_proxy, shaped(Shape::Text, exempt)),
        environment_file: s.read("environment_file", d.environment_file, auto_or(|| None, optional(path()))),
        apt_file: s.read("apt_file", d.apt_file, path()),
        docker_file: s.read("docker_file", d.docker_file, auto_or(|| None, optional(path()))),
        state_dir: s.read("state_dir", d.state_dir, auto_or(super::defaults::default_lasting_dir, path())),
    }
}

/// It stands in lists that others take apart at commas, blanks and quotes.
fn exempt(text: &str) -> Result<String, Fault> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".*-_:/[]<>".contains(&byte);
    if text.is_empty() || !text.bytes().all(fits) {
        return Err(format!("{} is not a host, an address or a prefix", quoted(text)).into());
    }
    Ok(text.to_owned())
}

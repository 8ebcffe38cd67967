//! `weir completions` and `weir man`: what shells and man(1) want to know of the commands, made of these themselves.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{FAILED, Failed, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// For `bash`, in ~/.bashrc: source <(weir completions bash)
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Writes the page of each command into this folder, instead of weir's own to standard output.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

pub(super) fn completions(arguments: &Completions) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "weir", &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}

pub(super) fn man(arguments: &Man) -> Result<(), Failed> {
    let command = super::Arguments::command();
    let failed = |error: std::io::Error| Failed::new(FAILED, format!("can't write the pages: {error}"));
    if let Some(folder) = &arguments.folder {
        std::fs::create_dir_all(folder).map_err(failed)?;
        return clap_mangen::generate_to(command, folder).map_err(failed);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(failed)?;
    say(String::from_utf8_lossy(&page).trim_end())
}

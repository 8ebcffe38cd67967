//! The commands, a file each.

mod assist;
mod backends;
mod ca;
mod cache;
mod capture;
mod client;
mod completions;
mod config;
mod context;
mod doctor;
mod events;
mod exec;
mod explain;
mod flows;
mod hold;
mod install;
#[cfg(feature = "mcp")]
mod mcp;
mod oci;
mod place;
mod policy;
mod serve;
mod services;
mod status;
mod stopped;
mod supervise;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use place::Admin;

/// For `weir --help` and the manual page; README.md has the same.
const EXIT_CODES: &str = "Exit codes:
  0         done; `weir serve`: stopped by SIGTERM or SIGINT
  1         it failed; the message says what to do
  2         the command line or the configuration is wrong
  3         no weir answers at the admin socket or address
  126, 127  `weir exec` could not run the program, could not find it
  other     the program's own, from `weir exec`";

/// An eBPF-assisted transparent and explicit HTTP proxy for Linux.
#[derive(Debug, Parser)]
#[command(name = "weir", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy until SIGTERM or SIGINT.
    Serve(serve::Arguments),
    /// Runs a program whose TCP connections pass through weir, those of its children included.
    Exec(exec::Arguments),
    /// Names what is captured: containers, cgroups, units.
    #[command(subcommand)]
    Capture(capture::Command),
    /// Says what the running weir does.
    Status(status::Arguments),
    /// Shows what passed.
    Flows(flows::Arguments),
    /// Checks this host, and says what to do about what is missing.
    Doctor(doctor::Arguments),
    /// Looks into the cache, and removes from it.
    #[command(subcommand)]
    Cache(cache::Command),
    /// Shows the backends of the gateway, and drains, enables and weighs their members.
    #[command(subcommand)]
    Backends(backends::Command),
    /// Makes and ends identities for single clients: jobs, agents, windows.
    #[command(subcommand)]
    Context(context::Command),
    /// The apps that the gateway serves below a prefix of its own.
    #[command(subcommand)]
    Services(services::Command),
    /// Shows what rules and lists are in force, and reads them again.
    #[command(subcommand)]
    Policy(policy::Command),
    /// The authority of intercepted TLS: its certificate, and who trusts it.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Says what would happen to a connection, and which rule decides.
    Explain(explain::Arguments),
    /// Has another weir take the running one's place: no connection is refused, cut off or missed meanwhile.
    Upgrade(upgrade::Arguments),
    /// Keeps the programs of a weir attached when it has died. For weir itself to start.
    #[command(hide = true)]
    Hold(hold::Arguments),
    /// Runs a command for a caller of the admin API. For weir itself to start.
    #[command(hide = true)]
    Supervise(supervise::Arguments),
    /// Keeps the privileges that weir gives up. For weir itself to start.
    #[command(hide = true)]
    Assist,
    /// Tells weir of a container that is about to start. For container runtimes to start.
    #[command(hide = true)]
    OciHook(oci::Hook),
    /// Adds the hook to containers. For container engines to start, in place of a runtime.
    #[command(hide = true)]
    OciRuntime(oci::Runtime),
    /// Checks and shows the configuration, and has it read again.
    #[command(subcommand)]
    Config(config::Command),
    /// Gives an assistant tools to see and steer the running weir (Model Context Protocol, on standard input and output).
    #[cfg(feature = "mcp")]
    Mcp,
    /// Prints a script that has a shell complete weir's commands.
    Completions(completions::Completions),
    /// Prints the manual page.
    Man(completions::Man),
}

/// Where the configuration comes from; later ones override earlier ones.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConfigArguments {
    /// Configuration file; give it again for overlays. Default: /etc/weir/proxy.yaml if there is one.
    #[arg(long = "config", short = 'c', value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Sets one key, e.g. --set server.port=8080.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Why a command failed: what is told on standard error, and the exit code.
#[derive(Debug)]
pub(crate) struct Failed {
    pub code: u8,
    pub message: String,
}

impl Failed {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

const FAILED: u8 = 1;
const MISUSED: u8 = 2;
const NOT_RUNNING: u8 = 3;

/// Runs one command.
#[must_use]
pub fn run(arguments: Arguments) -> ExitCode {
    let admin = arguments.admin;
    let result = match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Exec(arguments) => exec::run(&arguments, &admin),
        Command::Backends(command) => backends::run(&command, &admin),
        Command::Status(arguments) => status::run(&arguments, &admin),
        Command::Flows(arguments) => flows::run(&arguments, &admin),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments, &admin),
        Command::Capture(command) => capture::run(&command, &admin),
        Command::Context(command) => context::run(&command, &admin),
        Command::Services(command) => services::run(&command, &admin),
        Command::Policy(command) => policy::run(&command, &admin),
        Command::Ca(command) => ca::run(&command),
        Command::Cache(command) => cache::run(&command, &admin),
        Command::Upgrade(arguments) => upgrade::run(&arguments, &admin),
        Command::Hold(arguments) => hold::run(&arguments),
        Command::Supervise(arguments) => match supervise::run(&arguments) {
            Ok(code) => return code,
            Err(failed) => Err(failed),
        },
        Command::Assist => assist::run(),
        Command::OciHook(arguments) => oci::hook(&arguments, &admin),
        Command::OciRuntime(arguments) => oci::runtime(&arguments, &admin),
        Command::Config(command) => config::run(&command, &admin),
        #[cfg(feature = "mcp")]
        Command::Mcp => mcp::run(&admin),
        Command::Completions(arguments) => completions::completions(&arguments),
        Command::Man(arguments) => completions::man(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("weir: {}", failed.message);
            ExitCode::from(failed.code)
        }
    }
}

/// Prints a line for the user; a reader that has gone away (`| head`) ends the command quietly.
pub(crate) fn say(line: &str) -> Result<(), Failed> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(|error| Failed::new(FAILED, format!("can't write: {error}"))),
    }
}

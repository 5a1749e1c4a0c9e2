//! `controlplane`: builds the tools, or runs a control plane until its stdin closes.

use std::{
    io::{Write as _, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use controlplane::{
    Tool, Tools,
    node::{self, Machine},
    supervisor::{self, DEFAULT_ISSUER, Settings},
};

/// A real Kubernetes control plane on loopback, for tests and demos.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build every tool into the cache and print where they are.
    Build,
    /// Run a control plane: print one JSON line when it serves; end it when stdin closes or on SIGINT, SIGTERM, SIGHUP.
    Run(RunArguments),
    /// Run a node, as root: print one JSON line when it has registered; end it when stdin closes or on SIGINT, SIGTERM, SIGHUP.
    Node(Machine),
    /// Run the programs of a node as the first process of new namespaces.
    #[command(hide = true)]
    NodePrograms {
        #[command(flatten)]
        machine: Machine,
        #[arg(long)]
        dir: PathBuf,
    },
    /// Run a program that dies with this process's parent.
    #[command(hide = true)]
    Child {
        /// The process id of the supervisor.
        #[arg(long)]
        parent: u32,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

#[derive(clap::Args)]
struct RunArguments {
    /// An empty or new folder for everything. [default: a temporary one, removed at the end]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Do not remove the temporary folder.
    #[arg(long)]
    keep: bool,
    /// Custom resource definitions: a YAML file or a folder, applied before the controller manager starts. Repeatable.
    #[arg(long, value_name = "FILE_OR_FOLDER")]
    crds: Vec<PathBuf>,
    /// Leave the admission plugin for service accounts on: pods then take over their pull secrets, and need them to exist.
    #[arg(long)]
    service_account_admission: bool,
    /// A further admission plugin of kube-apiserver, such as `AlwaysPullImages`. Repeatable.
    #[arg(long = "admission-plugin", value_name = "NAME")]
    admission_plugins: Vec<String>,
    /// Issuer of service account tokens.
    #[arg(long, default_value = DEFAULT_ISSUER)]
    issuer: String,
    /// A further controller of kube-controller-manager, such as deployment-controller. Repeatable.
    #[arg(long = "controller", value_name = "NAME")]
    controllers: Vec<String>,
    /// Run the scheduler too.
    #[arg(long)]
    scheduler: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not eprintln: whoever read stderr may be gone.
            let _ = writeln!(stderr(), "controlplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Build => {
            let tools = Tools::ensure(&Tool::ALL)?;
            for tool in Tool::ALL {
                let (name, version, path) = (tool.name(), tool.version(), tools.path(tool));
                writeln!(stdout(), "{name:<24} {version:<8} {}", path.display())?;
            }
            Ok(())
        }
        Command::Run(RunArguments {
            dir,
            keep,
            crds,
            service_account_admission,
            admission_plugins,
            issuer,
            controllers,
            scheduler,
        }) => supervisor::run(Settings {
            dir,
            keep,
            crds,
            service_account_admission,
            admission_plugins,
            issuer,
            controllers,
            scheduler,
        }),
        Command::Node(machine) => node::run(&machine),
        Command::NodePrograms { machine, dir } => node::run_programs(&machine, &dir),
        Command::Child { parent, command } => supervisor::become_child(parent, &command),
    }
}

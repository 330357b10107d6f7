//! The command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::{
    audit, backup, bench, chain, cluster::Folder, completion, config, connect::Access, demo, down,
    dump, fabric, folder, fs, fsck, group, job, kill, metad, mount, node, output::Output, ps,
    queue, quota, rebalance, restart, restore, sched, scrub, security, serve, session, snapshot,
    status, table, target, train, trash, up, upgrade, user, volume, why,
};

/// Starts, inspects and exercises an ff2 cluster.
#[derive(Debug, Parser)]
#[command(name = "ff2ctl", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Folder of the local cluster [default: ./.ff2 if there is one, else ~/.ff2/local]
    #[arg(long, global = true, env = "FF2_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print JSON; what went wrong is then {"error": "..."} on standard error.
    #[arg(long, global = true)]
    json: bool,
    /// gRPC addresses of the metads, for a cluster that `up` did not make.
    #[arg(long, global = true, env = "FF2_ADMIN", value_delimiter = ',', value_name = "HOST:PORT")]
    admin: Vec<String>,
    /// gRPC addresses of the scheduler's replicas, for a cluster that `up` did not make.
    #[arg(long, global = true, env = "FF2_SCHED", value_delimiter = ',', value_name = "HOST:PORT")]
    sched: Vec<String>,
    /// Certificate authority of the metads (PEM), with --admin.
    #[arg(long, global = true, env = "FF2_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// User token, with --admin.
    #[arg(long, global = true, env = "FF2_TOKEN_FILE", value_name = "FILE")]
    token: Option<PathBuf>,
}

/// What every command gets.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) folder: Folder,
    pub(crate) output: Output,
    pub(crate) access: Access,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a local cluster, or what is missing of it.
    Up(up::Args),
    /// Stop the local cluster and unmount it.
    Down(down::Args),
    /// Stop one process cleanly and start it again, or all servers one after the other.
    Restart(restart::Args),
    /// Kill one process (SIGKILL), to see that the cluster bears it; `up` starts it again.
    Kill(kill::Args),
    /// List the local cluster's processes.
    Ps,
    /// Mount a volume of the local cluster.
    Mount(mount::MountArgs),
    /// Unmount.
    Umount(mount::UmountArgs),
    /// The cluster at a glance: what is wrong, who leads, what serves.
    Status(status::Args),
    /// Metads: the replicas of the Raft groups.
    #[command(subcommand)]
    Metad(metad::Command),
    /// Nodes: processes that joined the cluster.
    #[command(subcommand)]
    Node(node::Command),
    /// Targets: the part of a chain that lies on one disk.
    #[command(subcommand)]
    Target(target::Command),
    /// Chains: the replicas of a piece of the data.
    #[command(subcommand)]
    Chain(chain::Command),
    /// Chain tables: the chains that files are laid on.
    #[command(subcommand)]
    Table(table::Command),
    /// Move targets from full disks to empty ones, after disks or nodes were added.
    ///
    /// Shows the plan, and begins: each target is copied to its new place while the old one serves. It stops by
    /// itself when no two disks differ by more than one target for their size, as far as chains allow it.
    Rebalance(rebalance::Args),
    /// Quotas: how much there may be in a folder, or of a user or a group.
    #[command(subcommand)]
    Quota(quota::Command),
    /// The trash: removed files, kept for a while.
    #[command(subcommand)]
    Trash(trash::Command),
    /// The end of an upgrade.
    #[command(subcommand)]
    Upgrade(upgrade::Command),
    /// Snapshots of a volume: what it was, to look at in `/.snapshots/NAME` of each mount.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Volumes: what is mounted.
    #[command(subcommand)]
    Volume(volume::Command),
    /// Reads all that is stored, and repairs what disks lost.
    #[command(subcommand)]
    Scrub(scrub::Command),
    /// Check that names, inodes and chunks agree with each other.
    ///
    /// It finds chunks that no file has, which cost space only, and whatever of the namespace cannot be. Each chain
    /// is walked a page at a time beside the load. A metad holds all inodes in memory meanwhile (about half a
    /// gigabyte for a million). Fails if anything is wrong that it did not mend.
    Fsck(fsck::Args),
    /// Metadata in a file, for the loss of all metads.
    #[command(subcommand)]
    Backup(backup::Command),
    /// Make the metads of the local cluster anew from a backup, when all are lost, and start them.
    ///
    /// The file system is then as it was when the backup was made, but for the bytes of files that have chunks: those
    /// are the newest. Chains serve again when their stores told who has everything; `ff2ctl status` says what they
    /// wait for. Afterwards `ff2ctl fsck --repair` removes the chunks of files that were made after the backup. On real
    /// hosts: `ff2-metad format --restore`, see docs/OPERATIONS.md.
    Restore(restore::Args),
    /// Sessions: mounts and library users.
    #[command(subcommand)]
    Session(session::Command),
    /// Users and their tokens.
    #[command(subcommand)]
    User(user::Command),
    /// Who changed what of the cluster, and who was refused.
    Audit(audit::Args),
    /// What a target or a path is waiting for.
    Why(why::Args),
    /// Look into one process.
    #[command(subcommand)]
    Admin(dump::Command),
    /// Jobs: programs of several processes that can be suspended.
    #[command(subcommand)]
    Job(job::Command),
    /// Train a language model of the DeepSeek family, as a job.
    ///
    /// Hands in `ff2-train run --config FILE`, near the text that it reads (docs/TRAINING.md).
    Train(train::Args),
    /// Serve a model of the DeepSeek family at one address, by replicas that are jobs.
    ///
    /// Hands in a router and replicas, waits until they take requests, and prints where (docs/SERVING.md).
    Serve(serve::Args),
    /// What runs and waits, by priority.
    #[command(subcommand)]
    Queue(queue::Command),
    /// Groups of users: who is charged for jobs, and their fair shares.
    #[command(subcommand)]
    Group(group::Command),
    /// The scheduler's policies, tried on traces.
    #[command(subcommand)]
    Sched(sched::Command),
    /// Plan, check, route and simulate networks of switches; watch that of the cluster.
    #[command(subcommand)]
    Fabric(fabric::Command),
    /// Figures of the cluster, of the disk under it, and of a raft group alone.
    #[command(subcommand)]
    Bench(bench::Args),
    /// Files of the volume, without a mount.
    Fs(fs::Args),
    /// Keys and certificates for a cluster on real hosts.
    #[command(subcommand)]
    Security(security::Command),
    /// Configuration files for a cluster on real hosts.
    #[command(subcommand)]
    Config(config::Command),
    /// Show it all on this machine: a cluster, real data, dead servers, every byte compared.
    Demo(demo::Args),
    /// Print a completion script for a shell.
    Completion(completion::Args),
}

impl Cli {
    pub(crate) fn output(&self) -> Output {
        Output::new(self.global.json)
    }

    pub(crate) fn run(self) -> Result<()> {
        let folder = folder::find(self.global.dir.as_deref())?;
        let folder = Folder::new(folder);
        let Global { json, admin, sched, ca, token, .. } = self.global;
        let access = Access::new(folder.clone(), admin, ca, token).with_scheds(sched);
        let around = Surroundings { folder, output: Output::new(json), access };
        match self.command {
            Command::Completion(args) => completion::run(&args),
            Command::Demo(args) => demo::run(&args, json),
            Command::Bench(args) => bench::run(around.folder.path(), &args, json),
            Command::Job(command) => job::run(&around, command),
            Command::Sched(command) => sched::run(around.output, &command),
            Command::Kill(args) => kill::run(&around, &args),
            Command::Security(command) => security::run(&around, &command),
            Command::Config(command) => config::run(&around, command),
            command => {
                let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                tokio.block_on(Box::pin(command.run(&around)))
            }
        }
    }
}

impl Command {
    async fn run(self, around: &Surroundings) -> Result<()> {
        match self {
            Self::Up(args) => up::run(around, &args).await,
            Self::Down(args) => down::run(around, &args).await,
            Self::Restart(args) => restart::run(around, &args).await,
            Self::Ps => ps::run(around).await,
            Self::Mount(args) => mount::mount(around, &args).await,
            Self::Umount(args) => mount::umount(around, &args).await,
            Self::Status(args) => status::run(around, args).await,
            Self::Metad(command) => metad::run(around, &command).await,
            Self::Node(command) => node::run(around, &command).await,
            Self::Target(command) => target::run(around, &command).await,
            Self::Chain(command) => chain::run(around, &command).await,
            Self::Table(command) => table::run(around, &command).await,
            Self::Rebalance(args) => rebalance::run(around, args).await,
            Self::Quota(command) => quota::run(around, &command).await,
            Self::Queue(command) => queue::run(around, &command).await,
            Self::Group(command) => group::run(around, &command).await,
            Self::Trash(command) => trash::run(around, &command).await,
            Self::Upgrade(command) => upgrade::run(around, command).await,
            Self::Snapshot(command) => snapshot::run(around, &command).await,
            Self::Volume(command) => volume::run(around, &command).await,
            Self::Scrub(command) => scrub::run(around, &command).await,
            Self::Fsck(args) => fsck::run(around, args).await,
            Self::Backup(command) => backup::run(around, &command).await,
            Self::Restore(args) => restore::run(around, &args).await,
            Self::Session(command) => session::run(around, command).await,
            Self::User(command) => user::run(around, &command).await,
            Self::Audit(args) => audit::run(around, &args).await,
            Self::Why(args) => why::run(around, &args).await,
            Self::Admin(command) => dump::run(around, &command).await,
            Self::Fs(args) => fs::run(around, &args).await,
            Self::Serve(args) => serve::run(around, args).await,
            Self::Train(args) => train::run(around, &args).await,
            Self::Fabric(command) => fabric::run(around, &command).await,
            Self::Completion(_)
            | Self::Demo(_)
            | Self::Bench(_)
            | Self::Job(_)
            | Self::Sched(_)
            | Self::Kill(_)
            | Self::Security(_)
            | Self::Config(_) => {
                anyhow::bail!("this command does not run here")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_go_before_or_after_the_command() {
        for line in [
            "ff2ctl --dir /d kill storaged/0",
            "ff2ctl kill --dir /d storaged/0",
            "ff2ctl kill storaged/0 --dir /d",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.dir.as_deref(), Some(std::path::Path::new("/d")), "{line}");
        }
        let cli = Cli::try_parse_from(["ff2ctl", "status", "--json"]).unwrap();
        assert!(cli.global.json);
    }

    #[test]
    fn mistakes_are_told_with_the_way_out() {
        let told = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
        assert!(told("ff2ctl kill storage/0").contains("storaged/2"));
        assert!(told("ff2ctl up --disk-size huge").contains("8GiB"));
        assert!(told("ff2ctl stauts").contains("status"));
    }

    #[test]
    fn every_command_parses() {
        for line in [
            "up --metad 3 --storaged 4 --disks 2 --disk-size 8GiB --replicas 3 --mount /m --base-port 7000",
            "down --purge",
            "restart metad/1",
            "restart --rolling",
            "ps --json",
            "mount /m",
            "umount /m",
            "fabric generate --zones 2 --leaf 40 --spine 20 --json",
            "fabric top --watch --most 20",
            "table plan --nodes 180 --disks 16",
            "node list",
            "node show 3",
            "node drain 101 --wait",
            "node drain node-1 --why fans",
            "node cordon leaf:leaf-0",
            "node resume node-1",
            "node validate node-1 --no-wait",
            "quota gpus 16 --user ann --priority high",
            "quota gpus",
            "queue list",
            "queue set high --gpus 64",
            "group list",
            "group set nlp --weight 3",
            "node undrain 101",
            "node remove 101",
            "rebalance --dry-run",
            "rebalance --wait",
            "rebalance --stop",
            "target list",
            "target show 7",
            "chain list",
            "chain show 1",
            "table list",
            "table show 1",
            "table create --replicas 3",
            "table replicas 1 2 --force --wait",
            "user list",
            "user add alice --uid 1000",
            "user token alice --out /t",
            "user revoke 7",
            "user token alice --role operator",
            "audit --since 2h --follow",
            "volume create data",
            "volume export data --rule 10.0.0.0/8,ro,root --rule *",
            "volume export data --clear",
            "volume list",
            "volume show data",
            "quota set /a --bytes 10G --inodes 1M",
            "quota set --user alice --bytes none --no-wait",
            "quota get --group 100 --volume data",
            "quota list --json",
            "quota remove /a",
            "trash set --keep 7d",
            "trash show --json",
            "trash list /a --volume data",
            "trash restore 7 --to /b/c",
            "trash restore --under /a",
            "trash empty --older-than 12h",
            "upgrade finish",
            "serve /m/chat --replicas 2 --max-replicas 4 --run-options=--kv-mib=64 -- -G 8",
            "serve list",
            "serve stop chat",
            "train --config tiny.toml --set steps=100 -- -N 2 --priority=high",
            "sched replay trace.csv --gpus 384 --policy las --plot out.svg",
            "sched replay trace.csv --topology net.json --unit-ms 1000",
            "job submit -N 2 --gpus-per-node=8 train.sh --lr 1",
            "job submit --json job.yaml",
            "job run --ranks 2 --gpus-per-rank 1 -- python3 train.py",
            "job list --ended --watch --user ann",
            "job show 7 --yaml",
            "job why 7",
            "job eta 7",
            "job logs 7 --rank 1 --follow",
            "job suspend 7",
            "job resume 7",
            "job cancel 7",
            "job requeue 7",
            "job scale 7 1 3",
            "job ranks 7",
            "job cost",
            "up --agents 2 --fake-gpus 8",
            "job run --local --ranks 2 --suspend-after 1.5 --signal USR1 -- python3 train.py --lr 1",
            "snapshot create before-upgrade",
            "snapshot list --json",
            "snapshot remove before-upgrade --no-wait",
            "scrub start --wait",
            "scrub status",
            "fsck --repair",
            "backup create /b",
            "backup verify /b",
            "backup show /b --json",
            "restore /b",
            "session list --json",
            "metad list",
            "metad add 4 --wait 10",
            "metad remove 4",
            "status --check --wait",
            "fs ls / --token /t --volume data",
            "fs --mount-config /etc/ff2/mount-data.toml ls /",
            "security init /s",
            "security certificate /s metad-a 10.0.0.1",
            "security rotate /s --days 90",
            "security list",
            "up --tcp --encrypt-all",
            "config sample storaged",
            "why 12",
            "why /a/b",
            "admin dump metad/0",
            "completion bash",
        ] {
            let words = std::iter::once("ff2ctl").chain(line.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }
}

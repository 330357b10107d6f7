//! An upgrade from one release to the next under load, with a way back in between, and what must hold on the way.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{Cluster, SMALLEST, Site, load::Load};

/// From a restart until nothing is missing.
const HEALTHY: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Which programs a cluster runs.
#[derive(Clone, Debug)]
pub enum Release {
    /// Those of this build.
    New,
    /// Those in this folder, `ff2ctl` among them.
    In(PathBuf),
    /// Those of this build, as if they knew no more than this feature level, and the protocol from before there were
    /// levels.
    AsLevel(u32),
}

impl Cluster {
    /// From now on `ff2ctl` is that of this release, and so are the programs that it starts.
    pub fn use_release(&mut self, release: &Release) {
        self.environment.clear();
        let own = crate::target_folder().expect("the build has a folder").join("debug");
        let folder = match release {
            Release::New => own,
            Release::In(folder) => folder.clone(),
            Release::AsLevel(level) => {
                self.environment.push(("FF2_TEST_AS_LEVEL".to_owned(), level.to_string()));
                own
            }
        };
        self.program = folder.join("ff2ctl");
    }

    fn restart_each(&self, names: &[&str]) -> Result<()> {
        for name in names {
            self.ctl(&["restart", name])?;
            self.wait_healthy(HEALTHY).with_context(|| format!("after the restart of {name}"))?;
        }
        Ok(())
    }

    fn level(&self) -> Result<u64> {
        self.json(&["status"])?["level"].as_u64().context("status tells the level")
    }
}

/// What was seen on the way.
#[derive(Debug)]
pub struct Measured {
    pub records: u64,
    pub pause_max: Duration,
    pub took: Duration,
}

/// Goes from `old` to this build: some servers, back again, all of them, the end. Writers write all the
/// time, on a mount of the old release, and what they wrote is read back by the new one.
pub fn upgrade(old: &Release) -> Result<Measured> {
    let site = Site { release: Some(old), ..Site::default() };
    let mut cluster = Cluster::start_at(&site, &SMALLEST)?;
    let mount = cluster.mount();
    let begun = Instant::now();
    let load = Load::start(&mount.join("load"), 4)?;
    std::thread::sleep(Duration::from_secs(2));

    let some = ["metad/0", "metad/1", "metad/2", "storaged/0"];
    cluster.use_release(&Release::New);
    cluster.restart_each(&some).context("to the new release")?;
    println!("{:>6.1} s  {} run the new release", begun.elapsed().as_secs_f64(), some.join(", "));
    let status = cluster.json(&["status"])?;
    let told = status["upgrade"].as_str().unwrap_or_default();
    ensure!(told.contains("under way") && told.contains("storage node"), "told: {status}");
    let refused = cluster.ctl(&["upgrade", "finish"]).err();
    let refused = refused.context("an upgrade is not finished while some servers are old")?;
    ensure!(
        refused.to_string().contains("install the new release there"),
        "names them: {refused:#}"
    );
    println!("          finish is refused: {refused:#}");

    cluster.use_release(old);
    cluster.restart_each(&some).context("back to the old release")?;
    println!("{:>6.1} s  all run the old release again", begun.elapsed().as_secs_f64());

    cluster.use_release(&Release::New);
    cluster.ctl(&["restart", "--rolling", "--no-finish"]).context("all to the new release")?;
    println!("{:>6.1} s  all run the new release", begun.elapsed().as_secs_f64());
    ensure!(cluster.level()? == 1, "the level stays until somebody raises it");
    for new in [&["trash", "set", "--keep", "1h"][..], &["snapshot", "create", "early"]] {
        let early = cluster.ctl(new).err().context("what is new is not used before the end")?;
        ensure!(early.to_string().contains("upgrade finish"), "the refusal says why: {early:#}");
    }
    let finished = cluster.json(&["upgrade", "finish"])?;
    let level = cluster.level()?;
    ensure!(level > 1 && finished["level"] == level, "finished: {finished}");
    println!("{:>6.1} s  finished: {finished}", begun.elapsed().as_secs_f64());

    use_what_is_new(&cluster)?;
    let writers = load.stop()?;
    let took = begun.elapsed();
    let pause_max = writers.iter().map(|writer| writer.pause_max).max().unwrap_or_default();
    let records = writers.iter().map(|writer| writer.records).sum();
    cluster.remount()?;
    writers.iter().try_for_each(|writer| writer.check())?;
    ensure!(pause_max < PAUSE_MAX, "a writer waited for {pause_max:?}");
    cluster.fsck()?;

    for name in ["metad/0", "storaged/0"] {
        cluster.use_release(old);
        let refused = cluster.ctl(&["restart", name]).err();
        let refused =
            refused.with_context(|| format!("the old {name} serves a cluster that is new"))?;
        println!("          the old {name} is refused: {refused:#}");
        cluster.use_release(&Release::New);
        cluster.up()?;
        cluster.wait_healthy(HEALTHY).context("with the new release again")?;
    }
    Ok(Measured { records, pause_max, took })
}

/// By the mount of the old release: what is kept is not its business.
fn use_what_is_new(cluster: &Cluster) -> Result<()> {
    cluster.ctl(&["trash", "set", "--keep", "1h"])?;
    let path = cluster.mount().join("removed");
    fs::write(&path, "and had back")?;
    fs::remove_file(&path)?;
    // The namespace hears of it a little later.
    File::open(cluster.mount())?.sync_all()?;
    let entries = cluster.json(&["trash", "list"])?;
    let is_it = |entry: &&serde_json::Value| entry["path"] == "/removed";
    let entry = entries.as_array().and_then(|entries| entries.iter().find(is_it));
    let entry = entry.with_context(|| format!("the removed file is in the trash: {entries}"))?;
    cluster.ctl(&["trash", "restore", &entry["entry"].to_string()])?;
    ensure!(fs::read_to_string(&path)? == "and had back", "the file is as it was");
    cluster.ctl(&["snapshot", "create", "upgraded"])?;
    fs::remove_file(&path)?;
    let kept = cluster.mount().join(".snapshots/upgraded/removed");
    ensure!(fs::read_to_string(kept)? == "and had back", "the snapshot shows what there was");
    cluster.ctl(&["snapshot", "remove", "upgraded"])?;
    Ok(())
}

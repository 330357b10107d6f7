//! The last part of `up`: the cluster runs, and gets what a file system needs.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ff2_proto::pb;

use crate::{
    cli::Surroundings,
    cluster::{ClusterFile, Role},
    connect::Admin,
    output::Progress,
};

pub(crate) const VOLUME: &str = "default";

const PATIENCE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

/// Creates the root user, a chain table and the volume, as far as they are missing.
pub(super) async fn provide(
    around: &Surroundings,
    file: &ClusterFile,
    replicas: u32,
    progress: &Progress,
) -> Result<()> {
    let admin = around.access.connect()?.patience(PATIENCE);
    root_user(&admin).await?;
    let storageds = file.of(Role::Storaged).count();
    if storageds == 0 {
        return Ok(());
    }
    let routing = admin.routing().await?;
    if routing.tables.is_empty() {
        wait_joined(&admin, storageds, progress).await?;
        progress.now("placing the chains");
        let request =
            pb::CreateTableRequest { replicas, chains: 0, description: "made by ff2ctl up".into() };
        let reply = admin.create_table(request).await?;
        progress.done(&format!("placed {} chains of {replicas} replicas", reply.chains));
    }
    if routing.volumes.iter().all(|volume| volume.name != VOLUME) {
        progress.now("creating the volume");
        admin.create_volume(pb::CreateVolumeRequest { name: VOLUME.into() }).await?;
        progress.done(&format!("created the volume {VOLUME:?}"));
    }
    Ok(())
}

async fn root_user(admin: &Admin) -> Result<()> {
    let users = admin.list_users(pb::ListUsersRequest {}).await?.users;
    if users.iter().all(|user| user.uid != 0) {
        let root =
            pb::User { uid: 0, gid: 0, name: "root".into(), root: true, ..Default::default() };
        admin.put_user(pb::PutUserRequest { user: Some(root) }).await?;
    }
    Ok(())
}

async fn wait_joined(admin: &Admin, wanted: usize, progress: &Progress) -> Result<()> {
    let started = Instant::now();
    loop {
        let routing = admin.routing().await?;
        let joined = routing
            .nodes
            .iter()
            .filter(|node| node.role() == pb::NodeRole::Storaged && node.alive)
            .filter(|node| !node.disks.is_empty())
            .count();
        if joined >= wanted {
            return Ok(());
        }
        progress.now(format!("{joined} of {wanted} storage servers joined"));
        ensure!(
            started.elapsed() < PATIENCE,
            "only {joined} of {wanted} storage servers joined; `ff2ctl ps` shows which run, their \
             logs why they do not join"
        );
        tokio::time::sleep(POLL).await;
    }
}

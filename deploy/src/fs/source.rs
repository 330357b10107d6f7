//! Which volume `ff2ctl fs` is about, and as whom: what the command line says, else the local cluster.

use std::path::PathBuf;

use anyhow::{Context, Result};
use ff2_client::{ClientOptions, ClientTls};
use ff2_daemon::config::{MountConfig, load};
use ff2_proto::pb;

use crate::{connect::Access, up};

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Source {
    /// Volume [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    volume: Option<String>,
    /// Take metads, volume and token from a mount's configuration; it needs no token with root.
    #[arg(long, global = true, value_name = "FILE")]
    mount_config: Option<PathBuf>,
}

impl Source {
    pub(super) async fn options(&self, access: &Access) -> Result<ClientOptions> {
        let options = match &self.mount_config {
            Some(path) => {
                let config: MountConfig = load(path)?;
                let token = match access.given_token() {
                    Some(_) => access.token()?,
                    None => config.token()?,
                };
                let tls = config.tls()?;
                ClientOptions::new(config.metads, token, config.cluster_id)
                    .volume(config.volume)
                    .encrypted(tls)
            }
            None => {
                let (metads, cluster_id) = cluster(access).await?;
                let encrypt_all = access.local()?.is_some_and(|file| file.encrypt_all);
                let tls = ClientTls::load(&access.authority(), encrypt_all)?;
                ClientOptions::new(metads, access.token()?, cluster_id)
                    .volume(up::VOLUME)
                    .encrypted(Some(tls))
            }
        };
        let options = options.description(format!("ff2ctl fs, process {}", std::process::id()));
        Ok(match &self.volume {
            Some(volume) => options.volume(volume),
            None => options,
        })
    }
}

/// Data-plane addresses of the metads, and the cluster's name.
async fn cluster(access: &Access) -> Result<(Vec<String>, String)> {
    if let Some(file) = access.local()? {
        return Ok((file.metads(), file.cluster_id));
    }
    let status = access.connect()?.status().await.context(
        "ask for the addresses of the metads; with a token without root, give --mount-config",
    )?;
    let cluster_id = status.cluster_id.clone();
    Ok((metads(status), cluster_id))
}

fn metads(status: pb::ClusterStatusReply) -> Vec<String> {
    let nodes = status.routing.unwrap_or_default().nodes.into_iter();
    let metads = nodes.filter(|node| node.role() == pb::NodeRole::Metad);
    metads.map(|node| node.address).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ff2_fabric::ClusterKey;

    use super::*;
    use crate::{
        bytes::ByteSize,
        cluster::{ClusterFile, Folder, Process, Role},
    };

    fn token(dir: &std::path::Path, name: &str) -> PathBuf {
        let claims = pb::UserClaims { name: name.into(), ..Default::default() };
        let path = dir.join(format!("{name}.token"));
        ClusterKey::generate().unwrap().issue(claims).save(&path).unwrap();
        path
    }

    #[tokio::test]
    async fn the_command_line_says_who_asks_whom() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("cluster"));
        fs::create_dir_all(folder.security()).unwrap();
        let mut file = ClusterFile::new("local".into(), 1, ByteSize(1));
        file.processes.push(Process { port: 7, ..Process::new(Role::Metad, 0) });
        folder.save(&file).unwrap();
        fs::rename(token(dir.path(), "root"), folder.root_token()).unwrap();
        let authority = rcgen::generate_simple_self_signed(vec!["x".into()]).unwrap();
        fs::write(folder.ca(), authority.cert.pem()).unwrap();
        let alice = token(dir.path(), "alice");
        let access = |token| Access::new(folder.clone(), Vec::new(), None, token);

        let own = Source::default().options(&access(None)).await.unwrap();
        assert_eq!((own.token.claims().name.as_str(), &own.metads[0][..]), ("root", "127.0.0.1:7"));
        let given = Source::default().options(&access(Some(alice.clone()))).await.unwrap();
        assert_eq!(given.token.claims().name, "alice");

        let config = dir.path().join("mount.toml");
        let text = format!(
            "cluster_id = 'far'\nmetads = ['10.0.0.1:7000']\ntoken_file = '{}'\nvolume = 'v'\n\
             mount_point = '/mnt/x'\ndata_dir = '/var/x'\n",
            alice.display()
        );
        fs::write(&config, text).unwrap();
        let source = Source { mount_config: Some(config), volume: None };
        let far = source.options(&access(None)).await.unwrap();
        assert_eq!(far.token.claims().name, "alice");
        assert_eq!((&far.cluster_id[..], &far.volume[..]), ("far", "v"));
        let source = Source { volume: Some("w".into()), ..source };
        assert_eq!(source.options(&access(None)).await.unwrap().volume, "w");
    }

    #[test]
    fn only_metads_are_asked() {
        let mut status = crate::show::tests::status();
        let metad = pb::Node {
            role: pb::NodeRole::Metad.into(),
            address: "10.0.0.1:7000".into(),
            ..Default::default()
        };
        status.routing.as_mut().unwrap().nodes.push(metad);
        assert_eq!(metads(status), ["10.0.0.1:7000"]);
    }
}

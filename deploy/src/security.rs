//! `ff2ctl security`: what a cluster trusts. All of it lies in one folder, from which each host gets
//! its part: the cluster key, the certificate authority, a certificate for each metad, and a token for
//! root. `up` makes the same for a local cluster.

mod authority;
mod rotate;

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, ensure};
use ff2_fabric::ClusterKey;
use ff2_proto::pb;
use serde_json::json;

use crate::{cli::Surroundings, cluster::make_folder};
pub(crate) use authority::Authority;

/// Days for which a certificate holds: a year, and a month in which the status warns.
pub(crate) const DAYS: i64 = 395;

/// Names in the folder.
pub(crate) const CLUSTER_KEY: &str = "cluster.key";
pub(crate) const CA: &str = "ca.pem";
pub(crate) const ROOT_TOKEN: &str = "root.token";
const CA_KEY: &str = "ca.key";
/// Of an authority that is to take over.
const NEXT_CA_KEY: &str = "ca.next.key";

/// Tokens that the cluster issues count up from 1; the one that is made before it runs lies above.
const FIRST_TOKEN_BIT: u64 = 1 << 63;

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a new cluster's key, certificate authority and first root token.
    Init {
        /// Where to put them; keep it safe, and off the servers.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Make the certificate of a server's host, signed by the folder's authority.
    Certificate {
        /// The folder that `security init` made.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// Gives the files their names: FOLDER/HOST.pem and FOLDER/HOST.key
        #[arg(value_name = "HOST")]
        host: String,
        /// Other names and addresses under which it is reached: by ff2ctl, servers and mounts.
        #[arg(value_name = "NAME|ADDRESS")]
        also: Vec<String>,
        /// Days until it ends.
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(i64).range(1..=36_500))]
        days: i64,
    },
    /// Make new certificates and keys in place of all that are there, for the same names.
    ///
    /// Servers use new files within seconds, without a restart. On real hosts copy each pair to its host, as those
    /// before. The authority (see `security authority`), the cluster key and tokens stay as they are.
    Rotate {
        /// The folder that `security init` made [default: that of the local cluster]
        #[arg(value_name = "FOLDER")]
        folder: Option<PathBuf>,
        /// Days until they end.
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(i64).range(1..=36_500))]
        days: i64,
    },
    /// Let a new certificate authority take over: begin, switch, finish.
    ///
    /// Processes use new files within seconds, without a restart. On real hosts bring `ca.pem` to all servers and
    /// mounts after `begin` and after `finish`, and the certificates to their servers after `switch`.
    Authority {
        #[arg(value_name = "STEP")]
        step: authority::Step,
        /// The folder that `security init` made [default: that of the local cluster]
        #[arg(value_name = "FOLDER")]
        folder: Option<PathBuf>,
        /// Days until the certificates of `switch` end.
        #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(i64).range(1..=36_500))]
        days: i64,
    },
    /// Certificates, for which names, and until when.
    List {
        /// The folder that `security init` made [default: that of the local cluster]
        #[arg(value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

pub(crate) fn run(around: &Surroundings, command: &Command) -> Result<()> {
    match command {
        Command::Init { folder } => {
            init(folder)?;
            let made = [CLUSTER_KEY, CA, CA_KEY, ROOT_TOKEN].map(|name| folder.join(name));
            around.output.print(&json!({ "made": made }), || {
                let shown = made.each_ref().map(|path| path.display().to_string());
                format!("made {}", shown.join(", "))
            })
        }
        Command::Rotate { folder, days } => {
            let folder = folder.clone().unwrap_or_else(|| around.folder.security());
            let rotated = rotate::all(&folder, *days)?;
            around.output.print(&json!({ "rotated": rotated }), || {
                format!("made {} new certificates in {}", rotated.len(), folder.display())
            })
        }
        Command::Authority { step, folder, days } => {
            let folder = folder.clone().unwrap_or_else(|| around.folder.security());
            Authority::renew(&folder, *step, *days)?;
            let next = match step {
                authority::Step::Begin => {
                    "when every server and mount has the new ca.pem: `switch`"
                }
                authority::Step::Switch => "when every server has its new certificate: `finish`",
                authority::Step::Finish => "bring ca.pem to every server and mount",
            };
            around.output.print(&json!({ "folder": folder, "next": next }), || {
                format!("done in {}; {next}", folder.display())
            })
        }
        Command::List { folder } => {
            let folder = folder.clone().unwrap_or_else(|| around.folder.security());
            let found = rotate::list(&folder)?;
            let value = found.iter().map(rotate::Found::value).collect();
            around.output.print(&value, || rotate::text(&found))
        }
        Command::Certificate { folder, host, also, days } => {
            let files = CertificateFiles::of(folder, host)?;
            Authority::load(folder)?.certify(host, also, *days, &files)?;
            let value = json!({ "certificate": files.certificate, "key": files.key });
            around.output.print(&value, || {
                format!("made {} and {}", files.certificate.display(), files.key.display())
            })
        }
    }
}

fn init(folder: &Path) -> Result<()> {
    let key = folder.join(CLUSTER_KEY);
    ensure!(
        !key.exists(),
        "{} exists already: a cluster may rest on it; choose another folder",
        key.display()
    );
    make_folder(folder)?;
    Authority::make(folder).context("make the certificate authority")?;
    make_secrets(folder)
}

/// The cluster key, and last the root token: while it is missing, the folder is not whole.
pub(crate) fn make_secrets(folder: &Path) -> Result<()> {
    let key = ClusterKey::generate().context("make the cluster key")?;
    key.save(&folder.join(CLUSTER_KEY)).context("save the cluster key")?;
    let token = key.issue(root_claims()?);
    token.save(&folder.join(ROOT_TOKEN)).context("save the root token")
}

fn root_claims() -> Result<pb::UserClaims> {
    let random = getrandom::u64().map_err(|error| anyhow!("no random numbers: {error}"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?;
    Ok(pb::UserClaims {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        name: "root".into(),
        token_id: random | FIRST_TOKEN_BIT,
        issued_s: now.as_secs(),
        root: true,
        ..Default::default()
    })
}

/// Where a certificate and its key go.
#[derive(Clone, Debug)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl CertificateFiles {
    fn of(folder: &Path, host: &str) -> Result<Self> {
        ensure!(!host.contains('/') && !host.is_empty(), "{host:?} is no name of a host");
        let file = |kind| folder.join(format!("{host}.{kind}"));
        let files = Self { certificate: file("pem"), key: file("key") };
        let reserved = [CLUSTER_KEY, CA_KEY, NEXT_CA_KEY].map(|name| folder.join(name));
        ensure!(!reserved.contains(&files.key), "{} is taken", files.key.display());
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use ff2_fabric::UserToken;

    use super::*;

    #[test]
    fn secrets_are_made_whole_and_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("security");
        init(&folder).unwrap();
        ClusterKey::load(&folder.join(CLUSTER_KEY)).unwrap();
        let token = UserToken::load(&folder.join(ROOT_TOKEN)).unwrap();
        assert!(token.claims().root && token.claims().token_id >= FIRST_TOKEN_BIT);
        let files = CertificateFiles::of(&folder, "metad-a.example").unwrap();
        let authority = Authority::load(&folder).unwrap();
        authority.certify("metad-a.example", &["10.0.0.1".to_owned()], DAYS, &files).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for secret in [CLUSTER_KEY, ROOT_TOKEN, CA_KEY] {
            assert_eq!(mode(&folder.join(secret)), 0o600, "{secret}");
        }
        assert_eq!(mode(&files.key), 0o600);
        assert!(files.certificate.ends_with("metad-a.example.pem"));
        assert!(fs::read_to_string(&files.certificate).unwrap().contains("BEGIN CERTIFICATE"));
    }

    #[test]
    fn a_cluster_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let before = fs::read(dir.path().join(CLUSTER_KEY)).unwrap();
        assert!(init(dir.path()).unwrap_err().to_string().contains("another folder"));
        for host in ["cluster", "ca", "ca.next", "a/b", ""] {
            assert!(CertificateFiles::of(dir.path(), host).is_err(), "{host:?}");
        }
        assert_eq!(fs::read(dir.path().join(CLUSTER_KEY)).unwrap(), before);
    }
}

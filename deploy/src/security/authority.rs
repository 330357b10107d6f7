//! The certificate authority of a cluster: signs the certificates of its servers.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::{CA, CA_KEY, CertificateFiles, NEXT_CA_KEY, rotate};
use crate::cluster::write_file;

/// The same for every cluster, so that the key alone is enough to sign for it again; clients tell
/// authorities by their keys.
const NAME: &str = "ff2 certificate authority";

pub(crate) struct Authority(Issuer<'static, KeyPair>);

/// How a new authority takes over, while everything runs: between two steps the files are brought to all hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Step {
    /// Make the new one: from now on both are trusted (`ca.pem`).
    Begin,
    /// Sign the certificates of all servers with the new one.
    Switch,
    /// Trust the new one only.
    Finish,
}

const BLOCK: &str = "-----BEGIN CERTIFICATE-----";

impl Authority {
    /// A new one, written to the folder. Its key is kept, for the certificates of later hosts.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = params()?.self_signed(&key)?;
        write_file(&folder.join(CA), certificate.pem().as_bytes(), 0o644)?;
        write_file(&folder.join(CA_KEY), key.serialize_pem().as_bytes(), 0o600)?;
        Ok(Self(Issuer::new(params()?, key)))
    }

    /// The one that [`Self::make`] wrote.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(CA_KEY);
        let pem = fs::read_to_string(&path).with_context(|| {
            format!("read {}; `ff2ctl security init` makes the folder", path.display())
        })?;
        let key = KeyPair::from_pem(&pem).with_context(|| format!("parse {}", path.display()))?;
        Ok(Self(Issuer::new(params()?, key)))
    }

    /// A step of the change to another authority. Each is refused unless it is its turn.
    pub(crate) fn renew(folder: &Path, step: Step, days: i64) -> Result<()> {
        let (trusted, key, next) = (folder.join(CA), folder.join(CA_KEY), folder.join(NEXT_CA_KEY));
        let known = fs::read_to_string(&trusted).with_context(|| {
            format!("read {}; `ff2ctl security init` makes it", trusted.display())
        })?;
        let newest = known.rfind(BLOCK).context("ca.pem holds no certificate")?;
        let several = known.find(BLOCK) != Some(newest);
        match step {
            Step::Begin => {
                ensure!(
                    !several,
                    "{} holds two authorities: the last change is not finished",
                    trusted.display()
                );
                let made = KeyPair::generate()?;
                let certificate = params()?.self_signed(&made)?;
                write_file(&next, made.serialize_pem().as_bytes(), 0o600)?;
                let both = format!("{}\n{}", known.trim_end(), certificate.pem());
                write_file(&trusted, both.as_bytes(), 0o644)
            }
            Step::Switch => {
                ensure!(several, "there is no new authority: `begin` first");
                if next.exists() {
                    fs::rename(&next, &key)
                        .with_context(|| format!("rename {}", next.display()))?;
                }
                // Also if an earlier switch was interrupted here.
                rotate::all(folder, days).map(drop)
            }
            Step::Finish => {
                ensure!(
                    several,
                    "{} holds one authority: nothing is to be finished",
                    trusted.display()
                );
                ensure!(
                    !next.exists(),
                    "the servers' certificates are the old authority's: `switch` first"
                );
                let signed = fs::metadata(&key)?.modified()?;
                for server in rotate::servers(folder)? {
                    let made = fs::metadata(&server)?.modified()?;
                    ensure!(
                        made >= signed,
                        "{} is the old authority's: `switch` again",
                        server.display()
                    );
                }
                write_file(&trusted, &known.as_bytes()[newest..], 0o644)
            }
        }
    }

    /// A certificate of a server that is reached as `host`, and under other names and addresses.
    pub(crate) fn certify(
        &self,
        host: &str,
        also: &[String],
        days: i64,
        files: &CertificateFiles,
    ) -> Result<()> {
        let names = [&[host.to_owned()][..], also].concat();
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, host);
        let now = OffsetDateTime::now_utc();
        // Clocks of hosts differ.
        server.not_before = now - Duration::days(1);
        server.not_after = now + Duration::days(days);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &self.0)?;
        // A server that looks in between finds that they do not belong together, and keeps the former ones.
        write_file(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
        write_file(&files.certificate, certificate.pem().as_bytes(), 0o644)
    }
}

fn params() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

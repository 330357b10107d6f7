//! What a new cluster trusts: the cluster key, a certificate authority with a certificate for each
//! metad, and a token for root.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use ff2_fabric::ClusterKey;
use ff2_proto::pb;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::cluster::{ClusterFile, Folder, HOST, Role, make_folder, write_file};

/// Tokens that the cluster issues count up from 1; the one that is made before it runs lies above.
const FIRST_TOKEN_BIT: u64 = 1 << 63;

/// Makes all of it. The root token comes last: while it is missing, everything is made again.
pub(super) fn make(folder: &Folder, file: &ClusterFile) -> Result<()> {
    make_folder(&folder.security())?;
    certificates(folder, file).context("make the certificates")?;
    let key = ClusterKey::generate().context("make the cluster key")?;
    key.save(&folder.cluster_key()).context("save the cluster key")?;
    let token = key.issue(root_claims()?);
    token.save(&folder.root_token()).context("save the root token")
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
        expires_s: 0,
        root: true,
    })
}

fn certificates(folder: &Folder, file: &ClusterFile) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, format!("ff2 {}", file.cluster_id));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = authority.self_signed(&key)?;
    write_file(&folder.ca(), certificate.pem().as_bytes(), 0o644)?;
    // Kept, so that metads of other hosts can be given certificates by hand.
    write_file(&folder.security().join("ca.key"), key.serialize_pem().as_bytes(), 0o600)?;
    let issuer = Issuer::new(authority, key);
    for metad in file.of(Role::Metad) {
        let mut server = CertificateParams::new(vec!["localhost".to_owned(), HOST.to_owned()])?;
        server.distinguished_name.push(DnType::CommonName, format!("metad {}", metad.index));
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &issuer)?;
        write_file(&folder.certificate(metad.name()), certificate.pem().as_bytes(), 0o644)?;
        let pem = key.serialize_pem();
        write_file(&folder.certificate_key(metad.name()), pem.as_bytes(), 0o600)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ff2_fabric::UserToken;

    use super::*;
    use crate::{bytes::ByteSize, cluster::Process};

    #[test]
    fn secrets_are_made_whole_and_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        let mut file = ClusterFile::new("c".into(), 1, ByteSize(1));
        file.processes.push(Process {
            role: Role::Metad,
            index: 0,
            port: 1,
            admin_port: 2,
            http_port: 3,
            disks: 0,
            mount_point: None,
        });
        make(&folder, &file).unwrap();
        ClusterKey::load(&folder.cluster_key()).unwrap();
        let token = UserToken::load(&folder.root_token()).unwrap();
        assert!(token.claims().root && token.claims().token_id >= FIRST_TOKEN_BIT);
        let name = file.processes[0].name();
        for secret in [folder.cluster_key(), folder.root_token(), folder.certificate_key(name)] {
            let mode = std::fs::metadata(&secret).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", secret.display());
        }
        assert!(
            std::fs::read_to_string(folder.certificate(name))
                .unwrap()
                .contains("BEGIN CERTIFICATE")
        );
    }
}

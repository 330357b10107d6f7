//! What a new local cluster trusts.

use anyhow::{Context, Result};

use crate::{
    cluster::{ClusterFile, Folder, HOST, Role, make_folder},
    security::{self, Authority, CertificateFiles},
};

/// Makes all of it. The root token comes last: while it is missing, everything is made again.
pub(super) fn make(folder: &Folder, file: &ClusterFile) -> Result<()> {
    let dir = folder.security();
    make_folder(&dir)?;
    let authority = Authority::make(&dir).context("make the certificate authority")?;
    certify(folder, file, &authority)?;
    security::make_secrets(&dir)
}

/// Certificates for servers that have none yet: those that were added, or are of an earlier release.
pub(super) fn make_missing(folder: &Folder, file: &ClusterFile) -> Result<()> {
    let servers = file.processes.iter().filter(|process| process.role != Role::Fuse);
    if servers.into_iter().all(|process| folder.certificate(process.name()).exists()) {
        return Ok(());
    }
    certify(folder, file, &Authority::load(&folder.security())?)
}

fn certify(folder: &Folder, file: &ClusterFile, authority: &Authority) -> Result<()> {
    for process in file.processes.iter().filter(|process| process.role != Role::Fuse) {
        let name = process.name();
        let files = CertificateFiles {
            certificate: folder.certificate(name),
            key: folder.certificate_key(name),
        };
        if files.certificate.exists() && files.key.exists() {
            continue;
        }
        authority
            .certify("localhost", &[HOST.to_owned()], security::DAYS, &files)
            .with_context(|| format!("make the certificate of {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bytes::ByteSize, cluster::Process};

    #[test]
    fn every_server_gets_a_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        let mut file = ClusterFile::new("c".into(), 1, ByteSize(1));
        file.processes.extend((0..2).map(|index| Process::new(Role::Metad, index)));
        make(&folder, &file).unwrap();
        for metad in &file.processes {
            assert!(folder.certificate(metad.name()).exists());
            assert!(folder.certificate_key(metad.name()).exists());
        }
        assert!(folder.root_token().exists() && folder.cluster_key().exists());
        let ca = std::fs::read(folder.ca()).unwrap();
        file.processes.push(Process::new(Role::Storaged, 0));
        make_missing(&folder, &file).unwrap();
        assert!(folder.certificate(file.processes[2].name()).exists());
        assert_eq!(std::fs::read(folder.ca()).unwrap(), ca, "of the same authority");
    }
}

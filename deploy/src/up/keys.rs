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
    for metad in file.of(Role::Metad) {
        let name = metad.name();
        let files = CertificateFiles {
            certificate: folder.certificate(name),
            key: folder.certificate_key(name),
        };
        authority
            .certify("localhost", &[HOST.to_owned()], &files)
            .with_context(|| format!("make the certificate of {name}"))?;
    }
    security::make_secrets(&dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bytes::ByteSize, cluster::Process};

    #[test]
    fn every_metad_gets_a_certificate() {
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
    }
}

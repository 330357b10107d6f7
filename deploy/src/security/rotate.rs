//! The certificates of a folder: what they say, and new ones in their places.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use ff2_fabric::tls::{Shown, read_certificate};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Authority, CA, CertificateFiles};
use crate::output::table;

/// A certificate in the folder.
#[derive(Debug)]
pub(super) struct Found {
    file: PathBuf,
    shown: Shown,
    is_authority: bool,
}

impl Found {
    pub(super) fn value(&self) -> Value {
        json!({
            "file": self.file, "names": self.shown.names, "expires_s": self.shown.expires_s,
            "expires": self.date(), "authority": self.is_authority,
        })
    }

    fn date(&self) -> String {
        let at = i64::try_from(self.shown.expires_s).ok();
        let at = at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "?".into())
    }
}

/// All certificates of the folder, by name.
pub(super) fn list(folder: &Path) -> Result<Vec<Found>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "pem") {
            files.push(path);
        }
    }
    files.sort();
    let found = files.into_iter().map(|file| {
        let is_authority = file.file_name().is_some_and(|name| name == CA);
        let shown = read_certificate(&file)?;
        Ok(Found { file, shown, is_authority })
    });
    found.collect()
}

/// The certificates of servers.
pub(super) fn servers(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = list(folder)?.into_iter().filter(|one| !one.is_authority);
    Ok(found.map(|one| one.file).collect())
}

/// New certificates and keys for all servers of the folder. Answers their files.
pub(super) fn all(folder: &Path, days: i64) -> Result<Vec<PathBuf>> {
    let authority = Authority::load(folder)?;
    let servers: Vec<Found> = list(folder)?.into_iter().filter(|one| !one.is_authority).collect();
    ensure!(!servers.is_empty(), "{} has no certificate of a server", folder.display());
    for Found { file, shown, .. } in &servers {
        let (host, also) = shown.names.split_first().with_context(|| {
            format!(
                "{} names no host: make it anew with `ff2ctl security certificate`",
                file.display()
            )
        })?;
        let files = CertificateFiles { certificate: file.clone(), key: file.with_extension("key") };
        authority.certify(host, also, days, &files)?;
    }
    Ok(servers.into_iter().map(|server| server.file).collect())
}

pub(super) fn text(found: &[Found]) -> String {
    let rows = found.iter().map(|one| {
        let file = one.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let names = match one.is_authority {
            true => "the authority".to_owned(),
            false => one.shown.names.join(", "),
        };
        vec![file, names, one.date()]
    });
    table(&["FILE", "NAMES", "ENDS"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::{authority::Step, init};

    #[test]
    fn rotation_keeps_names_and_changes_all_else() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        assert!(all(dir.path(), 10).unwrap_err().to_string().contains("no certificate"));
        let authority = Authority::load(dir.path()).unwrap();
        let files = CertificateFiles::of(dir.path(), "store-a").unwrap();
        authority.certify("store-a", &["10.0.0.7".to_owned()], 100, &files).unwrap();
        let read = || {
            let parts = [&files.certificate, &files.key, &dir.path().join(CA)]
                .map(|f| fs::read(f).unwrap());
            (parts, list(dir.path()).unwrap())
        };
        let (before, shown) = read();
        assert_eq!(all(dir.path(), 200).unwrap(), std::slice::from_ref(&files.certificate));
        let (after, anew) = read();
        assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2]);
        assert_eq!(anew[1].shown.names, ["store-a", "10.0.0.7"]);
        let longer = anew[1].shown.expires_s - shown[1].shown.expires_s;
        assert!((99 * 86_400..=101 * 86_400).contains(&longer), "{longer}");
        assert!(anew[0].is_authority && text(&anew).contains("store-a, 10.0.0.7"));
        ff2_fabric::tls::Certificate::load(&files.certificate, &files.key).unwrap();
    }

    #[test]
    fn another_authority_takes_over_in_three_steps() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let files = CertificateFiles::of(dir.path(), "store-a").unwrap();
        let authority = Authority::load(dir.path()).unwrap();
        authority.certify("store-a", &[], 100, &files).unwrap();
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let (old, certificate) = (text(CA), text("store-a.pem"));
        let step = |step| Authority::renew(dir.path(), step, 50).map_err(|why| why.to_string());
        assert!(step(Step::Switch).unwrap_err().contains("`begin` first"));
        assert!(step(Step::Finish).unwrap_err().contains("nothing is to be finished"));
        step(Step::Begin).unwrap();
        assert!(step(Step::Begin).unwrap_err().contains("not finished"));
        let both = text(CA);
        assert!(both.starts_with(old.trim_end()) && both.len() > old.len());
        assert_eq!(text("store-a.pem"), certificate, "not before all trust the new one");
        assert!(step(Step::Finish).unwrap_err().contains("`switch` first"));
        step(Step::Switch).unwrap();
        assert_ne!(text("store-a.pem"), certificate);
        assert_eq!(
            text(CA),
            both,
            "the old one is trusted while others still show its certificates"
        );
        step(Step::Finish).unwrap();
        let new = text(CA);
        assert!(both.ends_with(&new) && new.len() < both.len() && !new.contains(old.trim_end()));
        step(Step::Begin).unwrap();
    }
}

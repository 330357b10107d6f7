//! Which cluster a command is about: the folder that `ff2ctl up` made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// `--dir` (or FF2_DIR), else `./.ff2` if there is one, else `~/.ff2/local`; absolute.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let here = Path::new(".ff2");
    let chosen = choose(given, here.is_dir(), home.as_deref())
        .context("name the cluster's folder with --dir, since HOME is not set")?;
    std::path::absolute(&chosen).with_context(|| format!("find {}", chosen.display()))
}

fn choose(given: Option<&Path>, here: bool, home: Option<&Path>) -> Option<PathBuf> {
    match given {
        Some(given) => Some(given.to_owned()),
        None if here => Some(".ff2".into()),
        None => home.map(|home| home.join(".ff2/local")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_choice_wins() {
        let (given, home) = (Path::new("/g"), Path::new("/h"));
        assert_eq!(choose(Some(given), true, Some(home)).unwrap(), given);
        assert_eq!(choose(None, true, Some(home)).unwrap(), Path::new(".ff2"));
        assert_eq!(choose(None, false, Some(home)).unwrap(), Path::new("/h/.ff2/local"));
        assert_eq!(choose(None, false, None), None);
        assert!(find(Some(Path::new("x"))).unwrap().is_absolute());
    }
}

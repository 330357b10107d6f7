//! Who of a service runs: a folder with a file of each, written at its start, looked after, and removed at its end.

use std::{
    fs, io as std_io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::folder::{FolderError, get_json, io, put_json};

/// What a process says of itself in its file.
pub trait Announced: Serialize + DeserializeOwned + Clone + Send + 'static {
    /// Another one at each start.
    fn id(&self) -> &str;
}

/// See the module.
#[derive(Debug)]
pub struct Roll<T> {
    path: PathBuf,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Roll<T> {
    fn clone(&self) -> Self {
        Self::at(self.path.clone())
    }
}

impl<T> Roll<T> {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, of: PhantomData }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, id: &str) -> PathBuf {
        self.path.join(format!("{id}.json"))
    }

    pub fn is_announced(&self, id: &str) -> bool {
        self.file(id).exists()
    }

    /// One that is gone already is as good.
    pub fn withdraw(&self, id: &str) {
        let path = self.file(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std_io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "it stays announced");
            }
            _ => {}
        }
    }
}

impl<T: Announced> Roll<T> {
    /// # Errors
    /// The file cannot be written.
    pub fn announce(&self, entry: &T) -> Result<(), FolderError> {
        put_json(&self.file(entry.id()), entry)
    }

    /// All that are announced. One that cannot be read is left out: its writer replaces it as a whole.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn entries(&self) -> Result<Vec<T>, FolderError> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.path).map_err(io(&self.path))? {
            let file = file.map_err(io(&self.path))?.path();
            if file.extension().is_some_and(|extension| extension == "json") {
                match get_json(&file) {
                    Ok(entry) => found.extend(entry),
                    Err(error) => tracing::warn!(%error, "who is announced is not understood"),
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Named(String);

    impl Announced for Named {
        fn id(&self) -> &str {
            &self.0
        }
    }

    #[test]
    fn they_come_and_go_and_what_is_broken_is_passed_over() {
        let scratch = tempfile::tempdir().unwrap();
        let roll = Roll::at(scratch.path().to_owned());
        assert_eq!(roll.entries().unwrap(), []);
        roll.announce(&Named("x".to_owned())).unwrap();
        roll.announce(&Named("y".to_owned())).unwrap();
        fs::write(scratch.path().join("z.json"), "{").unwrap();
        assert_eq!(roll.entries().unwrap().len(), 2);
        roll.withdraw("x");
        roll.withdraw("x");
        assert!(roll.is_announced("y") && !roll.is_announced("x"));
        assert_eq!(roll.entries().unwrap(), [Named("y".to_owned())]);
    }
}

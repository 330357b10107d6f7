//! What tells this agent from another one of the same name.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

const BYTES: usize = 16;

/// Drawn when the folder was made, and the same as long as that is kept.
///
/// # Errors
/// The folder cannot be read or written.
pub(crate) fn of_folder(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join("id");
    match fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let draft = path.with_extension("new");
    fs::write(&draft, &id)?;
    fs::rename(draft, path)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_folder_keeps_its_id_and_no_two_have_one() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = of_folder(one.path()).unwrap();
        assert_eq!((of_folder(one.path()).unwrap(), first.len()), (first.clone(), 2 * BYTES));
        assert_ne!(of_folder(other.path()).unwrap(), first);
        fs::write(one.path().join("id"), "").unwrap();
        assert_ne!(of_folder(one.path()).unwrap(), "", "one that was cut off is drawn anew");
    }
}

//! What this client knows of folders: their attributes and names, as long as it holds their callbacks.
//!
//! Each folder is known in one version. Whoever asks must compare it with the version whose callback is
//! held: what was learnt from an answer that an invalidation overtook is then not taken for the truth. A
//! version that does not follow the one before by a change of this client leaves nothing known of the names.

use std::collections::BTreeMap;

use ff2_proto::{
    InodeId,
    pb::{self, FileKind},
};

/// Folders that are known; all are forgotten for a new one beyond.
const FOLDERS_MAX: usize = 4_096;
/// Names of all folders together, likewise.
const NAMES_MAX: usize = 262_144;

#[derive(Debug, Default)]
pub struct Folders {
    known: BTreeMap<InodeId, Folder>,
    names: usize,
}

#[derive(Debug)]
struct Folder {
    attr: pb::Attr,
    /// Names that are not listed are not there.
    is_complete: bool,
    names: BTreeMap<Vec<u8>, Name>,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Absent,
    Is { inode: InodeId, kind: FileKind },
}

impl Folders {
    pub fn attr(&self, folder: InodeId) -> Option<&pb::Attr> {
        self.known.get(&folder).map(|folder| &folder.attr)
    }

    pub fn name(&self, folder: InodeId, name: &[u8]) -> Option<Name> {
        let folder = self.known.get(&folder)?;
        let named = folder.names.get(name).copied();
        named.or(folder.is_complete.then_some(Name::Absent))
    }

    /// The namespace said this, with a callback. An older answer changes nothing.
    pub fn learn(&mut self, attr: &pb::Attr) {
        if attr.kind() != FileKind::Directory {
            return;
        }
        let known = self.known.get_mut(&InodeId(attr.inode));
        match known {
            Some(folder) if folder.attr.version >= attr.version => {}
            Some(folder) => {
                self.names -= folder.names.len();
                *folder = Folder::new(*attr);
            }
            None => self.add(*attr, false),
        }
    }

    /// This client made it: there is nothing in it.
    pub fn made(&mut self, attr: &pb::Attr) {
        self.forget(InodeId(attr.inode));
        self.add(*attr, true);
    }

    /// This client changed the folder, which is so now; and names of it, if it was that.
    pub fn changed(&mut self, attr: &pb::Attr, names: &[(&[u8], Name)]) {
        let Some(folder) = self.known.get_mut(&InodeId(attr.inode)) else { return };
        if folder.attr.version + 1 != attr.version {
            return self.learn(attr);
        }
        folder.attr = *attr;
        for (name, is) in names {
            folder.know(&mut self.names, name, *is);
        }
    }

    /// What the namespace said of a name, in this version of the folder.
    pub fn learn_name(&mut self, folder: InodeId, version: u64, name: &[u8], is: Name) {
        self.make_room();
        if let Some(folder) = self.known.get_mut(&folder)
            && folder.attr.version == version
        {
            folder.know(&mut self.names, name, is);
        }
    }

    pub fn forget(&mut self, folder: InodeId) {
        if let Some(folder) = self.known.remove(&folder) {
            self.names -= folder.names.len();
        }
    }

    pub fn forget_all(&mut self) {
        *self = Self::default();
    }

    fn add(&mut self, attr: pb::Attr, is_complete: bool) {
        self.make_room();
        self.known.insert(InodeId(attr.inode), Folder { is_complete, ..Folder::new(attr) });
    }

    fn make_room(&mut self) {
        if self.known.len() >= FOLDERS_MAX || self.names >= NAMES_MAX {
            self.forget_all();
        }
    }
}

impl Folder {
    fn new(attr: pb::Attr) -> Self {
        Self { attr, is_complete: false, names: BTreeMap::new() }
    }

    fn know(&mut self, names: &mut usize, name: &[u8], is: Name) {
        if self.is_complete && is == Name::Absent {
            *names -= usize::from(self.names.remove(name).is_some());
        } else {
            *names += usize::from(self.names.insert(name.to_vec(), is).is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: InodeId = InodeId(7);

    fn attr(version: u64) -> pb::Attr {
        let kind = FileKind::Directory.into();
        pb::Attr { inode: FOLDER.0, kind, version, ..Default::default() }
    }

    fn file(inode: u64) -> Name {
        Name::Is { inode: InodeId(inode), kind: FileKind::Regular }
    }

    #[test]
    fn of_a_new_folder_all_is_known() {
        let mut folders = Folders::default();
        folders.made(&attr(1));
        assert_eq!(folders.name(FOLDER, b"a"), Some(Name::Absent));
        folders.changed(&attr(2), &[(b"a", file(9))]);
        assert_eq!(folders.name(FOLDER, b"a"), Some(file(9)));
        folders.changed(&attr(3), &[(b"a", Name::Absent)]);
        assert_eq!((folders.name(FOLDER, b"a"), folders.names), (Some(Name::Absent), 0));
        folders.learn(&attr(2));
        assert_eq!(folders.name(FOLDER, b"b"), Some(Name::Absent), "an older answer");
    }

    #[test]
    fn a_change_of_somebody_else_leaves_no_name_known() {
        let mut folders = Folders::default();
        folders.learn(&attr(5));
        assert_eq!(folders.name(FOLDER, b"a"), None);
        folders.learn_name(FOLDER, 5, b"a", Name::Absent);
        folders.learn_name(FOLDER, 4, b"b", Name::Absent);
        assert_eq!(folders.name(FOLDER, b"a"), Some(Name::Absent));
        assert_eq!(folders.name(FOLDER, b"b"), None, "said of an earlier version");
        folders.changed(&attr(7), &[(b"c", file(3))]);
        assert_eq!(folders.name(FOLDER, b"a"), None, "the sixth was not ours");
        assert_eq!(folders.attr(FOLDER).unwrap().version, 7);
        folders.learn(&attr(9));
        assert_eq!((folders.name(FOLDER, b"c"), folders.names), (None, 0));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut folders = Folders::default();
        for inode in 0..FOLDERS_MAX as u64 + 1 {
            folders.learn(&pb::Attr { inode, ..attr(1) });
        }
        assert_eq!(folders.known.len(), 1);
    }
}

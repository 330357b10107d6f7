//! What this client knows of folders: their attributes and names, as long as it holds their callbacks.
//!
//! Each folder is known in one version. Whoever asks must compare it with the version whose callback is
//! held: what was learnt from an answer that an invalidation overtook is then not taken for the truth. A
//! version that does not follow the one before by a change of this client leaves nothing known of the names.
//! Attributes of what they name are kept beside, each valid in the version whose callback is held.
//!
//! Who looks up one name after the other will look up the next: then whole pages of the folder are asked for
//! ahead, as long as enough of what came before was used.
//!
//! Names are kept as fingerprints of 128 bits under a key of this process (SipHash), so that many have room and
//! nobody can make one that is taken for another.

use std::collections::BTreeMap;

use ff2_proto::{
    InodeId,
    pb::{self, FileKind},
};
use siphasher::sip128::{Hasher128, SipHasher24};

/// Folders that are known; all are forgotten for a new one beyond.
const FOLDERS_MAX: usize = 4_096;
/// Names of all folders together, some 50 bytes each; all are forgotten for a new one beyond.
const NAMES_MAX: usize = 2_097_152;
/// Attributes of files: some megabytes.
const ATTRS_MAX: usize = 65_536;
/// Names that are looked up before any is asked for ahead.
const AHEAD_AFTER: u32 = 8;
/// Of the names of earlier pages one in so many must have been used.
const AHEAD_USED: u32 = 4;

#[derive(Debug, Default)]
pub struct Folders {
    known: BTreeMap<InodeId, Folder>,
    names: usize,
    key: [u64; 2],
    /// Of what is no folder.
    attrs: BTreeMap<InodeId, pb::Attr>,
}

#[derive(Debug)]
struct Folder {
    attr: pb::Attr,
    /// Names that are not listed are not there.
    is_complete: bool,
    names: BTreeMap<Fingerprint, Name>,
    ahead: Ahead,
}

type Fingerprint = u128;

/// Pages that are asked for ahead.
#[derive(Clone, Copy, Debug, Default)]
struct Ahead {
    looked_up: u32,
    after: u64,
    is_on_its_way: bool,
    is_over: bool,
    named: u32,
    used: u32,
    /// All pages so far were of this version.
    whole: Option<u64>,
}

/// A page of a folder.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Of the folder.
    pub version: u64,
    /// The cookie behind which it begins.
    pub after: u64,
    pub names: usize,
    /// Cookie of the last one.
    pub last: u64,
    pub is_end: bool,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Absent,
    Is { inode: InodeId, kind: FileKind },
}

impl Folders {
    /// `key`: random, and of nobody else.
    pub fn new(key: [u64; 2]) -> Self {
        Self { key, ..Self::default() }
    }

    fn fingerprint(&self, name: &[u8]) -> Fingerprint {
        let mut hash = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        std::hash::Hasher::write(&mut hash, name);
        hash.finish128().as_u128()
    }

    /// Of a folder or of what one names.
    pub fn attr(&self, inode: InodeId) -> Option<&pb::Attr> {
        let folder = self.known.get(&inode).map(|folder| &folder.attr);
        folder.or_else(|| self.attrs.get(&inode))
    }

    pub fn name(&self, folder: InodeId, name: &[u8]) -> Option<Name> {
        let folder = self.known.get(&folder)?;
        let named = folder.names.get(&self.fingerprint(name)).copied();
        named.or_else(|| folder.is_complete.then_some(Name::Absent))
    }

    /// Whether it is known that nothing is in a folder.
    pub fn is_empty(&self, folder: InodeId) -> bool {
        let folder = self.known.get(&folder);
        folder.is_some_and(|folder| folder.is_complete && folder.names.is_empty())
    }

    /// The namespace said this, with a callback. An older answer changes nothing.
    pub fn learn(&mut self, attr: &pb::Attr) {
        if attr.kind() != FileKind::Directory {
            if self.attrs.len() >= ATTRS_MAX {
                self.attrs.clear();
            }
            self.attrs.insert(InodeId(attr.inode), *attr);
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
        self.make_room();
        let names: Vec<(Fingerprint, Name)> =
            names.iter().map(|(name, is)| (self.fingerprint(name), *is)).collect();
        let Some(folder) = self.known.get_mut(&InodeId(attr.inode)) else { return };
        if folder.attr.version + 1 != attr.version {
            return self.learn(attr);
        }
        folder.attr = *attr;
        for (name, is) in names {
            folder.know(&mut self.names, name, is);
        }
    }

    /// This client read it, which changes its version for nobody.
    pub fn accessed(&mut self, inode: InodeId, at_ns: i64) {
        let folder = self.known.get_mut(&inode).map(|folder| &mut folder.attr);
        if let Some(attr) = folder.or_else(|| self.attrs.get_mut(&inode)) {
            attr.atime_ns = attr.atime_ns.max(at_ns);
        }
    }

    /// What the namespace said of a name, in this version of the folder.
    pub fn learn_name(&mut self, folder: InodeId, version: u64, name: &[u8], is: Name) {
        self.make_room();
        let name = self.fingerprint(name);
        if let Some(folder) = self.known.get_mut(&folder)
            && folder.attr.version == version
        {
            folder.know(&mut self.names, name, is);
        }
    }

    /// A name was asked for, and is there. The cookie behind which a page is to be asked for ahead, if one
    /// is: say with [`Folders::looked_ahead`] when it came.
    pub fn looked_up(&mut self, folder: InodeId) -> Option<u64> {
        let ahead = &mut self.known.get_mut(&folder)?.ahead;
        ahead.looked_up += 1;
        let is_time = ahead.looked_up >= AHEAD_AFTER && ahead.used * AHEAD_USED >= ahead.named;
        if !is_time || ahead.is_over || std::mem::replace(&mut ahead.is_on_its_way, true) {
            return None;
        }
        Some(ahead.after)
    }

    /// A name that was known was looked up.
    pub fn used(&mut self, folder: InodeId) {
        if let Some(folder) = self.known.get_mut(&folder) {
            folder.ahead.used += 1;
        }
    }

    /// A page's names were just learnt. One that does not go on where this folder's last one ended says
    /// nothing of what lies before it: the folder may have been forgotten meanwhile.
    pub fn page(&mut self, folder: InodeId, page: Page) {
        let Some(folder) = self.known.get_mut(&folder) else { return };
        let ahead = &mut folder.ahead;
        if folder.attr.version != page.version || (page.after != 0 && page.after != ahead.after) {
            return;
        }
        let is_whole = page.after == 0 || ahead.whole == Some(page.version);
        ahead.whole = is_whole.then_some(page.version);
        ahead.after = page.last;
        ahead.named = ahead.named.saturating_add(u32::try_from(page.names).unwrap_or(u32::MAX));
        ahead.is_over = page.is_end;
        if page.is_end && is_whole && !folder.is_complete {
            folder.is_complete = true;
            self.names -= folder.names.len();
            folder.names.retain(|_, is| *is != Name::Absent);
            self.names += folder.names.len();
        }
    }

    /// The page that was asked for ahead came, or (`failed`) did not.
    pub fn looked_ahead(&mut self, folder: InodeId, failed: bool) {
        if let Some(folder) = self.known.get_mut(&folder) {
            folder.ahead.is_on_its_way = false;
            folder.ahead.is_over |= failed;
            // If it was of another version, not at once again.
            folder.ahead.looked_up = 0;
        }
    }

    pub fn forget(&mut self, folder: InodeId) {
        self.attrs.remove(&folder);
        if let Some(folder) = self.known.remove(&folder) {
            self.names -= folder.names.len();
        }
    }

    pub fn forget_all(&mut self) {
        *self = Self::new(self.key);
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
        Self { attr, is_complete: false, names: BTreeMap::new(), ahead: Ahead::default() }
    }

    fn know(&mut self, names: &mut usize, name: Fingerprint, is: Name) {
        if is == Name::Absent && self.is_complete {
            *names -= usize::from(self.names.remove(&name).is_some());
        } else {
            *names += usize::from(self.names.insert(name, is).is_none());
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
    fn what_was_read_stays_read() {
        let mut folders = Folders::new([1, 2]);
        folders.learn(&attr(5));
        folders.learn(&pb::Attr { inode: 70, kind: FileKind::Regular.into(), ..attr(5) });
        for inode in [FOLDER, InodeId(70), InodeId(71)] {
            folders.accessed(inode, 900);
            folders.accessed(inode, 800);
        }
        assert_eq!(folders.attr(FOLDER).unwrap().atime_ns, 900);
        assert_eq!(folders.attr(InodeId(70)).unwrap().atime_ns, 900);
        assert_eq!(folders.attr(InodeId(71)), None);
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
    fn a_folder_is_known_to_be_empty_when_all_its_names_went() {
        let mut folders = Folders::default();
        folders.learn(&attr(1));
        assert!(!folders.is_empty(FOLDER), "nobody listed it");
        folders.learn_name(FOLDER, 1, b"gone", Name::Absent);
        folders.learn_name(FOLDER, 1, b"a", file(9));
        folders.page(FOLDER, page(1, 0, 1, true));
        assert!(!folders.is_empty(FOLDER));
        folders.changed(&attr(2), &[(b"a", Name::Absent)]);
        assert!(folders.is_empty(FOLDER));
    }

    #[test]
    fn names_are_known_up_to_a_bound_and_then_none_is() {
        let mut folders = Folders::new([5, 6]);
        folders.made(&attr(1));
        let name = |number: u64| number.to_string().into_bytes();
        for number in 1..=NAMES_MAX as u64 {
            folders.changed(&attr(number + 1), &[(&name(number), file(100 + number))]);
        }
        let many = NAMES_MAX as u64;
        assert_eq!(folders.names, NAMES_MAX);
        assert_eq!(folders.name(FOLDER, &name(1)), Some(file(101)));
        assert_eq!(folders.name(FOLDER, &name(many)), Some(file(100 + many)));
        assert_eq!(folders.name(FOLDER, &name(many + 1)), Some(Name::Absent));
        let one_more: &[(&[u8], Name)] = &[(b"more", file(9))];
        folders.changed(&attr(many + 2), one_more);
        assert_eq!((folders.name(FOLDER, &name(1)), folders.names), (None, 0));
        assert_eq!(folders.key, [5, 6]);
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
    fn who_looks_up_many_names_gets_the_next_ahead() {
        let mut folders = Folders::default();
        folders.learn(&attr(1));
        let asked =
            |folders: &mut Folders| (0..AHEAD_AFTER).find_map(|_| folders.looked_up(FOLDER));
        for _ in 1..AHEAD_AFTER {
            assert_eq!(folders.looked_up(FOLDER), None);
        }
        assert_eq!(folders.looked_up(FOLDER), Some(0));
        assert_eq!(asked(&mut folders), None, "it is on its way");
        folders.page(FOLDER, page(1, 0, 102, false));
        folders.looked_ahead(FOLDER, false);
        assert_eq!(asked(&mut folders), None, "none of it was used");
        (0..25).for_each(|_| folders.used(FOLDER));
        assert_eq!(asked(&mut folders), Some(102));
        folders.page(FOLDER, page(1, 102, 103, true));
        folders.looked_ahead(FOLDER, false);
        assert_eq!(folders.name(FOLDER, b"x"), Some(Name::Absent), "all pages were of one version");
        assert_eq!(asked(&mut folders), None, "there is nothing behind it");
        folders.learn(&attr(6));
        assert_eq!(asked(&mut folders), Some(0));
        folders.looked_ahead(FOLDER, true);
        assert_eq!(asked(&mut folders), None, "whoever may not list it");
    }

    #[test]
    fn a_page_says_nothing_of_those_that_are_forgotten() {
        let mut folders = Folders::default();
        folders.learn(&attr(4));
        folders.page(FOLDER, page(4, 0, 50, false));
        // Somebody changed it, or there was no room: its first page is not known any more.
        for version in [5, 4] {
            folders.forget(FOLDER);
            folders.learn(&attr(version));
            folders.page(FOLDER, page(version, 50, 60, true));
            assert_eq!(folders.name(FOLDER, b"x"), None, "version {version}");
        }
        folders.page(FOLDER, page(3, 0, 60, true));
        assert_eq!(folders.name(FOLDER, b"x"), None, "of an earlier version");
        folders.page(FOLDER, page(4, 0, 60, true));
        assert_eq!(folders.name(FOLDER, b"x"), Some(Name::Absent));
    }

    fn page(version: u64, after: u64, last: u64, is_end: bool) -> Page {
        Page { version, after, names: 100, last, is_end }
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

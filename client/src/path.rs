//! The same by path, for programs without a mount. Paths are absolute; names are bytes.

use ff2_proto::{Code, InodeId, ROOT_INODE, Status, pb, pb::FileKind};

use crate::{Caller, Client, File, NodeKind, OpenHow, RenameHow, Result};

/// Entries asked for in one page of a directory.
const PAGE: u32 = 512;

impl Client {
    /// Attributes of what a path names, symlinks followed.
    pub async fn stat(&self, path: impl AsRef<[u8]>) -> Result<pb::Attr> {
        self.me().resolve(ROOT_INODE, path.as_ref(), true).await
    }

    /// Attributes of what a path names; of a symlink itself if it names one.
    pub async fn stat_link(&self, path: impl AsRef<[u8]>) -> Result<pb::Attr> {
        self.me().resolve(ROOT_INODE, path.as_ref(), false).await
    }

    /// How a file's chunks are laid out, or what a directory's new files inherit.
    pub async fn layout(&self, path: impl AsRef<[u8]>) -> Result<Option<pb::Layout>> {
        Ok(self.stat(path).await?.layout)
    }

    pub async fn stat_fs(&self) -> Result<pb::StatFs> {
        self.me().stat_fs(self.root()).await
    }

    /// Opens a file; with [`OpenHow::create`] makes it if there is none.
    pub async fn open(&self, path: impl AsRef<[u8]>, how: OpenHow) -> Result<File> {
        self.me().open_path(path.as_ref(), how).await
    }

    /// All entries of a directory with their attributes, as they were while they were read.
    pub async fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Vec<pb::Entry>> {
        let directory = self.stat(path).await?;
        self.me().read_dir(InodeId(directory.inode)).await
    }

    pub async fn create_dir(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<pb::Attr> {
        let me = self.me();
        let (parent, name) = me.parent_of(path.as_ref()).await?;
        me.make_node(parent, name, NodeKind::Directory, mode).await
    }

    /// Makes a directory and those above it (mode 0755) that are missing.
    pub async fn create_dir_all(&self, path: impl AsRef<[u8]>) -> Result<pb::Attr> {
        let me = self.me();
        let mut at = me.get_attr(self.root()).await?;
        for name in components(path.as_ref()) {
            let parent = InodeId(at.inode);
            at = match me.resolve(parent, name, true).await {
                Err(failure) if failure.code == Code::NotFound => {
                    match me.make_node(parent, name, NodeKind::Directory, 0o755).await {
                        // Somebody else made it in this moment.
                        Err(failure) if failure.code == Code::Exists => {
                            me.resolve(parent, name, true).await?
                        }
                        made => made?,
                    }
                }
                found => found?,
            };
            if at.kind() != FileKind::Directory {
                let name = String::from_utf8_lossy(name);
                return Err(Status::new(Code::NotDirectory, format!("{name} is no directory")));
            }
        }
        Ok(at)
    }

    pub async fn symlink(
        &self,
        target: impl AsRef<[u8]>,
        path: impl AsRef<[u8]>,
    ) -> Result<pb::Attr> {
        let me = self.me();
        let (parent, name) = me.parent_of(path.as_ref()).await?;
        let kind = NodeKind::Symlink { target: target.as_ref().to_vec() };
        me.make_node(parent, name, kind, 0o777).await
    }

    pub async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let link = self.stat_link(path).await?;
        self.me().read_link(InodeId(link.inode)).await
    }

    /// Removes a file, symlink or other node that is no directory.
    pub async fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let me = self.me();
        let (parent, name) = me.parent_of(path.as_ref()).await?;
        me.unlink(parent, name, false).await
    }

    /// Removes an empty directory.
    pub async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let me = self.me();
        let (parent, name) = me.parent_of(path.as_ref()).await?;
        me.unlink(parent, name, true).await
    }

    pub async fn rename(
        &self,
        from: impl AsRef<[u8]>,
        to: impl AsRef<[u8]>,
        how: RenameHow,
    ) -> Result<()> {
        let me = self.me();
        let (parent, name) = me.parent_of(from.as_ref()).await?;
        let (new_parent, new_name) = me.parent_of(to.as_ref()).await?;
        me.rename(parent, name, new_parent, new_name, how).await
    }
}

impl Caller {
    /// All entries of a directory, page by page.
    pub async fn read_dir(&self, directory: InodeId) -> Result<Vec<pb::Entry>> {
        let mut entries: Vec<pb::Entry> = Vec::new();
        loop {
            let after = entries.last().map_or(0, |entry| entry.cookie);
            let (page, end) = self.read_dir_page(directory, after, PAGE, true).await?;
            let no_more = end || page.is_empty();
            entries.extend(page);
            if no_more {
                return Ok(entries);
            }
        }
    }

    pub async fn open_path(&self, path: &[u8], how: OpenHow) -> Result<File> {
        if how.create.is_none() {
            let found = self.resolve(ROOT_INODE, path, true).await?;
            return self.open(InodeId(found.inode), how).await;
        }
        if !how.exclusive {
            // What is there is opened where a symlink leads to, as open(2) does.
            match self.resolve(ROOT_INODE, path, true).await {
                Ok(found) => return self.open(InodeId(found.inode), how).await,
                Err(failure) if failure.code == Code::NotFound => {}
                Err(failure) => return Err(failure),
            }
        }
        let (parent, name) = self.parent_of(path).await?;
        Ok(self.create(parent, name, how).await?.0)
    }

    /// The directory that holds a path's last name, and the name.
    async fn parent_of<'p>(&self, path: &'p [u8]) -> Result<(InodeId, &'p [u8])> {
        let trimmed = match path.iter().rposition(|byte| *byte != b'/') {
            Some(last) => &path[..=last],
            None => return Err(Status::new(Code::InvalidArgument, "the path names the root")),
        };
        let cut = trimmed.iter().rposition(|byte| *byte == b'/');
        let (above, name) = match cut {
            Some(cut) => (&trimmed[..cut], &trimmed[cut + 1..]),
            None => (&trimmed[..0], trimmed),
        };
        if above.iter().all(|byte| *byte == b'/') {
            return Ok((self.shared.root, name));
        }
        let parent = self.resolve(ROOT_INODE, above, true).await?;
        Ok((InodeId(parent.inode), name))
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_at_slashes() {
        let names: Vec<_> = components(b"//a/b c///d/").collect();
        assert_eq!(names, [&b"a"[..], b"b c", b"d"]);
        assert_eq!(components(b"/").count(), 0);
    }

    #[test]
    fn damaged_paths() {
        let seeds = vec![b"//a/b c///d/".to_vec(), b"/".to_vec(), b"a/../\xff/.".to_vec()];
        ff2_fuzz::target!(seeds, |bytes| {
            let names: Vec<_> = ff2_fuzz::bounded(bytes, || components(bytes).collect());
            assert!(names.iter().all(|name| !name.is_empty() && !name.contains(&b'/')));
            let letters = bytes.iter().filter(|byte| **byte != b'/').count();
            assert_eq!(names.concat().len(), letters, "nothing is lost");
        });
    }
}

//! What the kernel lets a mount set beside the protocol: request sizes and read-ahead.

use std::{fs, io, path::Path};

use ff2_fuse_kernel::{Wanted, flags};

use crate::limits;

/// What makes large requests and parallel work, and what the promises need.
pub(crate) fn wanted() -> Wanted {
    Wanted {
        flags: flags::ASYNC_READ
            | flags::ATOMIC_O_TRUNC
            // Pages of an open file go when its time of change or length turns out to be another.
            | flags::AUTO_INVAL_DATA
            | flags::DO_READDIRPLUS
            | flags::READDIRPLUS_AUTO
            | flags::PARALLEL_DIROPS
            | flags::ASYNC_DIO
            | flags::CACHE_SYMLINKS
            | flags::DIRECT_IO_ALLOW_MMAP
            | flags::POSIX_LOCKS
            | flags::FLOCK_LOCKS
            // The namespace applies the umask: where a directory has a default ACL there is none.
            | flags::POSIX_ACL
            | flags::DONT_MASK
            // Else the kernel asks for `security.capability` with each write.
            | flags::HANDLE_KILLPRIV_V2,
        write_bytes_max: write_bytes(),
        read_ahead_bytes: limits::READ_AHEAD_KB * 1024,
        background_max: limits::BACKGROUND_MAX,
    }
}

/// As many bytes as the administrator allows a request to have.
fn write_bytes() -> u32 {
    let text = fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit").unwrap_or_default();
    let pages: u32 = text.trim().parse().unwrap_or(0);
    pages.saturating_mul(4096).clamp(limits::WRITE_BYTES_MIN, limits::WRITE_BYTES_MAX)
}

/// Raises the read-ahead of a mount above the kernel's 128 KiB; only root may.
pub(crate) fn raise_read_ahead(mount_point: &Path) -> io::Result<()> {
    let Some(device) = device_of(mount_point)? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the mount is not listed"));
    };
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    fs::write(path, limits::READ_AHEAD_KB.to_string())
}

/// `major:minor` of what is mounted on top at this path. Read from the list of mounts: a `stat`
/// would be a request to ourselves.
pub(crate) fn device_of(mount_point: &Path) -> io::Result<Option<String>> {
    let path = fs::canonicalize(mount_point.parent().unwrap_or(Path::new("/")))?
        .join(mount_point.file_name().unwrap_or_default());
    let list = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(find_mount(&list, &path).map(str::to_owned))
}

fn find_mount<'l>(list: &'l str, path: &Path) -> Option<&'l str> {
    let at = |line: &'l str| {
        let mut fields = line.split(' ');
        let device = fields.nth(2)?;
        let place = unescape(fields.nth(1)?);
        (Path::new(&place) == path).then_some(device)
    };
    // The last one lies on top.
    list.lines().filter_map(at).next_back()
}

/// Spaces and the like are octal escapes in the list.
pub(crate) fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_is_found() {
        let list = "21 1 0:20 / /mnt/a rw - tmpfs tmpfs rw\n\
                    22 1 0:55 / /mnt/with\\040space rw - fuse.ff2 ff2 rw\n\
                    23 1 0:56 / /mnt/a rw - fuse.ff2 ff2 rw\n";
        assert_eq!(find_mount(list, Path::new("/mnt/a")), Some("0:56"));
        assert_eq!(find_mount(list, Path::new("/mnt/with space")), Some("0:55"));
        assert_eq!(find_mount(list, Path::new("/mnt")), None);
        assert_eq!(unescape("a\\"), "a\\");
    }

    #[test]
    fn write_requests_are_within_bounds() {
        let bytes = write_bytes();
        assert!((limits::WRITE_BYTES_MIN..=limits::WRITE_BYTES_MAX).contains(&bytes));
    }

    #[test]
    fn damaged_mount_points() {
        let seeds = vec![b"/a\\040b\\134c".to_vec(), "/é\\011".into(), b"\\377\\400\\+7x".to_vec()];
        ff2_fuzz::target!(seeds, |bytes| {
            let field = String::from_utf8_lossy(bytes);
            let shown = ff2_fuzz::bounded(bytes, || unescape(&field));
            assert!(shown.chars().count() <= field.chars().count());
            assert!(field.contains('\\') || shown == field);
        });
    }
}

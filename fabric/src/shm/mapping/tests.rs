use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::*;

fn memory(bytes: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = memfd_create(c"test", flags).unwrap();
    ftruncate(&memory, bytes).unwrap();
    fcntl_add_seals(&memory, seals).unwrap();
    memory
}

fn theirs() -> Theirs {
    let theirs = Theirs::default();
    theirs.grant(3);
    theirs
}

fn span(slab: u32, offset: u32, len: u32) -> Span {
    Span { slab, offset, len }
}

#[test]
fn memory_that_could_shrink_under_us_is_refused() {
    let theirs = theirs();
    let refused = theirs.add(memory(8192, SealFlags::GROW)).unwrap_err();
    assert!(refused.to_string().contains("could shrink"), "{refused}");
    for bytes in [0, SLAB_BYTES as u64 + 4096] {
        let refused = theirs.add(memory(bytes, SealFlags::SHRINK)).unwrap_err();
        assert!(refused.to_string().contains("size"), "{refused}");
    }
    let file = tempfile::tempfile().unwrap();
    assert!(theirs.add(file.into()).is_err(), "a file is no memory");
    theirs.add(memory(8192, SealFlags::SHRINK)).unwrap();
}

#[test]
fn nothing_outside_is_touched() {
    let theirs = theirs();
    theirs.add(memory(8192, SealFlags::SHRINK)).unwrap();
    theirs.push(b"bytes", span(0, 8187, 5)).unwrap();
    let mut read = [0; 5];
    theirs.pull(span(0, 8187, 5), &mut read).unwrap();
    assert_eq!(&read, b"bytes");
    for bad in [span(0, 8188, 5), span(1, 0, 5), span(0, 0, 4), span(0, u32::MAX, u32::MAX)] {
        assert_eq!(theirs.push(b"bytes", bad), Err(FrameError::BulkMisplaced), "{bad:?}");
        assert_eq!(theirs.pull(bad, &mut read), Err(FrameError::BulkMisplaced), "{bad:?}");
    }
}

#[test]
fn slabs_are_bounded() {
    let theirs = Theirs::default();
    let slab = || memory(4096, SealFlags::SHRINK);
    assert!(theirs.add(slab()).is_err(), "nobody has proved anything yet");
    theirs.grant(2);
    theirs.add(slab()).unwrap();
    theirs.add(slab()).unwrap();
    let refused = theirs.add(slab()).unwrap_err();
    assert!(refused.to_string().contains("the 2 slabs"), "{refused}");
}

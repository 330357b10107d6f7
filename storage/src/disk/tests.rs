use std::{fs::File, path::PathBuf};

use super::*;

fn data(dir: &tempfile::TempDir, bytes: u64) -> PathBuf {
    let path = dir.path().join("data");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn filled(bytes: usize, with: u8) -> SharedBuf {
    let mut buf = Buf::unpooled(bytes);
    buf.fill(with);
    buf.freeze()
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_many_requests_find_their_places() {
    for own_thread in [true, false] {
        many_requests(own_thread).await;
    }
}

#[tokio::test]
async fn one_thread_is_enough() {
    many_requests(false).await;
}

async fn many_requests(own_thread: bool) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::open(&data(&dir, 16 << 20), 4, own_thread).unwrap());
    let mut tasks = Vec::new();
    for task in 0u8..32 {
        let disk = disk.clone();
        tasks.push(tokio::spawn(async move {
            let at = u64::from(task) * 65_536;
            let parts = (0..8)
                .map(|part| WritePart { position: at + part * 8192, bytes: filled(8192, task) })
                .collect();
            disk.write(parts).await.unwrap();
            disk.sync().await.unwrap();
            let parts = vec![
                ReadPart { position: at + 32_768, at: 0, length: 32_768 },
                ReadPart { position: at, at: 32_768, length: 32_768 },
            ];
            let buf = disk.read(Buf::unpooled(65_536), parts).await.unwrap();
            assert!(buf.iter().all(|byte| *byte == task));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // A request's place is free a moment after its answer.
    for _ in 0..100 {
        if disk.stats().waiting == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let stats = disk.stats();
    assert_eq!((stats.writes, stats.write_bytes), (256, 2 << 20));
    assert_eq!((stats.reads, stats.read_bytes), (64, 2 << 20));
    assert!(stats.syncs >= 1 && stats.syncs <= 32, "{stats:?}");
    assert_eq!((stats.errors, stats.waiting), (0, 0));
}

#[tokio::test]
async fn pooled_buffers_ride_registered_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&data(&dir, 1 << 20), 8, true).unwrap();
    let pool = ff2_fabric::BufPool::new(1 << 20);
    for round in 0..3u8 {
        let mut bytes = pool.get(65_536).await;
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = (at / 4096) as u8 ^ round;
        }
        let bytes = bytes.freeze();
        let parts = [(0, 8192..65_536), (57_344, 0..8192)]
            .map(|(position, range)| WritePart { position, bytes: bytes.slice(range) });
        disk.write(parts.into()).await.unwrap();
        let part = ReadPart { position: 4096, at: 8192, length: 57_344 };
        let read = disk.read(pool.get(65_536).await, vec![part]).await.unwrap();
        assert_eq!(read[8192..57_344], bytes[12_288..61_440], "offsets inside a slab are kept");
        assert_eq!(disk.stats().registered, 3 * (u64::from(round) + 1));
    }
    let part = ReadPart { position: 0, at: 0, length: 4096 };
    let read = disk.read(Buf::unpooled(4096), vec![part]).await.unwrap();
    assert!(read.iter().all(|byte| *byte == 2 ^ 2));
    disk.write(vec![WritePart { position: 0, bytes: filled(4096, 1) }]).await.unwrap();
    assert_eq!(disk.stats().registered, 9);
}

#[tokio::test]
async fn errors_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&data(&dir, 1 << 20), 8, true).unwrap();
    let beyond = ReadPart { position: 1 << 20, at: 0, length: 4096 };
    let error = disk.read(Buf::unpooled(4096), vec![beyond]).await.unwrap_err();
    assert_eq!(error, DiskError::Failed(libc::EIO));
    assert!(!disk.is_failed(), "a bad read tells nothing of the rest");
    assert_eq!(disk.stats().errors, 1);
    let full = Disk::open(Path::new("/dev/full"), 8, true);
    // A character device has no size and no direct I/O: the write is what matters.
    if let Ok(full) = full {
        let part = WritePart { position: 0, bytes: filled(4096, 1) };
        assert_eq!(full.write(vec![part]).await, Err(DiskError::NoSpace));
        assert!(!full.is_failed(), "space comes back");
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_harm() {
    for own_thread in [true, false] {
        go_away(own_thread).await;
    }
}

async fn go_away(own_thread: bool) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&data(&dir, 1 << 20), 2, own_thread).unwrap();
    for _ in 0..50 {
        let part = ReadPart { position: 0, at: 0, length: 65_536 };
        let read = disk.read(Buf::unpooled(65_536), vec![part; 4]);
        let _ = tokio::time::timeout(std::time::Duration::from_micros(20), read).await;
    }
    disk.sync().await.unwrap();
    drop(disk);
}

#[tokio::test]
async fn a_punched_range_takes_no_space() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = data(&dir, 1 << 20);
    let disk = Disk::open(&path, 2, true).unwrap();
    disk.write(vec![WritePart { position: 0, bytes: filled(1 << 20, 1) }]).await.unwrap();
    disk.sync().await.unwrap();
    let before = path.metadata().unwrap().blocks();
    if disk.punch(65_536, 1 << 19).await.is_ok() {
        assert!(path.metadata().unwrap().blocks() <= before - 1024);
    }
}

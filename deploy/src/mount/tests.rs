use super::*;
use crate::bytes::ByteSize;

fn cluster() -> (tempfile::TempDir, Folder, ClusterFile) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(resolve(dir.path()).unwrap().join("cluster"));
    (dir, folder, ClusterFile::new("c".into(), 1, ByteSize(1)))
}

#[test]
fn a_place_where_something_is_mounted_is_refused_before_it_is_entered() {
    let (_dir, folder, mut file) = cluster();
    let error = enter(&folder, &mut file, Path::new("/proc")).unwrap_err().to_string();
    assert!(error.contains("type proc") && error.contains("unmount it"), "{error}");
    assert!(file.processes.is_empty());
    // Entered once, and then a stranger came.
    let mount = Process { mount_point: Some("/proc".into()), ..Process::new(Role::Fuse, 0) };
    file.processes.push(mount);
    assert!(enter(&folder, &mut file, Path::new("/proc")).is_err());
}

#[tokio::test]
async fn a_strangers_file_system_survives_taking_the_mount_down() {
    let (_dir, folder, _file) = cluster();
    let name = "fuse/0".parse().unwrap();
    for lazy in [false, true] {
        take_down(&folder, name, Path::new("/proc"), lazy).await.unwrap();
        assert_eq!(state(Path::new("/proc")), MountState::Foreign("proc".into()));
    }
}

#[tokio::test]
async fn what_was_entered_can_be_taken_back() {
    let (dir, folder, mut file) = cluster();
    let (old, new) = (resolve(dir.path()).unwrap(), folder.path().join("mnt"));
    let first = enter(&folder, &mut file, &old).unwrap();
    let second = enter(&folder, &mut file, &new).unwrap();
    assert_eq!((first.index, second.index), (0, 1));
    assert_eq!(enter(&folder, &mut file, &new).unwrap(), second, "entered once only");
    fs::create_dir_all(&new).unwrap();
    take_back(&folder, &mut file, first).await.unwrap();
    take_back(&folder, &mut file, second).await.unwrap();
    assert!(old.exists() && !new.exists(), "only the folder that was made is removed");
    assert!(folder.load().unwrap().processes.is_empty());
}

#[test]
fn a_made_mount_point_that_others_use_stays() {
    let (dir, _folder, _file) = cluster();
    let path = dir.path().join("mnt");
    let process = Process {
        mount_point: Some(path.clone()),
        made_mount_point: true,
        ..Process::new(Role::Fuse, 0)
    };
    remove_made(&process).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("mine"), "x").unwrap();
    remove_made(&process).unwrap();
    assert!(path.exists());
}

use super::*;

#[test]
fn names_are_read_and_written() {
    for text in ["metad/0", "storaged/12", "fuse/1", "schedd/2", "agentd/0"] {
        assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
    }
    for bad in ["metad", "metad/", "metad/x", "meta/0", "storaged/-1", ""] {
        let error = bad.parse::<Name>().unwrap_err();
        assert!(error.contains("storaged/2"), "{error}");
    }
}

fn file() -> ClusterFile {
    let mut file = ClusterFile::new("c".into(), 3, ByteSize(1 << 30));
    let ports = Process { port: 7000, admin_port: 7001, ..Process::new(Role::Metad, 0) };
    file.processes.push(ports);
    file
}

#[test]
fn the_file_survives_saving_and_names_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().join("a/b"));
    assert!(folder.read().unwrap().is_none());
    assert!(folder.load().unwrap_err().to_string().contains("ff2ctl up"));
    let _lock = folder.lock().unwrap();
    assert!(folder.lock().unwrap_err().to_string().contains("another ff2ctl"));
    folder.save(&file()).unwrap();
    assert_eq!(folder.load().unwrap(), file());
    let missing = file().find("storaged/3".parse().unwrap()).unwrap_err().to_string();
    assert!(missing.contains("it has metad/0"), "{missing}");
    assert_eq!(file().admins(), ["127.0.0.1:7001"]);
}

#[test]
fn a_file_of_another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path().to_owned());
    folder.save(&ClusterFile { format: 9, ..file() }).unwrap();
    assert!(folder.load().unwrap_err().to_string().contains("format 9"));
}

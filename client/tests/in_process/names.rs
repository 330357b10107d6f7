//! Names, directories and users.

use ff2_client::{Client, ClientOptions, Code, OpenHow, ROOT_INODE, RenameHow, pb};

use crate::{
    connect,
    fake::{CLUSTER_ID, Fake},
    pattern,
};

#[tokio::test]
async fn a_tree_is_made_listed_renamed_and_removed() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    client.create_dir_all("/a/b/c").await.unwrap();
    client.create_dir_all("/a/b/c").await.unwrap();
    for n in 0..700 {
        client
            .me()
            .make_node(
                ff2_client::InodeId(client.stat("/a/b").await.unwrap().inode),
                format!("n{n}").as_bytes(),
                ff2_client::NodeKind::Regular,
                0o600,
            )
            .await
            .unwrap();
    }
    let entries = client.read_dir("/a/b").await.unwrap();
    assert_eq!(entries.len(), 701, "several pages, each name once");
    client.symlink("b/c", "/a/link").await.unwrap();
    assert_eq!(client.read_link("/a/link").await.unwrap(), b"b/c");
    assert_eq!(client.stat("/a/link").await.unwrap().kind(), pb::FileKind::Directory);
    assert_eq!(client.stat_link("/a/link").await.unwrap().kind(), pb::FileKind::Symlink);
    let same = client.rename("/a/b/n1", "/a/b/n2", RenameHow::NoReplace).await.unwrap_err();
    assert_eq!(same.code, Code::Exists);
    client.rename("/a/b/n1", "/moved", RenameHow::Replace).await.unwrap();
    assert_eq!(client.stat("/a/b/n1").await.unwrap_err().code, Code::NotFound);
    client.remove_file("/moved").await.unwrap();
    assert_eq!(client.remove_dir("/a/b").await.unwrap_err().code, Code::NotEmpty);
    client.remove_dir("/a/b/c/").await.unwrap();
    assert_eq!(client.stat_fs().await.map(|_| ()), Ok(()));
}

#[tokio::test]
async fn opening_follows_links_and_creating_is_exclusive_if_asked() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    client.open("/target", OpenHow::write().create(0o644)).await.unwrap().close().await.unwrap();
    client.symlink("target", "/link").await.unwrap();
    let file = client.open("/link", OpenHow::write().create(0o644)).await.unwrap();
    assert_eq!(file.inode().0, client.stat("/target").await.unwrap().inode);
    let refused = client.open("/link", OpenHow::write().create_new(0o644)).await.unwrap_err();
    assert_eq!(refused.code, Code::Exists);
    assert_eq!(client.open("/", OpenHow::read()).await.unwrap_err().code, Code::IsDirectory);
}

#[tokio::test]
async fn callers_have_their_own_rights() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let user = client.caller(pb::Credentials { uid: 7, gid: 7, groups: vec![] });
    let refused = user.create(ROOT_INODE, b"mine", OpenHow::write()).await.unwrap_err();
    assert_eq!(refused.code, Code::AccessDenied);
    let options = ClientOptions::new(fake.metads(), fake.token(7, false), CLUSTER_ID);
    let own = Client::connect(options).await.unwrap();
    assert_eq!(own.create_dir("/mine", 0o755).await.unwrap_err().code, Code::AccessDenied);
}

#[tokio::test]
async fn a_wrong_token_or_volume_is_told_at_once() {
    let fake = Fake::start().await;
    let other = Fake::start().await;
    let options = ClientOptions::new(fake.metads(), other.token(0, true), CLUSTER_ID);
    let refused = Client::connect(options).await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated, "{refused}");
    let options = ClientOptions::new(fake.metads(), fake.token(0, true), CLUSTER_ID);
    let missing = Client::connect(options.volume("nope")).await.unwrap_err();
    assert_eq!(missing.code, Code::NotFound);
    assert!(missing.detail.contains("default"), "it names the volumes there are: {missing}");
}

#[tokio::test]
async fn files_go_in_and_out_with_progress() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let folder = tempfile::tempdir().unwrap();
    for length in [0, 1, 5 << 20] {
        let bytes = pattern(length, 9);
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, &bytes).unwrap();
        let mut last = ff2_client::Progress::default();
        let put = client.put(&from, "/copy", 0o640, |progress| last = progress).await.unwrap();
        assert_eq!((put, last.done_bytes, last.total_bytes), (length as u64, put, put));
        let got = client.get("/copy", &to, |_| {}).await.unwrap();
        assert_eq!(got, put);
        assert!(std::fs::read(&to).unwrap() == bytes);
    }
    let missing = client.put(&folder.path().join("none"), "/copy", 0o640, |_| {}).await;
    assert_eq!(missing.unwrap_err().code, Code::NotFound);
}

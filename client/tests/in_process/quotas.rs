//! Quotas: what programs are told before the namespace is never goes beyond them by more than is promised.

use std::sync::atomic::Ordering::SeqCst;

use ff2_client::{AttrChange, Caller, Client, Code, InodeId, NodeKind, OpenHow};
use ff2_client_core::limits::FORESEEN_IN_QUOTA_MAX;
use ff2_proto::{pb, pb::ns_request::Op};

use crate::{
    connect,
    fake::Fake,
    journal::{coherent, own_folder},
};

async fn limit(fake: &Fake, folder: InodeId, bytes: Option<u64>, inodes: Option<u64>) {
    let key = Some(pb::QuotaKey { of: Some(pb::quota_key::Of::Inode(folder.0)) });
    let told = |max| Some(pb::QuotaLimit { max });
    let (bytes, inodes) = (told(bytes), told(inodes));
    let op = pb::SetQuotaOp { key, bytes, inodes, ..Default::default() };
    fake.lead(Op::SetQuota(op)).await.unwrap();
}

async fn make(at: &Caller, folder: InodeId, name: &str) -> ff2_client::Result<()> {
    at.find(folder, name.as_bytes()).await.unwrap();
    let how = OpenHow::write().create(0o644);
    let (file, ..) = at.create(folder, name.as_bytes(), how).await?;
    file.close().await
}

/// Makes files until it is refused; how many there were.
async fn fill(client: &Client, folder: InodeId) -> u64 {
    let me = client.me();
    for number in 0.. {
        match make(&me, folder, &format!("f{number}")).await {
            Ok(()) => {}
            Err(failure) => {
                assert_eq!(failure.code, Code::QuotaExceeded, "{failure}");
                return number;
            }
        }
    }
    unreachable!("no quota is endless")
}

/// A folder whose names are all known here.
async fn inner(client: &Client, folder: InodeId) -> InodeId {
    let made = client.me().make_node(folder, b"inner", NodeKind::Directory, 0o755).await.unwrap();
    InodeId(made.inode)
}

#[tokio::test]
async fn one_client_makes_exactly_what_is_allowed_and_mostly_foresees_it() {
    let fake = Fake::start().await;
    let client = coherent(&fake).await;
    let folder = own_folder(&fake, &client, b"d").await;
    limit(&fake, folder, None, Some(1_000)).await;
    let inner = inner(&client, folder).await;
    let before = fake.state.batches.load(SeqCst);
    assert_eq!(fill(&client, inner).await, 998, "the folders are two");
    let batches = fake.state.batches.load(SeqCst) - before;
    client.sync_names().await.unwrap();
    assert_eq!((fake.used(folder.0), client.lost_changes()), ((1_000, 0), 0));
    assert!((1..400).contains(&batches), "{batches} requests for 1,996 changes");
    // Room is found again.
    let me = client.me();
    me.unlink(inner, b"f7", false).await.unwrap();
    make(&me, inner, "another").await.unwrap();
    assert_eq!(make(&me, inner, "more").await.unwrap_err().code, Code::QuotaExceeded);
}

#[tokio::test]
async fn several_clients_lose_nothing_and_go_no_further_than_is_promised() {
    let fake = Fake::start().await;
    let (a, b) = (coherent(&fake).await, coherent(&fake).await);
    let outer = own_folder(&fake, &a, b"d").await;
    limit(&fake, outer, None, Some(1_500)).await;
    let of_a = a.me().make_node(outer, b"a", NodeKind::Directory, 0o755).await.unwrap();
    let of_b = b.me().make_node(outer, b"b", NodeKind::Directory, 0o755).await.unwrap();
    let (of_a, of_b) = (InodeId(of_a.inode), InodeId(of_b.inode));
    let (made_a, made_b) = tokio::join!(fill(&a, of_a), fill(&b, of_b));
    for client in [&a, &b] {
        client.sync_names().await.unwrap();
        assert_eq!(client.lost_changes(), 0);
    }
    let (inodes, _) = fake.used(outer.0);
    assert_eq!(inodes, made_a + made_b + 3, "all that was told is there");
    assert!((1_500..=1_500 + FORESEEN_IN_QUOTA_MAX).contains(&inodes), "{inodes} of 1500");
}

#[tokio::test]
async fn a_file_of_chunks_grows_to_the_limit_and_stops() {
    let fake = Fake::start().await;
    let client = connect(&fake).await;
    let me = client.me();
    let folder = me.make_node(client.root(), b"d", NodeKind::Directory, 0o755).await.unwrap();
    let folder = InodeId(folder.inode);
    const MAX: u64 = (5 << 20) + 12_345;
    limit(&fake, folder, Some(MAX), None).await;
    let how = OpenHow::write().create(0o644);
    let (file, ..) = me.create(folder, b"f", how).await.unwrap();
    let bytes = vec![7; 100_000];
    let mut written = 0;
    let failure = loop {
        match file.write_at(written, &bytes).await {
            Ok(count) => written += count as u64,
            Err(failure) => break failure,
        }
        assert!(written <= MAX);
    };
    assert_eq!((failure.code, written), (Code::QuotaExceeded, MAX), "to the last byte");
    assert!(!file.write_behind(written, &bytes));
    assert_eq!(file.write_at(0, &bytes).await.unwrap(), bytes.len(), "what is there can change");
    assert_eq!(file.extend_to(MAX + 1).await.unwrap_err().code, Code::QuotaExceeded);
    assert_eq!(file.truncate(MAX + 1).await.unwrap_err().code, Code::QuotaExceeded);
    file.truncate(1_000).await.unwrap();
    assert_eq!(file.write_at(1_000, &bytes).await.unwrap(), bytes.len());
    file.close().await.unwrap();
    assert_eq!(fake.used(folder.0), (2, 101_000));
}

#[tokio::test]
async fn small_files_are_refused_their_bytes_when_they_are_written() {
    let fake = Fake::start().await;
    let client = coherent(&fake).await;
    let folder = own_folder(&fake, &client, b"d").await;
    limit(&fake, folder, Some(20_000), None).await;
    let me = client.me();
    let mut sum = 0;
    for number in 0..4_u64 {
        let how = OpenHow::write().create(0o644);
        let name = format!("f{number}").into_bytes();
        me.find(folder, &name).await.unwrap();
        let (file, ..) = me.create(folder, &name, how).await.unwrap();
        match file.write_at(0, &[1; 8_000]).await {
            Ok(count) => sum += count as u64,
            Err(failure) => assert_eq!(failure.code, Code::QuotaExceeded),
        }
        file.close().await.unwrap();
    }
    client.sync_names().await.unwrap();
    assert_eq!((sum, fake.used(folder.0)), (20_000, (5, 20_000)));
}

#[tokio::test]
async fn small_files_far_from_the_limit_are_foreseen_and_grow_beyond_that() {
    let fake = Fake::start().await;
    let client = coherent(&fake).await;
    let folder = own_folder(&fake, &client, b"d").await;
    limit(&fake, folder, Some(1 << 30), Some(100_000)).await;
    let inner = inner(&client, folder).await;
    let (me, before) = (client.me(), fake.state.batches.load(SeqCst));
    for number in 0..300_u64 {
        let how = OpenHow::write().create(0o644);
        let name = format!("f{number}").into_bytes();
        me.find(inner, &name).await.unwrap();
        let (file, ..) = me.create(inner, &name, how).await.unwrap();
        let bytes = vec![2; if number % 100 == 0 { 50_000 } else { 3_000 }];
        assert_eq!(file.write_at(0, &bytes).await.unwrap(), bytes.len());
        file.close().await.unwrap();
    }
    client.sync_names().await.unwrap();
    let batches = fake.state.batches.load(SeqCst) - before;
    assert!(batches < 150, "{batches} requests for 600 changes");
    assert_eq!(fake.used(folder.0), (302, 297 * 3_000 + 3 * 50_000));
    assert_eq!(client.lost_changes(), 0);
}

#[tokio::test]
async fn an_owner_without_room_is_given_nothing() {
    let fake = Fake::start().await;
    let client = coherent(&fake).await;
    let folder = own_folder(&fake, &client, b"d").await;
    let key = Some(pb::QuotaKey { of: Some(pb::quota_key::Of::Uid(7)) });
    let (bytes, inodes) = (None, Some(pb::QuotaLimit { max: Some(600) }));
    let op = pb::SetQuotaOp { key, bytes, inodes, ..Default::default() };
    fake.lead(Op::SetQuota(op)).await.unwrap();
    fake.lead(Op::CountQuota(pb::CountQuotaOp { key, counted: 0 })).await.unwrap();
    let me = client.me();
    let mut given = 0;
    for number in 0..800 {
        let name = format!("f{number}");
        make(&me, folder, &name).await.unwrap();
        let inode = me.lookup(folder, name.as_bytes()).await.unwrap().inode;
        let change = AttrChange { uid: Some(7), ..AttrChange::default() };
        match me.set_attr(InodeId(inode), change).await {
            Ok(_) => given += 1,
            Err(failure) => assert_eq!(failure.code, Code::QuotaExceeded),
        }
    }
    client.sync_names().await.unwrap();
    assert_eq!((given, client.lost_changes()), (600, 0));
}

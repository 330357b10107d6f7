//! Changes that programs are told of before the namespace is: two coherent clients see one tree.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use ff2_client::{
    AttrChange, Caller, Client, ClientOptions, Code, InodeId, NodeKind, OpenHow, RenameHow,
};
use ff2_proto::ROOT_INODE;

use crate::{fake::Fake, pattern, until};

const ROOT: InodeId = ROOT_INODE;

/// A client that caches, and a task that drops what it is told.
pub(crate) async fn coherent(fake: &Fake) -> Client {
    let token = fake.token(0, true);
    let options = ClientOptions::new(fake.metads(), token, crate::CLUSTER_ID);
    let (client, mut invalidations) = Client::connect_coherent(options).await.unwrap();
    tokio::spawn(async move {
        while let Some(invalidation) = invalidations.next().await {
            invalidation.done();
        }
    });
    client
}

/// In it this client makes names that nobody else knows of, and has numbers for their inodes.
pub(crate) async fn own_folder(fake: &Fake, client: &Client, name: &[u8]) -> InodeId {
    let (me, before) = (client.me(), fake.state.batches.load(SeqCst));
    while client.callbacks() == 0 {
        // Until it is enrolled nothing is promised.
        me.find(ROOT, b"nothing").await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let folder = me.make_node(ROOT, name, NodeKind::Directory, 0o755).await.unwrap();
    let folder = InodeId(folder.inode);
    while fake.state.batches.load(SeqCst) == before {
        put(&me, folder, b"probe", b"").await;
        me.unlink(folder, b"probe", false).await.unwrap();
        client.sync_names().await.unwrap();
    }
    folder
}

async fn put(caller: &Caller, folder: InodeId, name: &[u8], bytes: &[u8]) {
    // As a kernel does.
    caller.find(folder, name).await.unwrap();
    let how = OpenHow::write().create(0o644).truncate();
    let (file, ..) = caller.create(folder, name, how).await.unwrap();
    assert_eq!(file.write_at(0, bytes).await.unwrap(), bytes.len());
    file.close().await.unwrap();
}

async fn get(caller: &Caller, folder: InodeId, name: &[u8]) -> Option<Vec<u8>> {
    let attr = caller.find(folder, name).await.unwrap()?;
    let file = caller.open(InodeId(attr.inode), OpenHow::read()).await.unwrap();
    let bytes = file.read_at(0, 1 << 20).await.unwrap().to_vec();
    assert_eq!(bytes.len() as u64, attr.size);
    file.close().await.unwrap();
    Some(bytes)
}

#[tokio::test]
async fn what_others_look_at_is_with_the_namespace_before() {
    let fake = Fake::start().await;
    let (a, b) = (coherent(&fake).await, coherent(&fake).await);
    let folder = own_folder(&fake, &a, b"d").await;
    let (at_a, at_b, before) = (a.me(), b.me(), fake.state.batches.load(SeqCst));
    for number in 0..200_u64 {
        let name = format!("{number}").into_bytes();
        let bytes = pattern(100 + number as usize, number + 1);
        put(&at_a, folder, &name, &bytes).await;
        if number == 39 {
            let batches = fake.state.batches.load(SeqCst) - before;
            assert!(batches < 20, "{batches} requests for 80 changes");
        }
        if number % 40 == 39 {
            assert_eq!(get(&at_b, folder, &name).await.as_deref(), Some(&bytes[..]));
            // After a while alone it goes behind again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            put(&at_a, folder, b"again", b"").await;
        }
    }
    let (entries, _) = at_b.read_dir_page(folder, 0, 1_000, true).await.unwrap();
    assert_eq!(entries.len(), 201);
    assert_eq!(a.lost_changes() + b.lost_changes(), 0);
}

/// What is asked for by its number, as its name is certain, is as it is now.
#[tokio::test]
async fn a_file_that_another_changed_is_shown_as_it_is() {
    let fake = Fake::start().await;
    let (a, b) = (coherent(&fake).await, coherent(&fake).await);
    let folder = own_folder(&fake, &a, b"d").await;
    for name in [b"one", b"two"] {
        put(&a.me(), folder, name, b"text").await;
    }
    let find = async |name: &[u8]| {
        let before = fake.state.questions.load(SeqCst);
        let found = a.me().find(folder, name).await.unwrap();
        (found.map(|attr| attr.mode & 0o777), fake.state.questions.load(SeqCst) - before)
    };
    for (name, mode) in [(b"one", 0o600), (b"two", 0o640)] {
        let inode = InodeId(b.me().find(folder, name).await.unwrap().unwrap().inode);
        let change = AttrChange { mode: Some(mode), ..AttrChange::default() };
        b.me().set_attr(inode, change).await.unwrap();
        b.sync_names().await.unwrap();
        assert_eq!(find(name).await.0, Some(mode));
        // What two change in turns is promised to nobody, for a moment.
        while find(name).await != (Some(mode), 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    b.me().unlink(folder, b"one", false).await.unwrap();
    b.sync_names().await.unwrap();
    assert_eq!(find(b"one").await.0, None);
    assert_eq!(find(b"two").await.0, Some(0o640));
}

#[tokio::test]
async fn a_folder_that_is_known_to_be_empty_is_removed_behind() {
    let fake = Fake::start().await;
    let (client, other) = (coherent(&fake).await, coherent(&fake).await);
    let folder = own_folder(&fake, &client, b"d").await;
    let me = client.me();
    for (name, files) in [(b"new", 0), (b"old", 5_u32)] {
        let made = me.make_node(folder, name, NodeKind::Directory, 0o755).await.unwrap();
        for number in 0..files {
            put(&me, InodeId(made.inode), format!("{number}").as_bytes(), b"x").await;
        }
    }
    client.sync_names().await.unwrap();
    let refused = me.unlink(folder, b"old", true).await.unwrap_err();
    assert_eq!(refused.code, Code::NotEmpty);
    let old = InodeId(me.find(folder, b"old").await.unwrap().unwrap().inode);
    // The first change since is asked for, and this client is alone with the folder from then on.
    put(&me, old, b"again", b"").await;
    client.sync_names().await.unwrap();
    fake.state.silent.store(true, SeqCst);
    me.unlink(old, b"again", false).await.unwrap();
    for number in 0..5 {
        me.unlink(old, format!("{number}").as_bytes(), false).await.unwrap();
    }
    me.unlink(folder, b"old", true).await.unwrap();
    me.unlink(folder, b"new", true).await.unwrap();
    assert_eq!(me.find(folder, b"old").await.unwrap(), None);
    fake.state.silent.store(false, SeqCst);
    client.sync_names().await.unwrap();
    let at_other = other.me();
    let (entries, _) = at_other.read_dir_page(folder, 0, 100, true).await.unwrap();
    assert!(entries.is_empty(), "{entries:?}");
    assert_eq!(at_other.get_attr(folder).await.unwrap().nlink, 2);
    assert_eq!(client.lost_changes() + other.lost_changes(), 0);
}

#[tokio::test]
async fn what_is_synced_is_with_the_namespace() {
    let fake = Fake::start().await;
    let client = coherent(&fake).await;
    let folder = own_folder(&fake, &client, b"d").await;
    let me = client.me();
    fake.state.silent.store(true, SeqCst);
    let how = OpenHow::write().create(0o644);
    let (file, attr, made) = me.create(folder, b"f", how).await.unwrap();
    assert!(made, "the namespace is silent, and nobody asks it");
    file.write_at(0, b"bytes").await.unwrap();
    let seen = me.get_attr(InodeId(attr.inode)).await.unwrap();
    assert_eq!((seen.size, seen.inode), (5, attr.inode));
    assert_eq!(me.find(folder, b"g").await.unwrap(), None);
    let syncing = tokio::spawn(async move {
        file.fsync().await.unwrap();
        file
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!syncing.is_finished());
    assert_eq!(fake.state.names_in(folder.0), Vec::<String>::new());
    fake.state.silent.store(false, SeqCst);
    let file = syncing.await.unwrap();
    assert_eq!(fake.state.names_in(folder.0), ["f"]);
    me.unlink(folder, b"f", false).await.unwrap();
    client.sync_names().await.unwrap();
    assert_eq!(fake.state.names_in(folder.0), Vec::<String>::new());
    file.close().await.unwrap();
    client.close().await;
}

#[tokio::test]
async fn a_lost_answer_changes_nothing_twice() {
    let fake = Fake::start().await;
    let client = coherent(&fake).await;
    let folder = own_folder(&fake, &client, b"d").await;
    let me = client.me();
    for round in 0..20 {
        fake.state.lose_mutations.store(1, SeqCst);
        let name = format!("{round}").into_bytes();
        put(&me, folder, &name, b"x").await;
        if round % 2 == 0 {
            me.unlink(folder, &name, false).await.unwrap();
        }
        client.sync_names().await.unwrap();
    }
    assert_eq!(fake.state.names_in(folder.0).len(), 10);
    assert_eq!(client.lost_changes(), 0);
}

#[tokio::test]
async fn what_went_with_its_session_is_told_to_who_has_it_open() {
    let fake = Fake::start().await;
    let client = coherent(&fake).await;
    let folder = own_folder(&fake, &client, b"d").await;
    let me = client.me();
    fake.state.silent.store(true, SeqCst);
    let (file, ..) = me.create(folder, b"f", OpenHow::write().create(0o644)).await.unwrap();
    fake.expire(client.session_id());
    fake.state.silent.store(false, SeqCst);
    assert_eq!(file.fsync().await.unwrap_err().code, Code::StaleInode);
    assert!(client.lost_changes() > 0);
    // What is done in the new session is done.
    let again = Instant::now();
    put(&me, folder, b"g", b"new").await;
    assert_eq!(get(&me, folder, b"g").await.as_deref(), Some(&b"new"[..]));
    assert_eq!(get(&me, folder, b"f").await, None);
    assert!(again.elapsed() < Duration::from_secs(5));
    until("the journal is empty", || fake.state.names_in(folder.0) == ["g"]).await;
}

/// One after the other, at either client: both see the same tree, which is that of a plain map.
#[tokio::test]
async fn two_clients_see_one_tree() {
    for seed in 1..6 {
        one_tree(seed).await;
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Expected {
    bytes: Vec<u8>,
    mode: u32,
}

async fn one_tree(seed: u64) {
    let fake = Fake::start().await;
    let clients = [coherent(&fake).await, coherent(&fake).await];
    let folders =
        [own_folder(&fake, &clients[0], b"d").await, own_folder(&fake, &clients[1], b"e").await];
    let mut tree: BTreeMap<(usize, u64), Expected> = BTreeMap::new();
    let mut dice = pattern(8 * 400, seed).into_iter().map(u64::from);
    let mut roll = |sides: u64| dice.next().unwrap() % sides;
    let mut turn = 0;
    for step in 0..300_u64 {
        // Mostly the same one for a while, so that it comes to be alone.
        if roll(8) == 0 {
            turn = 1 - turn;
        }
        let me = clients[turn].me();
        let at = (roll(2) as usize, roll(4));
        let (folder, name) = (folders[at.0], format!("{}", at.1).into_bytes());
        let found = me.find(folder, &name).await.unwrap();
        let known = found.map(|attr| (attr.size, attr.mode));
        let expected = tree.get(&at).map(|file| (file.bytes.len() as u64, file.mode));
        assert_eq!(known, expected, "seed {seed} step {step}: {at:?} at client {turn}");
        match roll(6) {
            0 | 1 => {
                let bytes = pattern(1 + roll(50) as usize, step + 1);
                let mode = tree.get(&at).map_or(0o644, |file| file.mode);
                put(&me, folder, &name, &bytes).await;
                tree.insert(at, Expected { bytes, mode });
            }
            2 => {
                let gone = tree.remove(&at);
                let removed = me.unlink(folder, &name, false).await;
                assert_eq!(removed.is_ok(), gone.is_some(), "seed {seed} step {step}");
            }
            3 => {
                let Some(attr) = found else { continue };
                let mode = 0o600 | roll(64) as u32;
                let change = AttrChange { mode: Some(mode), ..AttrChange::default() };
                me.set_attr(InodeId(attr.inode), change).await.unwrap();
                tree.get_mut(&at).unwrap().mode = mode;
            }
            4 => {
                let to = (roll(2) as usize, roll(4));
                let new_name = format!("{}", to.1).into_bytes();
                let moved =
                    me.rename(folder, &name, folders[to.0], &new_name, RenameHow::Replace).await;
                assert_eq!(moved.is_ok(), tree.contains_key(&at));
                if let Some(file) = tree.remove(&at) {
                    tree.insert(to, file);
                }
            }
            _ => {
                let bytes = get(&me, folder, &name).await;
                let expected = tree.get(&at).map(|file| file.bytes.clone());
                assert_eq!(bytes, expected, "seed {seed} step {step}");
                let (entries, _) = me.read_dir_page(folder, 0, 100, true).await.unwrap();
                let there = tree.keys().filter(|(of, _)| *of == at.0).count();
                assert_eq!(entries.len(), there, "seed {seed} step {step}");
            }
        }
    }
    assert!(fake.state.batches.load(SeqCst) > 0, "nothing went behind");
    assert_eq!(clients.iter().map(Client::lost_changes).sum::<u64>(), 0);
}

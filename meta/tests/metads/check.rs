//! What `ff2ctl fsck` asks: whose chunks there are.

use ff2_proto::pb;
use pb::ns_request::Op;

use crate::{
    files::{create, open_root},
    world::{Client, World},
};

async fn page(world: &World, chain: u32, repair: bool) -> pb::CheckChunksReply {
    let request = pb::CheckChunksRequest { chain, from: None, repair };
    world.admin().await.check_chunks(world.signed(request)).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_no_file_are_found_and_removed() {
    let world = World::start(1).await;
    let (store, token) = world.furnish().await;
    open_root(&world).await;
    let mut client = Client::mount(&world, &token, 7).await;
    let made = client.change(create("file")).await.unwrap().attr.unwrap();
    let (inode, chunk_size) = (made.inode, u64::from(made.layout.unwrap().chunk_size));
    let (mine, behind, left, nobodys) =
        ((inode, 0), (inode, 2), (inode, 3), (inode ^ 0x5555_5555, 4));
    store.chunks.lock().extend([(mine, 9), (behind, 7), (left, 0), (nobodys, 5)]);
    // Nobody knows what a writer has written, so nothing of the file is a stray.
    let strays = |page: &pb::CheckChunksReply| -> Vec<_> {
        let name = |stray: &pb::StrayChunk| {
            let chunk = stray.chunk.unwrap();
            ((chunk.inode, chunk.index), stray.length, stray.orphaned, stray.removed)
        };
        page.strays.iter().map(name).collect()
    };
    let found = page(&world, 1, false).await;
    assert_eq!((found.chunks, found.next), (4, None));
    assert_eq!(strays(&found), [(nobodys, 5, true, false)]);
    let close =
        pb::CloseOp { inode, length_at_least: 2 * chunk_size, wrote: true, ..Default::default() };
    client.change(Op::Close(close)).await.unwrap();
    let both = |removed| {
        let mut both = vec![(behind, 7, false, false), (nobodys, 5, true, removed)];
        both.sort_unstable();
        both
    };
    assert_eq!(strays(&page(&world, 1, false).await), both(false));
    assert_eq!(strays(&page(&world, 1, true).await), both(true));
    let kept: Vec<_> = store.chunks.lock().keys().copied().collect();
    assert_eq!(kept, [mine, behind, left]);
    assert_eq!(strays(&page(&world, 1, true).await), [(behind, 7, false, false)]);

    let nowhere = world.signed(pb::CheckChunksRequest { chain: 99, ..Default::default() });
    let refusal = world.admin().await.check_chunks(nowhere).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::NotFound, "{refusal}");
    let ask = world.signed(pb::CheckNamespaceRequest::default());
    let names = world.admin().await.check_namespace(ask).await.unwrap().into_inner();
    assert!(names.done && names.problems == 0 && names.inodes == 2, "{names:?}");
}

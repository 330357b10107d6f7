//! Writes a file and reads it back: `hello METAD TOKEN_FILE CLUSTER_ID`.

use std::path::Path;

use anyhow::{Context, ensure};
use ff2_client::{Client, ClientOptions, OpenHow, UserToken};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: hello METAD TOKEN_FILE CLUSTER_ID";
    let metad = args.next().context(usage)?;
    let token = UserToken::load(Path::new(&args.next().context(usage)?))?;
    let cluster_id = args.next().context(usage)?;

    let client = Client::connect(ClientOptions::new(vec![metad], token, cluster_id)).await?;
    let file = client.open("/hello.txt", OpenHow::write().create(0o644).truncate()).await?;
    file.write_at(0, b"hello, file system\n").await?;
    file.close().await?;

    let file = client.open("/hello.txt", OpenHow::read()).await?;
    let text = file.read_at(0, 1 << 20).await?;
    ensure!(&text[..] == b"hello, file system\n", "the file reads {text:?}");
    file.close().await?;
    client.close().await;
    println!("wrote /hello.txt and read it back");
    Ok(())
}

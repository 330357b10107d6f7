//! Compiles the `.proto` files in Rust (protox), so that no `protoc` is needed for ours.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files =
        ["common", "cluster", "namespace", "storage", "raft", "admin", "sched", "agents", "ranks"]
            .map(|name| format!("proto/ff2/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    // The descriptor set is exported for gRPC reflection and for the stubs that ff2-fabric makes.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("ff2.bin"), prost::Message::encode_to_vec(&descriptors))?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}

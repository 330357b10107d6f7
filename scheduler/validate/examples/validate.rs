//! Validates this machine, with itself as the other node, and prints the report as JSON.
//!
//! `cargo run --release -p ff2-validate --example validate -- FOLDER [full]`

use std::{error::Error, net::SocketAddr, thread};

use ff2_validate::{Depth, Peer, Plan, limits, pair::Server, validate};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("a folder to write in is missing")?;
    let depth = match arguments.next().as_deref() {
        Some("full") => Depth::Full,
        _ => Depth::Quick,
    };
    let token = b"this example alone".to_vec();
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &token)?;
    let address = server.address()?;
    let serving = thread::spawn(move || server.serve(limits::FULL_MAX));
    let plan = Plan {
        depth,
        disk: Some(folder.into()),
        peer: Some(Peer { address, token }),
        ..Plan::default()
    };
    println!("{}", serde_json::to_string_pretty(&validate(&plan))?);
    serving.join().map_err(|_| "the server broke off")??;
    Ok(())
}

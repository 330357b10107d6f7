//! `ff2ctl ps`: the local cluster's processes.

use anyhow::Result;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    cli::Surroundings,
    cluster::{Folder, Process},
    output::table,
    process,
};

pub(crate) async fn run(around: &Surroundings) -> Result<()> {
    let file = around.folder.load()?;
    let shown = join_all(file.processes.iter().map(|process| look(&around.folder, process))).await;
    let value = Value::Array(shown.iter().map(|row| row.value.clone()).collect());
    around.output.print(&value, || {
        let rows = shown.iter().map(|row| row.cells.clone());
        table(&["PROCESS", "PID", "STATE", "ADDRESSES", "FOLDER"], rows)
    })
}

struct Row {
    value: Value,
    cells: Vec<String>,
}

async fn look(folder: &Folder, known: &Process) -> Row {
    let name = known.name();
    let running = process::running(folder, name);
    let state = match running {
        None => "down",
        Some(_) if process::is_ready(folder, name).await => "running",
        Some(_) => "starting",
    };
    let pid = running.map(|process| process.pid);
    let addresses = known.addresses();
    let by_use: serde_json::Map<String, Value> =
        addresses.iter().map(|(purpose, at)| ((*purpose).into(), at.clone().into())).collect();
    let value = json!({
        "role": name.role.as_str(), "index": name.index, "pid": pid, "state": state,
        "addresses": by_use, "data_dir": folder.data(name), "log": folder.log(name),
        "mount_point": known.mount_point,
    });
    let place = known.mount_point.clone().unwrap_or_else(|| folder.of(name));
    let shown: Vec<String> =
        addresses.iter().map(|(purpose, at)| format!("{purpose} {at}")).collect();
    let pid = pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let cells =
        vec![name.to_string(), pid, state.into(), shown.join(", "), place.display().to_string()];
    Row { value, cells }
}

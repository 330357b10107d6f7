//! `ff2ctl serve list`.

use anyhow::Result;
use serde_json::json;

use super::service::{self, Service};
use crate::{cli::Surroundings, output::table};

pub(super) async fn run(around: &Surroundings) -> Result<()> {
    let sched = around.access.connect_sched()?;
    let services = service::all(&sched).await?;
    let value: Vec<_> = services
        .iter()
        .map(|it| {
            let (plan, report) = (it.folder.plan().ok().flatten(), report(it));
            json!({
                "name": it.name, "user": it.user, "router": it.router.job, "folder": it.folder.path(),
                "plan": plan, "report": report,
            })
        })
        .collect();
    around.output.print(&json!({ "services": value }), || {
        if services.is_empty() {
            return "no services".into();
        }
        let head = ["NAME", "USER", "URL", "READY", "WANTED", "REQUESTS", "TOKENS/S", "CACHED"];
        table(&head, services.iter().map(row))
    })
}

/// One that others may not read is theirs.
fn report(service: &Service) -> Option<super::folder::Report> {
    service.folder.report().ok().flatten()
}

fn row(service: &Service) -> Vec<String> {
    let named = vec![service.name.clone(), service.user.clone()];
    let rest = match report(service) {
        None => vec![service.router.state.clone()],
        Some(report) => vec![
            report.url.clone(),
            report.ready.values().sum::<u32>().to_string(),
            report.wanted.to_string(),
            report.requests.to_string(),
            format!("{:.1}", report.tokens_per_second),
            format!("{:.0} %", 100.0 * report.cached),
        ],
    };
    [named, rest].concat()
}

//! `ff2ctl serve list`.

use anyhow::Result;
use serde_json::json;

use super::{
    folder::{Report, program},
    service::{self, Service},
};
use crate::{cli::Surroundings, output::table};

pub(super) async fn run(around: &Surroundings) -> Result<()> {
    let sched = around.access.connect_sched()?;
    let services = service::all(&sched).await?;
    let reports: Vec<_> = services.iter().map(report).collect();
    let value: Vec<_> = services
        .iter()
        .zip(&reports)
        .map(|(it, report)| {
            let plan = it.folder.plan().ok().flatten();
            json!({
                "name": it.name, "user": it.user, "router": it.router, "folder": it.folder.path(),
                "plan": plan, "report": report,
            })
        })
        .collect();
    around.output.print(&json!({ "services": value }), || {
        if services.is_empty() {
            return "no services".into();
        }
        let head = ["NAME", "USER", "URL", "READY", "WANTED", "REQUESTS", "TOKENS/S", "CACHED"];
        table(&head, services.iter().zip(&reports).map(row))
    })
}

/// One that others may not read is theirs.
fn report(service: &Service) -> Option<Report> {
    service.folder.fresh_report(&program("ff2-serve")).ok().flatten()
}

fn row((service, report): (&Service, &Option<Report>)) -> Vec<String> {
    let named = vec![service.name.clone(), service.user.clone()];
    let rest = match report {
        None => vec![service.state.clone()],
        Some(report) => vec![
            report.urls.join(","),
            report.ready.values().sum::<u32>().to_string(),
            report.wanted.to_string(),
            report.requests.to_string(),
            format!("{:.1}", report.tokens_per_second),
            format!("{:.0} %", 100.0 * report.cached),
        ],
    };
    [named, rest].concat()
}

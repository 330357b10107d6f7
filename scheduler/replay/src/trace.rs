//! Traces of jobs, as text.

/// A job as it was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceJob {
    pub submit_ms: u64,
    pub gpus: u32,
    /// How long it runs if nothing disturbs it.
    pub duration_ms: u64,
}

/// A line that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    pub what: String,
}

/// CSV as Muri and Tiresias have it: a header, then a line for each job with at least the columns `num_gpu`,
/// `submit_time` and `duration`, in any order. Both times are in `unit_ms`: 1 for Muri's files, 1,000 for those of
/// Tiresias, which have seconds. Jobs come in the order of their submission.
///
/// # Errors
/// The first line that is not as it should be, and what was expected.
pub fn csv(text: &str, unit_ms: u64) -> Result<Vec<TraceJob>, BadLine> {
    let mut lines = (1..).zip(text.lines().map(str::trim_end));
    let bad = |line, what: String| BadLine { line, what };
    let (_, header) =
        lines.next().ok_or_else(|| bad(1, "expected a header, found nothing".into()))?;
    let names: Vec<&str> = header.split(',').map(str::trim).collect();
    let column = |name: &str| {
        let at = names.iter().position(|other| *other == name);
        at.ok_or_else(|| bad(1, format!("expected a column {name:?}, found {header:?}")))
    };
    let (gpus, submit, duration) =
        (column("num_gpu")?, column("submit_time")?, column("duration")?);
    let mut jobs = Vec::new();
    for (line, text) in lines.filter(|(_, text)| !text.is_empty()) {
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        if fields.len() != names.len() {
            let what =
                format!("expected {} fields as in the header, found {}", names.len(), fields.len());
            return Err(bad(line, what));
        }
        let number = |at: usize| -> Result<u64, BadLine> {
            let read = fields[at].parse();
            read.map_err(|_| {
                bad(
                    line,
                    format!("expected a whole number as {}, found {:?}", names[at], fields[at]),
                )
            })
        };
        let time = |at: usize| -> Result<u64, BadLine> {
            let read = number(at)?.checked_mul(unit_ms);
            read.ok_or_else(|| bad(line, format!("{} is too large: {:?}", names[at], fields[at])))
        };
        let job = TraceJob {
            submit_ms: time(submit)?,
            gpus: u32::try_from(number(gpus)?).ok().filter(|gpus| *gpus > 0).ok_or_else(|| {
                bad(line, format!("expected GPUs from 1 on, found {:?}", fields[gpus]))
            })?,
            duration_ms: time(duration)?,
        };
        jobs.push(job);
    }
    jobs.sort_by_key(|job| job.submit_ms);
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let text =
            "job_id,num_gpu,submit_time,model_name,duration\n0,4,2000,vgg16,500\n1,1,0,a2c,7\n";
        let jobs = csv(text, 1).unwrap();
        let first = TraceJob { submit_ms: 0, gpus: 1, duration_ms: 7 };
        assert_eq!(jobs, [first, TraceJob { submit_ms: 2_000, gpus: 4, duration_ms: 500 }]);
        assert_eq!(csv(text, 1_000).unwrap()[1].duration_ms, 500_000);
    }

    #[test]
    fn a_bad_line_is_named_with_what_was_expected() {
        let told = |text: &str| csv(text, 1).unwrap_err().to_string();
        assert_eq!(told(""), "line 1: expected a header, found nothing");
        assert_eq!(
            told("num_gpu,submit_time\n"),
            "line 1: expected a column \"duration\", found \"num_gpu,submit_time\""
        );
        let header = "num_gpu,submit_time,duration\n";
        assert_eq!(
            told(&format!("{header}1,0,5\n\n1,0\n")),
            "line 4: expected 3 fields as in the header, found 2"
        );
        assert_eq!(
            told(&format!("{header}1,0,4.5\n")),
            "line 2: expected a whole number as duration, found \"4.5\""
        );
        assert_eq!(
            told(&format!("{header}0,0,4\n")),
            "line 2: expected GPUs from 1 on, found \"0\""
        );
    }
}

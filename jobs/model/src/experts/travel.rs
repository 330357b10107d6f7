//! The way of rows to the experts and back, where these are divided over ranks: rank r holds the r-th of equal parts.
//!
//! On one rank nothing moves and nothing is copied.

use crate::{Exchange, ModelError, Tensor};

/// What came for the experts held here.
#[derive(Debug)]
pub(super) struct Arrived {
    /// One an expert: the rows of all ranks, in their order, [rows, hidden].
    pub(super) rows: Vec<Tensor>,
    /// How many of them are of which rank.
    counts: Vec<Vec<usize>>,
}

/// `rows` has one tensor for each of all experts; `held` of these are here.
pub(super) fn to_experts(
    exchange: Option<&dyn Exchange>,
    held: usize,
    rows: Vec<Tensor>,
) -> Result<Arrived, ModelError> {
    let (experts, ranks) = (rows.len(), exchange.map_or(1, |exchange| exchange.ranks()));
    if held * ranks != experts {
        return Err(ModelError::Input(format!(
            "this rank holds {held} of {experts} experts, {ranks} ranks exchange rows: expected equal parts"
        )));
    }
    let Some(exchange) = exchange else {
        let counts = rows.iter().map(|rows| vec![rows.rows()]).collect();
        return Ok(Arrived { rows, counts });
    };
    let width = rows.first().map_or(1, Tensor::cols);
    // In front of the rows, how many each expert gets. Whole numbers are exact in f32 up to 2^24.
    let out = rows.chunks(held).map(|of_rank| {
        let counts = of_rank.iter().map(|rows| rows.rows() as f32);
        counts.chain(of_rank.iter().flat_map(Tensor::data).copied()).collect()
    });
    let come = exchange.all_to_all(out.collect())?;
    let mut arrived = Arrived { rows: Vec::new(), counts: vec![Vec::new(); held] };
    let mut parts: Vec<&[f32]> = Vec::new();
    for (rank, come) in come.iter().enumerate() {
        let (counts, rest) = come.split_at_checked(held).ok_or_else(|| misfit(rank, come.len()))?;
        let counts = counts.iter().map(|&count| count as usize);
        let total = counts.clone().try_fold(0usize, |sum, count| sum.checked_add(count));
        if total.and_then(|total| total.checked_mul(width)) != Some(rest.len()) {
            return Err(misfit(rank, come.len()));
        }
        arrived.counts.iter_mut().zip(counts).for_each(|(all, count)| all.push(count));
        parts.push(rest);
    }
    for counts in &arrived.counts {
        let mut all = Vec::with_capacity(counts.iter().sum::<usize>() * width);
        for (part, count) in parts.iter_mut().zip(counts) {
            let (rows, rest) = part.split_at(count * width);
            all.extend_from_slice(rows);
            *part = rest;
        }
        let shape = [all.len() / width, width];
        arrived.rows.push(Tensor::new(&shape, all).expect("whole rows"));
    }
    Ok(arrived)
}

/// What the experts held here made of what arrived goes back; what all experts made of `places` of ours comes.
pub(super) fn from_experts(
    exchange: Option<&dyn Exchange>,
    arrived: &Arrived,
    made: Vec<Tensor>,
    places: &[Vec<usize>],
) -> Result<Vec<Tensor>, ModelError> {
    let Some(exchange) = exchange else { return Ok(made) };
    let (held, width) = (made.len(), made.first().map_or(1, Tensor::cols));
    let mut rest: Vec<&[f32]> = made.iter().map(Tensor::data).collect();
    let out = (0..exchange.ranks()).map(|rank| {
        let mut out = Vec::new();
        for (rest, counts) in rest.iter_mut().zip(&arrived.counts) {
            let (rows, later) = rest.split_at(counts[rank] * width);
            out.extend_from_slice(rows);
            *rest = later;
        }
        out
    });
    let come = exchange.all_to_all(out.collect())?;
    let mut outputs = Vec::with_capacity(places.len());
    for (rank, (come, places)) in come.iter().zip(places.chunks(held)).enumerate() {
        let total: usize = places.iter().map(Vec::len).sum();
        if come.len() != total * width {
            return Err(misfit(rank, come.len()));
        }
        let mut rest = come.as_slice();
        for places in places {
            let (rows, later) = rest.split_at(places.len() * width);
            outputs.push(Tensor::new(&[places.len(), width], rows.to_vec()).expect("whole rows"));
            rest = later;
        }
    }
    Ok(outputs)
}

fn misfit(rank: usize, numbers: usize) -> ModelError {
    let detail = format!(
        "rank {rank} of those that share the experts sent {numbers} numbers, which are not the rows that were \
         expected: do all ranks have the same model?"
    );
    ModelError::Input(detail)
}

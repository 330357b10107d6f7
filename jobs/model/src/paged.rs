//! Attention of new tokens to those in pages, block after block with a running softmax (Milakov and Gimelshein 2018;
//! Dao et al. 2022), so memory does not grow with the context. A few new tokens attend in the absorbed form, which
//! makes no keys and values; many in the expanded one, where the cost of making them is shared.

use rayon::prelude::*;

use crate::{
    ModelConfig, Tensor,
    batch::Span,
    mla::{Mla, Pass, score_scale},
    pages::LayerPages,
    running::Running,
    view::{Into, View, ViewMut, matmul},
};

/// Tokens whose scores of a block are held at once: a longer span attends in parts, each to what lies before its end.
const PART_TOKENS: usize = 2048;

/// A span, or a part of one, with the place of its rows among those of the batch.
#[derive(Debug, Clone, Copy)]
struct Placed<'a> {
    span: Span<'a>,
    row: usize,
}

impl Mla {
    /// [n, hidden] -> [n, hidden] of all spans' tokens, one span after the other; the pages then have them too.
    pub(crate) fn attend_pages(
        &self,
        pass: Pass<'_>,
        x: &Tensor,
        spans: &[Span<'_>],
        pages: &mut LayerPages,
    ) -> Tensor {
        let (q, _) = self.queries(pass, x);
        let latent = self.latent(pass, x);
        let mut placed = Vec::with_capacity(spans.len());
        let mut row = 0;
        for span in spans {
            for at in 0..span.tokens.len() {
                pages.put(span.blocks, span.from + at, &latent, row + at);
            }
            for (part, tokens) in span.tokens.chunks(PART_TOKENS).enumerate() {
                let at = part * PART_TOKENS;
                let part = Span { tokens, from: span.from + at, ..*span };
                placed.push(Placed { span: part, row: row + at });
            }
            row += span.tokens.len();
        }
        let (many, few): (Vec<_>, Vec<_>) =
            placed.into_iter().partition(|p| expands(pass.config, p.span.tokens.len()));
        let mut joined = Tensor::zeros(&[x.rows(), pass.config.heads * pass.config.v_head]);
        self.absorbed(pass.config, &q, &few, pages, &mut joined);
        self.expanded(pass.config, &q, &many, pages, &mut joined);
        crate::linear::linear(&joined, &self.out)
    }

    /// Rows [kv_b of one head]: first those that make its keys, then those of its values.
    fn head_rows(&self, c: &ModelConfig, head: usize) -> (View<'_>, View<'_>) {
        let rows = &self.kv_b.data()[head * (c.qk_nope + c.v_head) * c.kv_lora..];
        let values = &rows[c.qk_nope * c.kv_lora..];
        (
            View::new(rows, c.qk_nope, c.kv_lora, c.kv_lora),
            View::new(values, c.v_head, c.kv_lora, c.kv_lora),
        )
    }

    fn absorbed(
        &self,
        c: &ModelConfig,
        q: &Tensor,
        few: &[Placed<'_>],
        pages: &LayerPages,
        joined: &mut Tensor,
    ) {
        let rows: Vec<usize> =
            few.iter().flat_map(|p| p.row..p.row + p.span.tokens.len()).collect();
        if rows.is_empty() {
            return;
        }
        let (n, width) = (rows.len(), c.kv_lora + c.qk_rope);
        // Each head's queries of all sequences at once: its weights are read once a step.
        let gathered: Vec<f32> = rows.iter().flat_map(|row| q.row(*row)).copied().collect();
        let mut absorbed = vec![0.0; c.heads * n * width];
        absorbed.par_chunks_mut(n * width).enumerate().for_each(|(head, out)| {
            let q = &gathered[head * (c.qk_nope + c.qk_rope)..];
            let q_nope = View::new(q, n, c.qk_nope, q_stride(c));
            let (keys, _) = self.head_rows(c, head);
            matmul(ViewMut::new(out, n, c.kv_lora, width), Into::Replace, 1.0, q_nope, keys);
            for (row, out) in out.chunks_mut(width).enumerate() {
                let rope = &q[row * q_stride(c) + c.qk_nope..][..c.qk_rope];
                out[c.kv_lora..].copy_from_slice(rope);
            }
        });
        // One sequence alone has its heads shared among the threads; many are a task each.
        let groups = if few.len() < rayon::current_num_threads() {
            rayon::current_num_threads().min(c.heads)
        } else {
            1
        };
        let heads_each = c.heads.div_ceil(groups);
        let mut tasks = Vec::new();
        let mut first = 0;
        for p in few {
            tasks.extend((0..c.heads).step_by(heads_each).map(|head| (p.span, first, head)));
            first += p.span.tokens.len();
        }
        let mixed: Vec<Vec<f32>> = tasks
            .par_iter()
            .map(|&(span, first, head)| {
                let heads = head..(head + heads_each).min(c.heads);
                let tokens = span.tokens.len();
                let queries: Vec<f32> = heads
                    .clone()
                    .flat_map(|head| &absorbed[(head * n + first) * width..][..tokens * width])
                    .copied()
                    .collect();
                let mut running = Running::new(heads.len() * tokens, c.kv_lora);
                let scale = score_scale(c);
                for (start, keys, rows) in seen_blocks(&span, pages) {
                    let scores = running.scores(keys);
                    let queries = View::new(&queries, heads.len() * tokens, width, width);
                    let all = View::new(rows, keys, width, width);
                    matmul(scores, Into::Replace, scale, queries, all.t());
                    let seen = |row: usize| (span.from + row % tokens + 1).saturating_sub(start);
                    running.add(seen, View::new(rows, keys, c.kv_lora, width));
                }
                running.finish()
            })
            .collect();
        let mut by_head = vec![0.0; c.heads * n * c.kv_lora];
        for (&(span, first, head), mixed) in tasks.iter().zip(&mixed) {
            let len = span.tokens.len() * c.kv_lora;
            for (number, part) in mixed.chunks(len).enumerate() {
                by_head[((head + number) * n + first) * c.kv_lora..][..len].copy_from_slice(part);
            }
        }
        let outputs: Vec<Vec<f32>> = by_head
            .par_chunks(n * c.kv_lora)
            .enumerate()
            .map(|(head, mixed)| {
                let mut out = vec![0.0; n * c.v_head];
                let (_, values) = self.head_rows(c, head);
                let mixed = View::new(mixed, n, c.kv_lora, c.kv_lora);
                let into = ViewMut::new(&mut out, n, c.v_head, c.v_head);
                matmul(into, Into::Replace, 1.0, mixed, values.t());
                out
            })
            .collect();
        for (head, output) in outputs.iter().enumerate() {
            for (row, output) in rows.iter().zip(output.chunks(c.v_head)) {
                joined.row_mut(*row)[head * c.v_head..][..c.v_head].copy_from_slice(output);
            }
        }
    }

    fn expanded(
        &self,
        c: &ModelConfig,
        q: &Tensor,
        many: &[Placed<'_>],
        pages: &LayerPages,
        joined: &mut Tensor,
    ) {
        let tasks: Vec<(Placed<'_>, usize)> =
            many.iter().flat_map(|p| (0..c.heads).map(|head| (*p, head))).collect();
        let outputs: Vec<Vec<f32>> =
            tasks.par_iter().map(|(p, head)| self.expanded_head(c, q, *p, *head, pages)).collect();
        for ((p, head), output) in tasks.iter().zip(&outputs) {
            for (at, output) in output.chunks(c.v_head).enumerate() {
                joined.row_mut(p.row + at)[head * c.v_head..][..c.v_head].copy_from_slice(output);
            }
        }
    }

    /// [tokens, v] of one head of one span.
    fn expanded_head(
        &self,
        c: &ModelConfig,
        q: &Tensor,
        p: Placed<'_>,
        head: usize,
        pages: &LayerPages,
    ) -> Vec<f32> {
        let (tokens, width, scale) = (p.span.tokens.len(), pages.width, score_scale(c));
        let q = &q.data()[p.row * q_stride(c) + head * (c.qk_nope + c.qk_rope)..];
        let q_nope = View::new(q, tokens, c.qk_nope, q_stride(c));
        let q_rope = View::new(&q[c.qk_nope..], tokens, c.qk_rope, q_stride(c));
        let (key_rows, value_rows) = self.head_rows(c, head);
        let mut made = vec![0.0; pages.block_tokens * (c.qk_nope + c.v_head)];
        let (keys_made, values_made) = made.split_at_mut(pages.block_tokens * c.qk_nope);
        let mut running = Running::new(tokens, c.v_head);
        for (start, keys, rows) in seen_blocks(&p.span, pages) {
            let latents = View::new(rows, keys, c.kv_lora, width);
            let k_rope = View::new(&rows[c.kv_lora..], keys, c.qk_rope, width);
            let k = ViewMut::new(keys_made, keys, c.qk_nope, c.qk_nope);
            matmul(k, Into::Replace, 1.0, latents, key_rows.t());
            let v = ViewMut::new(values_made, keys, c.v_head, c.v_head);
            matmul(v, Into::Replace, 1.0, latents, value_rows.t());
            let k_nope = View::new(keys_made, keys, c.qk_nope, c.qk_nope);
            matmul(running.scores(keys), Into::Replace, scale, q_nope, k_nope.t());
            matmul(running.scores(keys), Into::Add, scale, q_rope, k_rope.t());
            let seen = |row: usize| (p.span.from + row + 1).saturating_sub(start);
            running.add(seen, View::new(values_made, keys, c.v_head, c.v_head));
        }
        running.finish()
    }
}

/// Numbers of a token's queries, all heads.
fn q_stride(c: &ModelConfig) -> usize {
    c.heads * (c.qk_nope + c.qk_rope)
}

/// Whether making keys and values costs less than attending in the wider space of latents: products of a head and
/// a cached token, either way.
fn expands(c: &ModelConfig, tokens: usize) -> bool {
    let absorbed = tokens * (2 * c.kv_lora + c.qk_rope);
    let expanded = c.kv_lora * (c.qk_nope + c.v_head) + tokens * (c.qk_nope + c.qk_rope + c.v_head);
    expanded < absorbed
}

/// The span's blocks up to its last token: position of the first token, how many, their rows.
fn seen_blocks<'a>(
    span: &Span<'a>,
    pages: &'a LayerPages,
) -> impl Iterator<Item = (usize, usize, &'a [f32])> {
    let (known, each) = (span.from + span.tokens.len(), pages.block_tokens);
    span.blocks.iter().take(known.div_ceil(each)).enumerate().map(move |(number, block)| {
        (number * each, each.min(known - number * each), pages.block(*block))
    })
}

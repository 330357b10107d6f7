//! One step: copies, the model's pass over all work, then what follows from it for each sequence.

use std::time::Instant;

use ff2_model::{ModelError, Span, Step, Tensor};

use super::Worker;
use crate::{
    Event, Reason,
    sampler::{largest, logprobs},
    schedule::{Id, Work},
};

/// What is known after a pass about one sequence: its work, rows in the pass, and tokens that now stand in the pages.
struct Done<'a> {
    work: &'a Work,
    row: usize,
    kept: usize,
}

impl Worker {
    pub(super) fn step(&mut self) {
        let plan = self.schedule.plan();
        if plan.work.is_empty() {
            return;
        }
        let start = Instant::now();
        for (from, to) in &plan.copies {
            self.pages.copy(*from, *to);
        }
        let wanted: Vec<usize> = plan.work.iter().map(|work| self.logits_wanted(work)).collect();
        let step = match self.pass(&plan.work, &wanted) {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(%error, "a step failed; all that took part in it ends");
                let reason = Reason::Failed(format!("the model failed: {error}"));
                plan.work.iter().for_each(|work| self.end(work.id, reason.clone()));
                return;
            }
        };
        let mut done = Vec::new();
        let (mut row, mut logits_row) = (0, 0);
        for (work, wanted) in plan.work.iter().zip(&wanted) {
            let kept = self.follow(work, &step.logits, logits_row..logits_row + wanted);
            done.push(Done { work, row, kept });
            row += work.tokens.len();
            logits_row += wanted;
        }
        if self.drafts
            && let Err(error) = self.draft(&done, &step.hidden)
        {
            tracing::error!(%error, "drafting failed; it is off from now on");
            self.drafts = false;
        }
        let time = start.elapsed();
        self.figures.step_time.add(time);
        if plan.work.iter().any(|work| work.prefill) {
            self.rates.prefilled(row, time.as_secs_f64());
        }
    }

    fn logits_wanted(&self, work: &Work) -> usize {
        let choice = &self.choices[&work.id];
        let group = &self.groups[&choice.group];
        let tells_prompt =
            group.job.request.prompt_logprobs.is_some() && group.prompt_told < group.usage.prompt;
        match (tells_prompt, work.samples) {
            (true, _) => work.tokens.len(),
            (false, true) => 1 + usize::from(work.drafted),
            (false, false) => 0,
        }
    }

    fn pass(&mut self, work: &[Work], wanted: &[usize]) -> Result<Step, ModelError> {
        let spans: Vec<Span<'_>> = work
            .iter()
            .zip(wanted)
            .map(|(work, logits)| Span {
                tokens: &work.tokens,
                from: work.from,
                blocks: &work.blocks,
                logits: *logits,
            })
            .collect();
        let (model, pages) = (&self.model, &mut self.pages);
        self.threads.install(|| model.advance(&spans, pages))
    }

    /// What a sequence's logits, `rows` of all, lead to: its next tokens, its end. Returns the tokens that it keeps in
    /// the pages, those of a wrong draft left out.
    fn follow(&mut self, work: &Work, logits: &Tensor, rows: std::ops::Range<usize>) -> usize {
        let vocab = self.model.config().vocab;
        let row = |at: usize| &logits.data()[at * vocab..][..vocab];
        let known = work.tokens.len() - usize::from(work.drafted);
        let full = self.schedule.computed(work.id, known);
        self.save(&full);
        if work.prefill {
            self.figures.tokens_prefilled += known as u64;
        }
        self.tell_prompt(work, &row, rows.clone());
        if !work.samples {
            return known;
        }
        let first = rows.end - 1 - usize::from(work.drafted);
        let ids = self.fork(work.id);
        for id in ids.iter().skip(1) {
            self.choose(*id, row(first));
        }
        let chosen = self.choose(work.id, row(first));
        if !work.drafted {
            return known;
        }
        self.figures.tokens_drafted += 1;
        if chosen != work.tokens.last().copied() {
            return known;
        }
        // The draft is what was chosen, so its row is that of the token behind.
        self.figures.tokens_accepted += 1;
        let full = self.schedule.computed(work.id, 1);
        self.save(&full);
        self.choose(work.id, row(first + 1));
        known + 1
    }

    /// Log-probabilities of the prompt's tokens that this work brought.
    fn tell_prompt<'a>(
        &mut self,
        work: &Work,
        row: &impl Fn(usize) -> &'a [f32],
        rows: std::ops::Range<usize>,
    ) {
        let Some(choice) = self.choices.get(&work.id) else { return };
        let Some(group) = self.groups.get_mut(&choice.group) else { return };
        let Some(count) = group.job.request.prompt_logprobs else { return };
        if group.prompt_told == 0 {
            let token = group.job.request.prompt[0];
            group.send(Event::PromptToken { token, logprob: None, top: Vec::new() });
            group.prompt_told = 1;
        }
        // Row r of the work is that of position from + r, and tells about the token behind.
        let behind = work.from + 1;
        for (position, at) in (behind..).zip(rows) {
            // What is computed again after giving way was told before.
            if position != group.prompt_told || position >= group.usage.prompt {
                continue;
            }
            let token = group.job.request.prompt[position];
            let (logprob, top) = logprobs(row(at), token, count);
            group.send(Event::PromptToken { token, logprob: Some(logprob), top });
            group.prompt_told += 1;
        }
    }

    /// Begins a request's other choices once its prompt is computed; returns those that now have its logits.
    fn fork(&mut self, id: Id) -> Vec<Id> {
        let mut ids = vec![id];
        let number = self.choices[&id].group;
        if self.groups[&number].forked {
            return ids;
        }
        for choice in 1..self.groups[&number].job.request.n {
            let child = self.new_id();
            self.schedule.fork(id, child);
            self.choices
                .insert(child, self.groups[&number].choice(number, choice, self.model.config()));
            ids.push(child);
        }
        if let Some(group) = self.groups.get_mut(&number) {
            group.forked = true;
        }
        ids
    }

    /// Chooses a choice's next token and sends it. None if the choice has ended, with the token or for another reason.
    fn choose(&mut self, id: Id, logits: &[f32]) -> Option<u32> {
        let choice = self.choices.get_mut(&id)?;
        let group = self.groups.get_mut(&choice.group)?;
        let chosen = match choice.sampler.choose(logits) {
            Ok(chosen) => chosen,
            Err(detail) => {
                self.end(id, Reason::Failed(detail));
                return None;
            }
        };
        let token = chosen.token;
        self.figures.tokens_generated += 1;
        if let Some(reason) = group.tell(choice, chosen, &self.model.config().eos) {
            self.end(id, reason);
            return None;
        }
        self.schedule.push(id, token);
        Some(token)
    }

    /// Guesses the tokens after next. The module for it sees all positions, so that its own pages are whole.
    fn draft(&mut self, done: &[Done<'_>], hidden: &Tensor) -> Result<(), ModelError> {
        let width = self.model.config().hidden;
        let (mut spans, mut states, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for Done { work, row, kept } in done {
            // Those that have ended have no tokens any more.
            let Some(sequence) = self.schedule.get(work.id) else { continue };
            let tokens = &sequence.tokens[work.from + 1..][..*kept];
            let logits = usize::from(work.samples);
            spans.push(Span { tokens, from: work.from, blocks: &work.blocks, logits });
            states.extend_from_slice(&hidden.data()[row * width..(row + kept) * width]);
            ids.extend(work.samples.then_some(work.id));
        }
        if spans.is_empty() {
            return Ok(());
        }
        let states = Tensor::new(&[states.len() / width, width], states).expect("whole rows");
        let (model, pages) = (&self.model, &mut self.pages);
        let logits = self.threads.install(|| model.draft(&spans, &states, pages))?;
        for (id, row) in ids.into_iter().zip(logits.data().chunks(self.model.config().vocab)) {
            self.schedule.set_draft(id, largest(row));
        }
        Ok(())
    }
}

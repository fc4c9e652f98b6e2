//! Requests that decode together, one output token each per step.
//!
//! The heart of the simulator's speed: a step touches no member. The cohort
//! counts its steps, and everything about a member follows from the step at
//! which it joined. The steps after which somebody is done are marked; how many
//! need a new KV cache block is counted by step modulo block size; the sum of
//! contexts grows by the number of members. Joining costs O(1), leaving a look
//! along a list of numbers; a step costs O(1) whatever the batch size.

mod ends;
mod longest;

use self::ends::Ends;
use self::longest::LongestIntervals;
pub(crate) use self::longest::NO_INTERVAL_S;
use super::recorder::Recorder;
use super::request::RequestState;
use super::spent::Spent;
use crate::execution_time::StageTime;
use crate::number::narrow;
use crate::units::Divisor;

#[derive(Debug, Default)]
pub(crate) struct Cohort {
    /// Members in batch order.
    members: Vec<u32>,
    /// Steps made since the cohort was created.
    step: u64,
    /// Sum of the members' KV cache tokens before the next step.
    context_tokens: u64,
    /// When they are done.
    ends: Ends,
    /// Members that need a new block at a step, by step modulo block size; empty
    /// where requests reserve all their blocks at the start.
    growth: Vec<u32>,
    /// The block size; none where requests reserve all their blocks at the start.
    block_size: Option<Divisor>,
    /// Place in `growth` of the next step; 0 where that is empty.
    slot: usize,
    /// Time of the members' last token, but for those in `late`.
    last_token_at_s: f64,
    /// Members whose last token came at another time; it is in their state.
    late: Vec<u32>,
    spent: Spent,
    /// Times between the members' tokens, but for those in `late`.
    longest: LongestIntervals,
}

impl Cohort {
    /// An empty cohort. `block_size` is that of a KV cache that grows with its
    /// requests; 0: they reserve all their blocks at the start.
    pub(crate) fn new(block_size: u32) -> Self {
        Self {
            growth: vec![0; block_size as usize],
            block_size: (block_size > 0).then(|| Divisor::new(block_size)),
            ..Self::default()
        }
    }

    #[inline]
    pub(crate) fn members(&self) -> &[u32] {
        &self.members
    }

    /// When the members' last token came, but for those that joined since.
    #[inline]
    pub(crate) fn last_token_at_s(&self) -> f64 {
        self.last_token_at_s
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    #[inline]
    pub(crate) fn context_tokens(&self) -> u64 {
        self.context_tokens
    }

    /// Blocks the next step takes.
    #[inline]
    pub(crate) fn blocks_for_next_step(&self) -> u64 {
        self.growth.get(self.slot).copied().map_or(0, u64::from)
    }

    /// Blocks the step after the next takes.
    #[inline]
    pub(crate) fn blocks_after_next_step(&self) -> u64 {
        let slot = next_slot(self.slot, self.growth.len());
        self.growth.get(slot).copied().map_or(0, u64::from)
    }

    /// Blocks a step takes that comes after so many others.
    pub(crate) fn blocks_for_step_in(&self, steps: usize) -> u64 {
        let slot = (self.slot + steps).checked_rem(self.growth.len());
        slot.map_or(0, |slot| u64::from(self.growth[slot]))
    }

    #[inline]
    fn count_step(&mut self) {
        self.step += 1;
        self.slot = next_slot(self.slot, self.growth.len());
    }

    /// KV cache tokens of a member before the next step.
    #[inline]
    pub(crate) fn context_tokens_of(&self, id: u32, requests: &[RequestState]) -> u64 {
        let request = &requests[id as usize];
        request.decode_context_tokens() + (self.step - request.joined_step)
    }

    /// Full blocks of a cache of so many tokens and the tokens in the one after; none
    /// where blocks do not grow.
    #[inline]
    fn blocks_of(&self, context_tokens: u64) -> Option<(u32, u32)> {
        Some(self.block_size?.div_rem(narrow::<u32, _>(context_tokens)))
    }

    /// The place in `growth` of a member with so many tokens in its last block: that of
    /// the step that starts with a multiple of the block size in its cache.
    #[inline]
    fn growth_slot(&self, in_last_block: u32) -> usize {
        // Steps until then are the tokens missing in its last block.
        match in_last_block as usize {
            0 => self.slot,
            held if self.slot >= held => self.slot - held,
            held => self.slot + self.growth.len() - held,
        }
    }

    /// Adds a request that has generated at least one token and has more to come.
    #[inline(always)]
    pub(crate) fn join(&mut self, id: u32, requests: &mut [RequestState]) {
        if self.members.is_empty() {
            // Short sums are exact ones, and do not depend on whose cohort this was.
            self.spent = Spent::default();
            self.last_token_at_s = requests[id as usize].last_token_at_s;
            self.ends.clear();
            self.longest.clear();
        }
        self.longest.bound(self.step);
        let request = &mut requests[id as usize];
        debug_assert!(request.generated >= 1 && request.generated < request.decode_tokens);
        request.joined_step = self.step;
        request.shares_intervals_since = self.step;
        request.spent_at_join = self.spent;
        request.is_late = request.last_token_at_s != self.last_token_at_s;
        if request.is_late {
            self.late.push(id);
        }
        let context_tokens = request.decode_context_tokens();
        self.context_tokens += context_tokens;
        let left = request.decode_tokens - request.generated;
        self.ends.push(self.step + u64::from(left));
        self.members.push(id);
        if let Some((_, in_last_block)) = self.blocks_of(context_tokens) {
            let slot = self.growth_slot(in_last_block);
            self.growth[slot] += 1;
        }
    }

    /// Writes into the request what the cohort has counted for it, and counts on
    /// without it. The caller removes it from the lists.
    #[inline(always)]
    fn settle(&mut self, id: u32, requests: &mut [RequestState]) {
        let request = &mut requests[id as usize];
        let steps = self.step - request.joined_step;
        request.generated += narrow::<u32, _>(steps);
        request.spent.add(self.spent.since(request.spent_at_join));
        request.note_interval(self.longest.since(request.shares_intervals_since));
        let context_tokens = request.decode_context_tokens();
        self.context_tokens -= context_tokens;
        if let Some((full_blocks, in_last_block)) = self.blocks_of(context_tokens) {
            let held =
                request.window_blocks + u64::from(full_blocks) + u64::from(in_last_block > 0);
            request.blocks = request.blocks.max(held);
            let slot = self.growth_slot(in_last_block);
            self.growth[slot] -= 1;
        }
        if !request.is_late {
            request.last_token_at_s = self.last_token_at_s;
        }
    }

    /// Brings what is told of members that have not ended up to date: when their last token
    /// came, and the longest time between two.
    pub(crate) fn tell_unfinished(&self, requests: &mut [RequestState]) {
        for &id in &self.members {
            let request = &mut requests[id as usize];
            request.note_interval(self.longest.since(request.shares_intervals_since));
            if !request.is_late {
                request.last_token_at_s = self.last_token_at_s;
            }
        }
    }

    /// Takes out the member at a place, up to date.
    #[inline(always)]
    fn expel(&mut self, index: usize, requests: &mut [RequestState]) -> u32 {
        let id = self.members.remove(index);
        self.ends.remove(index);
        self.settle(id, requests);
        if requests[id as usize].is_late {
            self.late.retain(|&late| late != id);
        }
        id
    }

    /// Removes and returns the member that joined last.
    pub(crate) fn pop_last(&mut self, requests: &mut [RequestState]) -> Option<u32> {
        let last = self.members.len().checked_sub(1)?;
        Some(self.expel(last, requests))
    }

    /// Removes a member, wherever it stands.
    pub(crate) fn remove(&mut self, id: u32, requests: &mut [RequestState]) {
        if let Some(index) = self.members.iter().position(|&member| member == id) {
            self.expel(index, requests);
        }
    }

    /// Counts a step that ended at `now_s`: one token for every member.
    #[inline(always)]
    pub(crate) fn advance(
        &mut self,
        now_s: f64,
        spent: Spent,
        requests: &mut [RequestState],
        recorder: &mut impl Recorder,
    ) {
        let interval_s = now_s - self.last_token_at_s;
        let steady = self.members.len() - self.late.len();
        if steady > 0 {
            recorder.token_intervals(interval_s, narrow::<u32, _>(steady));
        }
        let somebody_was_late = !self.late.is_empty();
        if somebody_was_late {
            self.advance_late(now_s, requests, recorder);
        }
        self.longest.note(interval_s);
        self.count_one(now_s, spent);
        if somebody_was_late {
            self.longest.bound(self.step);
        }
    }

    /// The same where nobody is late.
    #[inline(always)]
    pub(crate) fn advance_together(
        &mut self,
        now_s: f64,
        spent: Spent,
        recorder: &mut impl Recorder,
    ) {
        debug_assert!(self.late.is_empty());
        let interval_s = now_s - self.last_token_at_s;
        recorder.token_intervals(interval_s, narrow::<u32, _>(self.members.len()));
        self.longest.note(interval_s);
        self.count_one(now_s, spent);
    }

    #[inline(always)]
    fn count_one(&mut self, now_s: f64, spent: Spent) {
        self.last_token_at_s = now_s;
        self.count_step();
        self.context_tokens += self.members.len() as u64;
        self.spent.add(spent);
    }

    #[inline(always)]
    fn advance_late(
        &mut self,
        now_s: f64,
        requests: &mut [RequestState],
        recorder: &mut impl Recorder,
    ) {
        for late in self.late.drain(..) {
            let request = &mut requests[late as usize];
            request.is_late = false;
            let interval_s = now_s - request.last_token_at_s;
            recorder.token_intervals(interval_s, 1);
            request.note_interval(interval_s);
            request.shares_intervals_since = self.step + 1;
            // The batch has waited since its members' last token; this one longer or shorter.
            request.spent.waiting_s += self.last_token_at_s - request.last_token_at_s;
        }
    }

    /// Several steps in a row, each of which starts when the one before ends; one has
    /// just been counted. They count when [`Self::count_steps`] is called.
    #[inline]
    pub(crate) fn steps(&self) -> Steps<'_> {
        debug_assert!(self.late.is_empty());
        Steps {
            growth: &self.growth,
            made: StepsMade {
                count: 0,
                slot: self.slot,
                spent: self.spent,
            },
        }
    }

    /// Counts `made`, the last of which ended at `now_s`; `longest_s` is the longest time
    /// between two tokens of them, or less if there were none.
    #[inline]
    pub(crate) fn count_steps(&mut self, made: StepsMade, now_s: f64, longest_s: f64) {
        self.longest.note(longest_s);
        self.last_token_at_s = now_s;
        self.step += made.count;
        self.slot = made.slot;
        self.context_tokens += made.count * self.members.len() as u64;
        self.spent = made.spent;
    }

    /// Blocks that so many steps take, at most.
    #[inline]
    pub(crate) fn most_blocks_for(&self, steps: usize) -> u64 {
        // Nobody takes more than a block in as many steps as a block has tokens.
        let rounds = steps.checked_div(self.growth.len());
        rounds.map_or(0, |rounds| (rounds + 1) as u64 * self.members.len() as u64)
    }

    /// How many steps, at most `limit`, are sure to be alike after the next `pending`
    /// (at most one), whose blocks have been taken: no member is done before the end of
    /// the last, and there are blocks for each if `free_blocks` are.
    #[inline]
    pub(crate) fn steps_alike(&self, pending: usize, limit: usize, free_blocks: u64) -> usize {
        if self.members.is_empty() {
            return 0;
        }
        let steps = self.ends.steps_until_done(self.step, limit + pending);
        let steps = steps.saturating_sub(pending);
        if self.most_blocks_for(steps) <= free_blocks {
            return steps;
        }
        let mut needed = 0;
        let growth = self.growth[self.slot..]
            .iter()
            .chain(self.growth.iter().cycle());
        growth
            .skip(pending)
            .take(steps)
            .take_while(|&&blocks| {
                needed += u64::from(blocks);
                needed <= free_blocks
            })
            .count()
    }

    /// After how many of the next steps, at most `limit` and fewer than 63, nobody is sure
    /// to be done; none if not all members' last tokens came together.
    #[inline]
    pub(crate) fn steps_nobody_ends(&self, limit: usize) -> usize {
        if self.members.is_empty() || !self.late.is_empty() {
            return 0;
        }
        self.ends.steps_until_done(self.step, limit + 1) - 1
    }

    /// Whether a member may have all its tokens.
    #[inline]
    pub(crate) fn may_have_finished(&self) -> bool {
        self.ends.may_be_done(self.step)
    }

    /// Takes out the members that have all their tokens, and adds them to `finished`,
    /// which is empty, the lowest number first.
    #[inline(always)]
    pub(crate) fn take_finished(&mut self, requests: &mut [RequestState], finished: &mut Vec<u32>) {
        // Their places at first.
        self.ends.find_done(self.step, finished);
        if let [place] = finished[..] {
            finished[0] = self.expel(place as usize, requests);
            return;
        }
        debug_assert!(self.late.is_empty());
        for place in &mut *finished {
            let id = self.members[*place as usize];
            self.settle(id, requests);
            *place = id;
        }
        if !finished.is_empty() {
            self.ends.remove_done(self.step);
            self.members.retain(|&id| {
                let request = &requests[id as usize];
                request.generated < request.decode_tokens
            });
            finished.sort_unstable();
        }
    }

    /// Appends all of `tail`'s members, keeping the order, and empties it. Work
    /// is proportional to the smaller of the two.
    #[inline]
    pub(crate) fn append(
        self: &mut Box<Self>,
        tail: &mut Box<Self>,
        requests: &mut [RequestState],
    ) {
        if tail.is_empty() {
            return;
        }
        if self.is_empty() {
            std::mem::swap(self, tail);
            return;
        }
        let count = tail.len();
        if self.len() >= count {
            tail.move_to(0, count, self, requests);
            return;
        }
        std::mem::swap(self, tail);
        // `tail` now holds those that go first.
        let count = tail.len();
        tail.move_to(0, count, self, requests);
        bring_to_front(&mut self.members, count);
        self.ends.bring_to_front(count);
    }

    /// Moves the first `count` members into the empty cohort `batch`. Work is
    /// proportional to those moved or those that stay, whichever are fewer.
    pub(crate) fn split_front(
        self: &mut Box<Self>,
        count: usize,
        batch: &mut Box<Self>,
        requests: &mut [RequestState],
    ) {
        debug_assert!(batch.is_empty() && count <= self.len());
        if count <= self.len() / 2 {
            self.move_to(0, count, batch, requests);
        } else {
            std::mem::swap(self, batch);
            batch.move_to(count, batch.len(), self, requests);
        }
    }

    /// Moves the members from place `from` to before `to` to the end of `other`.
    #[inline(always)]
    fn move_to(&mut self, from: usize, to: usize, other: &mut Self, requests: &mut [RequestState]) {
        for index in from..to {
            self.settle(self.members[index], requests);
        }
        if !self.late.is_empty() {
            let moved = &self.members[from..to];
            for &id in moved {
                requests[id as usize].is_late = false;
            }
            self.late.retain(|&id| requests[id as usize].is_late);
        }
        for &id in &self.members[from..to] {
            other.join(id, requests);
        }
        self.members.drain(from..to);
        self.ends.remove_range(from, to);
    }
}

/// Moves the last `count` to the front.
#[inline]
fn bring_to_front(list: &mut Vec<u32>, count: usize) {
    match count {
        // The usual case, in a third of the time.
        1 => {
            if let Some(last) = list.pop() {
                list.insert(0, last);
            }
        }
        _ => list.rotate_right(count),
    }
}

/// The place after `slot` of `size`; 0 of none.
#[inline]
fn next_slot(slot: usize, size: usize) -> usize {
    if slot + 1 < size { slot + 1 } else { 0 }
}

/// Steps of a cohort in a row.
pub(crate) struct Steps<'a> {
    growth: &'a [u32],
    made: StepsMade,
}

/// What steps in a row change with each of them, to be kept in registers.
pub(crate) struct StepsMade {
    count: u64,
    /// Place in `growth` of the next step.
    slot: usize,
    /// The cohort's account.
    spent: Spent,
}

impl StepsMade {
    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

impl Steps<'_> {
    /// Makes a step that took what `times` say on the stages, as [`Cohort::advance`]
    /// does, but for the recorder; returns the blocks it takes.
    #[inline]
    pub(crate) fn make(&mut self, times: &[StageTime]) -> u32 {
        let made = &mut self.made;
        let blocks = self.growth.get(made.slot).copied().unwrap_or(0);
        let mut spent = Spent::default();
        for time in times {
            spent.total_s += time.total_s();
            spent.model_s += time.model_s;
        }
        // Nothing waits.
        made.spent.total_s += spent.total_s;
        made.spent.model_s += spent.model_s;
        made.count += 1;
        made.slot = next_slot(made.slot, self.growth.len());
        blocks
    }

    /// Counts a step that has ended, of which the members have spent `spent`, as
    /// [`Cohort::advance_together`] does, but for the recorder; returns the blocks that
    /// the one after it takes.
    #[inline]
    pub(crate) fn end(&mut self, spent: Spent) -> u32 {
        let made = &mut self.made;
        made.spent.add(spent);
        made.count += 1;
        made.slot = next_slot(made.slot, self.growth.len());
        self.growth.get(made.slot).copied().unwrap_or(0)
    }

    pub(crate) fn made(self) -> StepsMade {
        self.made
    }
}

//! When the members of a cohort are done, by the steps of the cohort.
//!
//! A mark per step, modulo the horizon, says whether somebody may be done after it;
//! only then is the list looked through. Marks outlive members that leave early
//! until their step comes, and say too much of members that end beyond the
//! horizon: both cost a look.
use crate::number::{modulo_u32, narrow};

/// Steps with a mark of their own; most outputs are shorter.
const HORIZON: usize = 1024;
const WORDS: usize = HORIZON / 64;
/// Members that are looked at together.
const BLOCK: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Step after which each member is done, modulo 2^32, in the order of the members.
    steps: Vec<u32>,
    marks: [u64; WORDS],
}

impl Ends {
    /// A mark's word and bit.
    #[inline]
    fn place(step: u64) -> (usize, u32) {
        let slot = narrow::<usize, _>(step) % HORIZON;
        (slot / 64, narrow::<u32, _>(slot) % 64)
    }

    #[inline]
    fn mark(&mut self, step: u64) {
        let (word, bit) = Self::place(step);
        self.marks[word] |= 1 << bit;
    }

    /// Adds a member that is done after step `end`, at the end of the list.
    #[inline]
    pub(super) fn push(&mut self, end: u64) {
        self.mark(end);
        self.steps.push(modulo_u32(end));
    }

    /// Takes a member out.
    #[inline]
    pub(super) fn remove(&mut self, index: usize) {
        self.steps.remove(index);
    }

    /// Takes the members from `from` to before `to` out.
    pub(super) fn remove_range(&mut self, from: usize, to: usize) {
        self.steps.drain(from..to);
        self.marks = [0; WORDS];
        for index in 0..self.steps.len() {
            self.mark(u64::from(self.steps[index]));
        }
    }

    pub(super) fn clear(&mut self) {
        self.steps.clear();
        self.marks = [0; WORDS];
    }

    /// Moves the last `count` members to the front.
    pub(super) fn bring_to_front(&mut self, count: usize) {
        super::bring_to_front(&mut self.steps, count);
    }

    /// Whether somebody may be done after step `now`.
    #[inline]
    pub(super) fn may_be_done(&self, now: u64) -> bool {
        let (word, bit) = Self::place(now);
        self.marks[word] >> bit & 1 == 1
    }

    /// How many steps, at most `limit` and fewer than 64, are sure to be made from `now`
    /// on before the next member is done; nobody is now.
    #[inline]
    pub(super) fn steps_until_done(&self, now: u64, limit: usize) -> usize {
        debug_assert!(limit < 64 && !self.steps.contains(&modulo_u32(now)));
        let (word, bit) = Self::place(now);
        let (first, second) = (self.marks[word], self.marks[(word + 1) % WORDS]);
        let ahead = first >> bit | (second << 1) << (63 - bit);
        // A mark for now is that of a later round.
        ((ahead & !1).trailing_zeros() as usize).min(limit)
    }

    /// Adds the places of the members that are done after step `now`, in order, to
    /// `done`, which is empty: none unless somebody may be done ([`Self::may_be_done`]).
    /// The caller takes them out.
    #[inline(always)]
    pub(super) fn find_done(&mut self, now: u64, done: &mut Vec<u32>) {
        let (word, bit) = Self::place(now);
        let now = modulo_u32(now);
        let mut candidates = 0;
        let mut look_at = |first: usize, ends: &[u32]| {
            // A bit for each, without a way out of the loop: which it will be is hard to
            // foretell.
            let (mut hits, mut is_done) = (0u32, 0u32);
            for (at, &end) in ends.iter().enumerate() {
                hits += u32::from(is_now_or_round_later(end, now));
                is_done |= u32::from(end == now) << at;
            }
            candidates += hits as usize;
            while is_done > 0 {
                done.push(narrow::<u32, _>(first) + is_done.trailing_zeros());
                is_done &= is_done - 1;
            }
        };
        let (blocks, rest) = self.steps.as_chunks::<BLOCK>();
        for (block, ends) in blocks.iter().enumerate() {
            // Several are compared at a time.
            let hits = ends.map(|end| u32::from(is_now_or_round_later(end, now)));
            if hits.iter().sum::<u32>() > 0 {
                look_at(block * BLOCK, ends);
            }
        }
        look_at(blocks.len() * BLOCK, rest);
        if candidates == done.len() {
            self.marks[word] &= !(1 << bit);
        }
    }

    /// Takes all members out that are done after step `now`.
    #[inline]
    pub(super) fn remove_done(&mut self, now: u64) {
        self.steps.retain(|&end| end != modulo_u32(now));
    }
}

/// Whether the mark of step `now` is that of `end`, too.
#[inline]
fn is_now_or_round_later(end: u32, now: u32) -> bool {
    (end ^ now).is_multiple_of(narrow::<u32, _>(HORIZON))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn members_are_done_when_they_said(
            mut lengths in proptest::collection::vec(1u64..3 * HORIZON as u64, 1..60),
            first in prop_oneof![Just(0u64), (u64::from(u32::MAX) - 100)..(u64::from(u32::MAX) + 100)],
            removed in proptest::collection::vec(0usize..60, 0..5),
        ) {
            let mut ends = Ends::default();
            lengths.iter().for_each(|length| ends.push(first + length));
            for index in removed {
                if index + 1 < lengths.len() {
                    ends.remove(index);
                    lengths.remove(index);
                }
            }
            let longest = lengths.iter().max().copied().unwrap_or(0);
            let mut now = first;
            while now - first < longest {
                let next = lengths.iter().map(|length| first + length).filter(|&end| end > now).min();
                let sure = ends.steps_until_done(now, 32) as u64;
                prop_assert!(sure > 0 && next.is_none_or(|next| now + sure <= next));
                now += sure;
                let expected: Vec<u32> = (0..lengths.len() as u32)
                    .filter(|&index| first + lengths[index as usize] == now)
                    .collect();
                prop_assert!(expected.is_empty() || ends.may_be_done(now));
                let mut done = Vec::new();
                ends.find_done(now, &mut done);
                ends.remove_done(now);
                prop_assert_eq!(done, expected);
                lengths.retain(|length| first + length != now);
            }
            prop_assert!(lengths.is_empty());
        }
    }
}

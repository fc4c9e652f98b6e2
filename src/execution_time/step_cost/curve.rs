//! Prices as functions of one figure: straight pieces between knots that are
//! priced when first needed.

use super::lazy::{EMPTY, empty, places, read_or_fill};
use crate::execution_time::StepShape;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Knots per octave, as a power of two: 1.1 to 1.6 % apart.
const KNOTS_LOG2: u32 = 6;
const KNOTS_PER_OCTAVE: usize = 1 << KNOTS_LOG2;
/// Octaves from the first knot on: a factor of 65,536.
const OCTAVES: usize = 16;
/// Shortest argument with a knot. Below, measured curves are not smooth (they
/// jump between one and two keys).
const FIRST_KNOT: f64 = 16.0;
/// Largest bend over three knots, relative. Where a curve bends more (measured
/// tables have corners where neighbours are missing), it is priced anew.
const BEND_MAX: f64 = 3e-3;
const MANTISSA_BITS: u32 = 52;
/// One over the distance of the first knots.
const FIRST_PER_WIDTH: f64 = KNOTS_PER_OCTAVE as f64 / FIRST_KNOT;
/// Mantissa bits below those that choose the knot.
const POSITION_BITS: u32 = MANTISSA_BITS - KNOTS_LOG2;
/// Bits of another NaN than [`EMPTY`]: marks a piece that bends too much.
const BENT: u64 = EMPTY - 1;

/// A knot and the piece of the curve from there to the next.
#[derive(Debug)]
struct Slot {
    /// Price of the knot.
    low: AtomicU64,
    /// What the next knot's is more, written after `low`; or [`BENT`].
    rise: AtomicU64,
}

/// The knots of an octave, and the first of the next.
type Octave = Box<[Slot]>;

fn empty_octave() -> Octave {
    let slot = |_| Slot {
        low: empty(),
        rise: empty(),
    };
    (0..=KNOTS_PER_OCTAVE).map(slot).collect()
}

/// A price as a function of one figure: piecewise linear over knots that are
/// even within each octave and priced when first needed.
#[derive(Debug)]
pub(super) struct Curve {
    octaves: Box<[OnceLock<Octave>]>,
}

impl Curve {
    pub(super) fn new() -> Self {
        Self {
            octaves: places(OCTAVES),
        }
    }

    #[inline]
    fn get(&self, x: f64, price: impl Fn(f64) -> f64) -> f64 {
        match self.cell(x, &price) {
            Some(cell) => cell.at(x),
            None => price(x),
        }
    }

    /// The cell `x` is in; none where the curve is not known or bends too much.
    #[inline]
    pub(super) fn cell(&self, x: f64, price: &impl Fn(f64) -> f64) -> Option<Cell> {
        // Octave, knot and position straight from the bits: the exponent, the
        // leading bits of the mantissa, and the rest of them.
        let bits = x.to_bits();
        let octave = (bits >> MANTISSA_BITS).wrapping_sub(FIRST_KNOT.to_bits() >> MANTISSA_BITS);
        let octave = octave as usize;
        let slots = self.octaves.get(octave)?.get_or_init(empty_octave);
        let index = (bits >> POSITION_BITS) as usize % KNOTS_PER_OCTAVE;
        let slot = &slots[index];
        let rise = match slot.rise.load(Acquire) {
            EMPTY => find_rise(slots, index, |index| price(knot(octave, index))),
            rise => rise,
        };
        // It was there when the rise was found, and is never another.
        let low = f64::from_bits(slot.low.load(Relaxed));
        (rise != BENT).then(|| Cell::new(bits, octave, low, f64::from_bits(rise)))
    }
}

/// Finds how much the piece of number `index` rises, or that it bends.
///
/// It happens once per piece: kept out of where prices are read.
#[cold]
#[inline(never)]
fn find_rise(slots: &[Slot], index: usize, price: impl Fn(usize) -> f64) -> u64 {
    let at = |index: usize| read_or_fill(&slots[index].low, || price(index));
    // Pieces come in pairs, whose three knots tell how straight the curve is.
    let first = index & !1;
    let knots = [at(first), at(first + 1), at(first + 2)];
    let bend = (knots[0] + knots[2] - 2.0 * knots[1]).abs();
    let place = index - first;
    let rise = if bend <= BEND_MAX * knots[1] {
        (knots[place + 1] - knots[place]).to_bits()
    } else {
        BENT
    };
    slots[index].rise.store(rise, Release);
    rise
}

/// A straight piece of a curve.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    /// Least argument in it, and the least beyond it.
    from: f64,
    to: f64,
    /// One over the difference, a power of two.
    per_width: f64,
    low: f64,
    rise: f64,
}

impl Cell {
    /// Reaches nothing.
    const NONE: Self = Self {
        from: 0.0,
        to: 0.0,
        per_width: 0.0,
        low: 0.0,
        rise: 0.0,
    };

    /// The cell of the argument with these `bits`, in this octave.
    #[inline]
    fn new(bits: u64, octave: usize, low: f64, rise: f64) -> Self {
        let within = (1 << POSITION_BITS) - 1;
        // Cells of an octave are twice as wide as those of the one before: exponents say
        // so without a division.
        let per_width = FIRST_PER_WIDTH.to_bits() - ((octave as u64) << MANTISSA_BITS);
        Self {
            from: f64::from_bits(bits & !within),
            to: f64::from_bits((bits | within) + 1),
            per_width: f64::from_bits(per_width),
            low,
            rise,
        }
    }

    /// Whether `x`, not less than the argument it was made for, is in it.
    #[inline]
    fn reaches(&self, x: f64) -> bool {
        x < self.to
    }

    #[inline]
    pub(super) fn at(&self, x: f64) -> f64 {
        self.low + self.rise * ((x - self.from) * self.per_width)
    }
}

/// Argument of a knot; the last of an octave is the first of the next.
fn knot(octave: usize, index: usize) -> f64 {
    let step = FIRST_KNOT * (1u64 << octave) as f64 / KNOTS_PER_OCTAVE as f64;
    step * (KNOTS_PER_OCTAVE + index) as f64
}

/// Mean keys that decodes read in steps in a row: one more in each.
#[derive(Debug, Clone, Copy)]
pub(super) struct MeanKvTokens {
    /// Sum of the contexts before the first step.
    context_tokens: f64,
    decodes: f64,
}

impl MeanKvTokens {
    /// Of the decodes of `shape`, of which there are some, from that step on.
    #[inline]
    pub(super) fn of(shape: &StepShape) -> Self {
        Self {
            context_tokens: shape.decode_context_tokens as f64,
            decodes: f64::from(shape.decode_requests),
        }
    }

    /// In the first step: the mean context, and its own.
    #[inline]
    pub(super) fn first(self) -> f64 {
        1.0 + self.context_tokens / self.decodes
    }

    /// The same `steps` later; sums of whole numbers, as exact as those of integers.
    #[inline]
    fn later(self, steps: u32) -> Self {
        Self {
            context_tokens: self.context_tokens + f64::from(steps) * self.decodes,
            ..self
        }
    }
}

/// Most decodes of a step with a curve of their own.
const CURVES: usize = 2048;

/// Prices of decode attention: a curve over the mean context for every batch
/// size.
#[derive(Debug)]
pub(super) struct DecodeCurves {
    curves: Box<[OnceLock<Curve>]>,
}

impl DecodeCurves {
    pub(super) fn new() -> Self {
        Self {
            curves: places(CURVES),
        }
    }

    /// Price of `batch` decodes of `kv_tokens` keys each.
    #[inline]
    pub(super) fn get(&self, batch: u32, kv_tokens: f64, price: impl Fn(f64) -> f64) -> f64 {
        match self.curves.get(batch as usize) {
            Some(curve) => curve.get_or_init(Curve::new).get(kv_tokens, price),
            None => price(kv_tokens),
        }
    }

    /// The same for steps in a row, in which the decodes read `kv_tokens`: calls `each`
    /// with what comes with a step, and its price.
    #[inline]
    pub(super) fn get_all<T>(
        &self,
        batch: u32,
        mut kv_tokens: MeanKvTokens,
        steps: impl Iterator<Item = T>,
        price: impl Fn(f64) -> f64,
        each: impl Fn(T, f64),
    ) {
        let curve = self.curves.get(batch as usize);
        let curve = curve.map(|curve| curve.get_or_init(Curve::new));
        // Step by step, from piece to piece: how many steps are on one is soon guessed
        // right, and takes longer to compute.
        let mut cell = Cell::NONE;
        for step in steps {
            let x = kv_tokens.first();
            kv_tokens = kv_tokens.later(1);
            if !cell.reaches(x) {
                match curve.and_then(|curve| curve.cell(x, &price)) {
                    Some(found) => cell = found,
                    None => {
                        each(step, price(x));
                        continue;
                    }
                }
            }
            each(step, cell.at(x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn knots_are_even_within_octaves() {
        assert_eq!(knot(0, 0), 16.0);
        assert_eq!(knot(0, 1), 16.25);
        assert_eq!(knot(0, 64), 32.0);
        assert_eq!(knot(1, 0), 32.0);
        assert_eq!(knot(6, 1), 1040.0);
    }

    #[test]
    fn a_straight_line_is_reproduced_between_knots() {
        let curves = DecodeCurves::new();
        let line = |x: f64| 3.0 + 0.25 * x;
        for x in [1.0, 1.03, 2.5, 777.7, 4096.0, 123456.7, 2e6] {
            let got = curves.get(8, x, line);
            assert!((got - line(x)).abs() < 1e-9 * line(x), "{x}: {got}");
        }
    }

    #[test]
    fn a_step_in_the_curve_is_priced_anew() {
        let curves = DecodeCurves::new();
        let jump = |x: f64| if x < 1000.0 { 1.0 } else { 1.5 };
        for x in [990.0, 999.0, 1000.0, 1001.0, 1010.0] {
            assert_eq!(curves.get(8, x, jump), jump(x), "{x}");
        }
    }

    #[test]
    fn knots_are_priced_once() {
        let curves = DecodeCurves::new();
        let calls = std::cell::Cell::new(0);
        let price = |x: f64| {
            calls.set(calls.get() + 1);
            x
        };
        for _ in 0..2 {
            for tokens in 1024..1056 {
                curves.get(8, f64::from(tokens), price);
            }
        }
        assert_eq!(calls.get(), 3, "of the only pair of pieces");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn many_prices_are_those_asked_for_one_by_one(
            context_tokens in 0u32..200_000,
            decodes in prop_oneof![1u32..70, Just(127), Just(1024), Just(CURVES as u32 + 1)],
            steps in 1u32..300,
            jump in 16.0f64..4000.0,
        ) {
            let curve = |x: f64| if x < jump { x.sqrt() } else { 2.0 * x.sqrt() };
            let kv_tokens = MeanKvTokens {
                context_tokens: f64::from(context_tokens),
                decodes: f64::from(decodes),
            };
            let (together, alone) = (DecodeCurves::new(), DecodeCurves::new());
            let mut prices = vec![0.0; steps as usize];
            let set = |price: &mut f64, found| *price = found;
            together.get_all(decodes, kv_tokens, prices.iter_mut(), curve, set);
            let expected: Vec<f64> = (0..steps)
                .map(|step| alone.get(decodes, kv_tokens.later(step).first(), curve))
                .collect();
            prop_assert_eq!(prices, expected);
        }
    }
}

//! Numbers from one type to another where the compiler cannot know that they fit.
//! Bottom of the module order: uses nothing.
//!
//! Counts and sizes are limited where they come in, so that a number which does not
//! fit here is an error of the program, not of its user: the run then fails and says
//! so, where a plain cast would go on with another number.

use std::fmt::Display;

/// The same whole number in another type.
///
/// # Panics
///
/// If it does not fit.
#[inline]
#[track_caller]
pub fn narrow<T, U: TryInto<T> + Copy + Display>(number: U) -> T {
    match number.try_into() {
        Ok(number) => number,
        Err(_) => misfit(number, std::any::type_name::<T>()),
    }
}

#[cold]
#[track_caller]
fn misfit(number: impl Display, target: &str) -> ! {
    panic!("{number} does not fit into {target}")
}

/// Defines how a float becomes a whole number of one type.
macro_rules! whole {
    ($($name:ident -> $whole:ty),*) => {$(
        /// The whole part of `number`; where it does not fit, the nearest number that
        /// does; 0 for one that is none.
        #[inline]
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "floats are cut and saturate, which is what this says"
        )]
        pub const fn $name(number: f64) -> $whole {
            number as $whole
        }
    )*};
}

whole!(
    whole_u32 -> u32,
    whole_u64 -> u64,
    whole_u128 -> u128,
    whole_usize -> usize,
    whole_i32 -> i32,
    whole_i64 -> i64
);

/// A number modulo 2^32.
#[inline]
pub const fn modulo_u32(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}

/// The nearest number of single precision.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "rounds, which is what this says"
)]
pub const fn single(number: f64) -> f32 {
    number as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_the_same() {
        assert_eq!(narrow::<u32, _>(7_usize), 7);
        assert_eq!(narrow::<i64, _>(u64::from(u32::MAX)), 4_294_967_295);
        assert_eq!(whole_u32(3.99), 3);
        assert_eq!(whole_u64(-1.0), 0);
        assert_eq!(whole_i32(1e12), i32::MAX);
        assert_eq!(whole_usize(f64::NAN), 0);
        assert_eq!(single(0.1), 0.1_f32);
        assert_eq!(modulo_u32((5 << 32) + 7), 7);
    }

    #[test]
    #[should_panic(expected = "4294967296 does not fit")]
    fn what_does_not_fit_is_not_cut() {
        narrow::<u32, u64>(1 << 32);
    }
}

//! Minimum, maximum and mean of something that changes now and then.

/// How the mean is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Averaging {
    /// Over time, from 0 to the end of the simulation.
    Time,
    /// Over time, as Vidur does: neither the first segment if it starts at 0 nor
    /// what follows the last change counts.
    TimeBetweenChanges,
    /// Over the values reported, however long each held: Vidur's memory usage.
    Samples,
}

/// Follows one value; it starts as 0.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    averaging: Averaging,
    sum: f64,
    weight: f64,
    last: (f64, f64),
    max: f64,
}

/// What a [`Meter`] says in the end. The minimum is always the initial 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MeterReading {
    pub(super) max: f64,
    pub(super) mean: f64,
}

impl Meter {
    pub(super) fn new(averaging: Averaging) -> Self {
        Self {
            averaging,
            sum: 0.0,
            weight: if averaging == Averaging::Samples {
                1.0
            } else {
                0.0
            },
            last: (0.0, 0.0),
            max: 0.0,
        }
    }

    pub(super) fn put(&mut self, time_s: f64, value: f64) {
        let (last_s, last_value) = self.last;
        match self.averaging {
            Averaging::Samples => {
                self.sum += value;
                self.weight += 1.0;
            }
            Averaging::TimeBetweenChanges if last_s == 0.0 => {}
            Averaging::Time | Averaging::TimeBetweenChanges => {
                self.sum += last_value * (time_s - last_s);
                self.weight += time_s - last_s;
            }
        }
        self.last = (time_s, value);
        self.max = self.max.max(value);
    }

    /// None where nothing has any weight.
    pub(super) fn reading(&self, end_s: f64) -> Option<MeterReading> {
        let mut whole = self.clone();
        if self.averaging == Averaging::Time {
            whole.put(end_s, self.last.1);
        }
        (whole.weight > 0.0).then(|| MeterReading {
            max: whole.max,
            mean: whole.sum / whole.weight,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_weigh_what_they_say() {
        let mean = |averaging| {
            let mut meter = Meter::new(averaging);
            meter.put(0.0, 100.0);
            meter.put(2.0, 0.0);
            meter.put(3.0, 50.0);
            meter.reading(5.0).unwrap().mean
        };
        assert_eq!(mean(Averaging::Time), (200.0 + 100.0) / 5.0);
        assert_eq!(mean(Averaging::TimeBetweenChanges), 0.0);
        assert_eq!(mean(Averaging::Samples), 150.0 / 4.0);
        assert_eq!(Meter::new(Averaging::Time).reading(0.0), None);
    }
}

//! When a launch's last item ends, if each takes the place on the device that is free first.
//!
//! The idea: places that are free at the same time are counted, not kept one by one; and while every place gets an item before
//! any gets a second, a round moves all of them on alike, so that many rounds are one step.

use std::collections::BTreeMap;

/// The end of the last of some runs of items, in their order, each with what one of its items takes and how many there are. Between
/// two items of a place passes `ready`.
pub fn last_end(runs: impl Iterator<Item = (f64, usize)>, places: usize, ready: f64) -> f64 {
    assert!(places > 0, "a device runs a block");
    // How many places are free from when on, in the order of the times: of what is not negative it is that of the bits.
    let mut free = BTreeMap::from([(0.0_f64.to_bits(), places)]);
    for (latency, mut items) in runs {
        let step = ready + latency;
        while items > 0 {
            let [first, last] = [free.first_key_value(), free.last_key_value()]
                .map(|entry| f64::from_bits(*entry.expect("there are places").0));
            if first > 0.0 && last - first <= step && items >= places {
                let rounds = (items / places) as f64;
                let moved = |(from, places)| ((f64::from_bits(from) + rounds * step).to_bits(), places);
                free = std::mem::take(&mut free).into_iter().map(moved).collect();
                items %= places;
                continue;
            }
            let (_, there) = free.pop_first().expect("there are places");
            let (taken, ready) = (there.min(items), if first > 0.0 { ready } else { 0.0 });
            *free.entry((first + ready + latency).to_bits()).or_default() += taken;
            if taken < there {
                free.insert(first.to_bits(), there - taken);
            }
            items -= taken;
        }
    }
    free.last_key_value().map_or(0.0, |(&time, _)| f64::from_bits(time))
}

#[cfg(test)]
mod tests {
    use super::last_end;

    /// One item after the other.
    fn one_by_one(runs: &[(f64, usize)], places: usize, ready: f64) -> f64 {
        let mut free = vec![0.0_f64; places];
        for &(latency, items) in runs {
            for _ in 0..items {
                let first = free.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
                *first += latency + if *first > 0.0 { ready } else { 0.0 };
            }
        }
        free.into_iter().fold(0.0, f64::max)
    }

    #[test]
    fn rounds_at_once_end_when_one_item_after_the_other_does() {
        // Whole numbers, so that sums are exact.
        for places in [1, 2, 3, 7, 13] {
            for runs in [
                &[(5.0, 1)][..],
                &[(5.0, 100)],
                &[(100.0, 3), (10.0, 50), (3.0, 200)],
                &[(100.0, 7), (99.0, 8), (1.0, 500)],
                &[(3.0, 40), (50.0, 20), (4.0, 33)],
            ] {
                for ready in [0.0, 2.0, 1000.0] {
                    let at_once = last_end(runs.iter().copied(), places, ready);
                    assert_eq!(at_once, one_by_one(runs, places, ready), "{runs:?}, {places}, {ready}");
                }
            }
        }
    }
}

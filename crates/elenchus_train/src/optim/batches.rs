//! Which examples a step learns from: a function of seed and step, so that a resumed run needs no memory of it.

use rand::{SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use crate::numeric::mixed;

/// The items of a step, the first being 0. Each epoch has an order of its own.
pub(crate) fn batch<T>(items: &[T], size: usize, seed: u64, step: u64) -> Vec<&T> {
    let batches_per_epoch = items.len().div_ceil(size).max(1) as u64;
    let (epoch, number) = (step / batches_per_epoch, (step % batches_per_epoch) as usize);
    let order = shuffled(items.len(), seed, epoch);
    order.chunks(size).nth(number).unwrap_or_default().iter().map(|&at| &items[at]).collect()
}

/// The same with every batch full: one that reaches over the end of an epoch continues in the next. `items` is not empty.
pub(crate) fn full_batch<T>(items: &[T], size: usize, seed: u64, step: u64) -> Vec<&T> {
    let count = items.len() as u64;
    let first = step * size as u64;
    let mut batch = Vec::new();
    for epoch in first / count..=(first + size as u64 - 1) / count {
        let wanted = first.max(epoch * count)..(first + size as u64).min((epoch + 1) * count);
        let of_epoch = shuffled(items.len(), seed, epoch);
        batch.extend(wanted.map(|number| &items[of_epoch[(number % count) as usize]]));
    }
    batch
}

fn shuffled(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut Pcg64Mcg::seed_from_u64(mixed(seed, u64::MAX - epoch)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_has_everything_once() {
        let items: Vec<usize> = (0..7).collect();
        let all: Vec<usize> = (0..7).flat_map(|step| full_batch(&items, 4, 3, step)).copied().collect();
        assert_eq!(all.len(), 28);
        for epoch in all.chunks(7) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, items, "{epoch:?}");
        }
        assert_ne!(all[..7], all[7..14]);
        assert_eq!(full_batch(&items[..1], 3, 3, 5), [&0, &0, &0]);
    }
}

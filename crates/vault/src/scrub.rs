//! Which packs a scrub reads, and what it may conclude. Pure.
//!
//! A scrub compares ciphertext with the hash in its name: no keys, no plaintext. Invariant: the choice depends on seed
//! and ids alone, so a sample can be named and taken again; what is said about packs that were not read is a
//! probability, with its assumption (damage does not know the seed).

use domain::PackId;

/// What part of a vault to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// Every byte.
    Full,
    /// Packs until at least so many hundredths of a percent of all bytes are read.
    Share { permyriad: u32 },
    /// Packs until at least so many bytes are read.
    Bytes(u64),
}

/// A pack to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub id: PackId,
    pub length: u64,
}

/// Chooses packs in an order that only `seed` decides. At least one, if there is any and the sample is not empty.
pub fn choose(packs: &[Candidate], sample: Sample, seed: u64) -> Vec<PackId> {
    let total: u64 = packs.iter().map(|pack| pack.length).sum();
    let wanted = match sample {
        Sample::Full => return packs.iter().map(|pack| pack.id).collect(),
        Sample::Share { permyriad } => {
            let share = u128::from(total) * u128::from(permyriad);
            u64::try_from(share.div_ceil(10_000)).unwrap_or(u64::MAX)
        }
        Sample::Bytes(bytes) => bytes,
    };
    let mut order: Vec<([u8; 16], &Candidate)> =
        packs.iter().map(|pack| (place(seed, pack.id), pack)).collect();
    order.sort_unstable_by_key(|(place, pack)| (*place, pack.id));
    let mut chosen = Vec::new();
    let mut read = 0_u64;
    for (_, pack) in order {
        if read >= wanted {
            break;
        }
        read = read.saturating_add(pack.length);
        chosen.push(pack.id);
    }
    chosen
}

/// A number nobody can aim a pack's id at without knowing the seed.
fn place(seed: u64, id: PackId) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("everhold scrub sample v1");
    hasher.update(&seed.to_le_bytes()).update(&id.into_bytes());
    let mut place = [0; 16];
    place.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    place
}

/// The chance that reading `read` of `total` packs finds none of `damaged` damaged ones (hypergeometric).
pub fn miss_chance(total: u64, read: u64, damaged: u64) -> f64 {
    let (read, damaged) = (read.min(total), damaged.min(total));
    if damaged == 0 {
        return 1.0;
    }
    if read + damaged > total {
        return 0.0;
    }
    // The smaller factor counts the steps: C(total - damaged, read) / C(total, read) is symmetric.
    let (steps, other) = (read.min(damaged), read.max(damaged));
    let mut chance = 1.0;
    for step in 0..steps {
        let left = total - step;
        chance *= as_float(left - other) / as_float(left);
        if chance < 1e-12 {
            return chance;
        }
    }
    chance
}

/// How many packs `permyriad` hundredths of a percent are; at least one.
pub fn packs_of(total: u64, permyriad: u32) -> u64 {
    let packs = (u128::from(total) * u128::from(permyriad)).div_ceil(10_000);
    u64::try_from(packs).unwrap_or(u64::MAX).clamp(1, total.max(1))
}

/// Exact below 2^53, and no vault has as many packs.
fn as_float(count: u64) -> f64 {
    let (high, low) = ((count >> 32) as u32, (count & u64::from(u32::MAX)) as u32);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use domain::{SeededIds, Timestamp};

    use super::*;

    fn packs(count: u64) -> Vec<Candidate> {
        let (ids, now) = (SeededIds::new(5), Timestamp::from_unix_millis(1_790_000_000_000));
        let pack = |n: u64| Candidate { id: PackId::fresh(&ids, now), length: 1_000 + n % 7 };
        (0..count).map(pack).collect()
    }

    #[test]
    fn a_sample_reads_the_share_asked_for_and_not_much_more() {
        let packs = packs(1_000);
        let total: u64 = packs.iter().map(|pack| pack.length).sum();
        for permyriad in [1, 50, 500, 5_000, 9_999] {
            let chosen = choose(&packs, Sample::Share { permyriad }, 7);
            let read: u64 = packs.iter().filter(|p| chosen.contains(&p.id)).map(|p| p.length).sum();
            let wanted = total * u64::from(permyriad) / 10_000;
            assert!(read >= wanted && read <= wanted + 2_000, "{permyriad}: {read} of {wanted}");
        }
        assert_eq!(choose(&packs, Sample::Full, 7).len(), 1_000);
        assert!(choose(&packs, Sample::Bytes(0), 7).is_empty());
        assert_eq!(choose(&packs, Sample::Bytes(1), 7).len(), 1);
    }

    #[test]
    fn the_seed_decides_and_decides_the_same_twice() {
        let packs = packs(500);
        let take = |seed| choose(&packs, Sample::Share { permyriad: 1_000 }, seed);
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        let mut shuffled = packs.clone();
        shuffled.reverse();
        let sample = Sample::Share { permyriad: 1_000 };
        assert_eq!(choose(&shuffled, sample, 1), take(1));
    }

    #[test]
    fn a_month_of_daily_samples_reads_nearly_everything() {
        let packs = packs(300);
        let mut seen = std::collections::BTreeSet::new();
        for day in 0..60 {
            seen.extend(choose(&packs, Sample::Share { permyriad: 500 }, day));
        }
        assert!(seen.len() > 270, "{}", seen.len());
    }

    #[test]
    fn the_chance_to_miss_is_the_hypergeometric_one() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(miss_chance(10, 0, 3), 1.0));
        assert!(near(miss_chance(10, 10, 1), 0.0));
        assert!(near(miss_chance(10, 5, 1), 0.5));
        assert!(near(miss_chance(10, 3, 2), 7.0 * 6.0 / (10.0 * 9.0)));
        assert!(near(miss_chance(10, 2, 3), 7.0 * 6.0 / (10.0 * 9.0)));
        assert!(near(miss_chance(0, 0, 0), 1.0));
        assert!(miss_chance(1_000_000, 50_000, 10_000) < 1e-12);
        assert_eq!((packs_of(1_000, 1), packs_of(1_000, 100), packs_of(0, 100)), (1, 10, 1));
    }
}

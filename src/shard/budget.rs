//! Budgets per second: what this worker answers to segments that belong to no live connection, and what it passes on.
//!
//! What is answered can be counted by whoever it is sent to. Were there one budget for all, an off-path attacker who uses it
//! up from an address of its own would see by what is left whether segments that it forged in another's name were answered
//! too, and so whether a connection is there (RFC 5961 §7, CVE-2016-5696). Hence [`PartedBudget`]: addresses are spread over
//! parts by a keyed hash, no part takes from another, and how much a part has is drawn anew every second. Challenge ACKs
//! have a budget of their own in each connection.

use crate::time::Time;
use crate::wire::Addr;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// So many per second, counted in whole seconds of the worker's clock. What depends on it must not be seen from outside.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    per_second: u32,
    second: u64,
    used: u32,
}

impl Budget {
    /// A budget of `per_second`.
    #[must_use]
    pub const fn new(per_second: u32) -> Self {
        Self { per_second, second: 0, used: 0 }
    }

    /// Takes one, if one is left in this second.
    #[must_use]
    pub fn take(&mut self, now: Time) -> bool {
        let second = now.millis() / 1000;
        if second != self.second {
            self.second = second;
            self.used = 0;
        }
        let ok = self.used < self.per_second;
        self.used += u32::from(ok);
        ok
    }
}

/// Parts of a budget. More: less for the peers behind one address, such as those of a load balancer; fewer: more likely that
/// an attacker has an address in the part of its victim, where it can at best read what the draw does not blur.
const PARTS: u32 = 16;
/// Least size of a part, in answers per second: a smaller budget has fewer of them.
const LEAST_PART: u32 = 100;

/// Least share of which a limit is drawn, in answers per second: of a smaller one the half would be next to nothing.
const LEAST_DRAWN: u32 = 8;

/// So many per second at most, in parts by the remote address, each of which has between one half and all of its share.
#[derive(Clone, Debug)]
pub struct PartedBudget {
    hasher: SipHasher13,
    /// Most that a part may have.
    share: u32,
    second: u64,
    /// What is left of each part.
    left: Box<[u32]>,
}

impl PartedBudget {
    /// A budget of `per_second`; `key` is secret.
    #[must_use]
    pub fn new(per_second: u32, key: (u64, u64)) -> Self {
        let parts = (per_second / LEAST_PART).clamp(1, PARTS);
        let left = vec![0; parts as usize].into_boxed_slice();
        let hasher = SipHasher13::new_with_keys(key.0, key.1);
        Self { hasher, share: per_second / parts, second: u64::MAX, left }
    }

    /// Takes one for an answer to this address, if its part has one left in this second.
    #[must_use]
    pub fn take(&mut self, remote: &Addr, now: Time) -> bool {
        let second = now.millis() / 1000;
        if second != self.second {
            self.second = second;
            let most = if self.share < LEAST_DRAWN { 0 } else { self.share / 2 };
            for part in 0..self.left.len() {
                let spared = self.hash(second, part as u64) % (u64::from(most) + 1);
                self.left[part] = self.share - spared as u32;
            }
        }
        // Whoever has an IPv6 address has all of its subnet.
        let bytes = u128::from_be_bytes(*remote.octets());
        let owner = if remote.is_v4() { bytes } else { bytes >> 64 };
        let part = self.hash(owner as u64, u64::MAX) % self.left.len() as u64;
        let left = &mut self.left[part as usize];
        let ok = *left > 0;
        *left -= u32::from(ok);
        ok
    }

    fn hash(&self, a: u64, b: u64) -> u64 {
        let mut h = self.hasher;
        h.write_u64(a);
        h.write_u64(b);
        h.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    fn host(n: u8) -> Addr {
        Addr::v4([192, 0, 2, n])
    }

    /// How many of `tries` are taken.
    fn taken(b: &mut PartedBudget, remote: &Addr, tries: u32, now: Time) -> u32 {
        (0..tries).map(|_| u32::from(b.take(remote, now))).sum()
    }

    #[test]
    fn r07_a_budget_refills_each_second() {
        let mut b = Budget::new(2);
        assert!(b.take(at(100)) && b.take(at(200)) && !b.take(at(999)));
        assert!(b.take(at(1000)) && b.take(at(1001)) && !b.take(at(1002)));
    }

    #[test]
    fn r07_all_parts_together_have_no_more_than_the_budget_and_one_at_least_half_its_share() {
        for (per_second, parts) in
            [(0, 1), (1, 1), (5, 1), (350, 3), (1000, 10), (10_000, 16), (u32::MAX, 16)]
        {
            let mut b = PartedBudget::new(per_second, (1, 2));
            assert_eq!(b.left.len(), parts, "{per_second}");
            let share = per_second / parts as u32;
            for second in 1..20 {
                let _ = b.take(&host(1), at(1000 * second));
                let all: u64 = b.left.iter().map(|&n| u64::from(n)).sum::<u64>() + u64::from(per_second > 0);
                assert!(all <= u64::from(per_second), "{per_second}: {all}");
                assert!(b.left.iter().all(|&n| n + 1 >= share - share / 2 && n <= share), "{per_second}");
            }
        }
    }

    #[test]
    fn r07_what_an_address_gets_says_nothing_of_what_others_got() {
        let alone = |seconds: &[u64], others: &[u8]| -> Vec<u32> {
            let mut b = PartedBudget::new(10_000, (3, 4));
            seconds
                .iter()
                .map(|&s| {
                    for &n in others {
                        let _ = taken(&mut b, &host(n), 1000, at(1000 * s));
                    }
                    taken(&mut b, &host(1), 1000, at(1000 * s + 500))
                })
                .collect()
        };
        let seconds = [7, 8, 9, 10, 11, 12];
        let quiet = alone(&seconds, &[]);
        let (same, other): (Vec<u8>, Vec<u8>) = (2..=255).partition(|&n| alone(&[7], &[n]) != quiet[..1]);
        assert!((1..40).contains(&same.len()), "one in 16 or so is in the same part: {same:?}");
        assert_eq!(alone(&seconds, &other), quiet, "all others together change nothing");
    }

    #[test]
    fn r04_how_much_a_part_has_is_another_in_every_second_and_under_every_key() {
        let mut seen = HashSet::new();
        for key in 0..10 {
            let mut b = PartedBudget::new(10_000, (key, key));
            seen.extend((1..=20).map(|s| taken(&mut b, &host(1), 1000, at(1000 * s))));
        }
        assert!(seen.iter().all(|n| (313..=625).contains(n)), "{seen:?}");
        assert!(seen.len() > 80, "200 draws of 313 numbers: {}", seen.len());
    }

    #[test]
    fn r07_an_ipv6_subnet_has_one_part_however_many_addresses_it_has() {
        let mut b = PartedBudget::new(10_000, (5, 6));
        let mut got = 0;
        for n in 0..=255 {
            let mut a = [0x20; 16];
            (a[7], a[15]) = (1, n);
            got += taken(&mut b, &Addr::v6(a), 10, at(3000));
        }
        assert!((313..=625).contains(&got), "{got}");
    }
}

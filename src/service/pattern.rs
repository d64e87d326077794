//! Payload that both ends can compute: byte `i` of stream `seed`, without keeping any of it.
//!
//! A driver sends it and checks what comes back against it; a service's own data (see [`super::scripted`]) is made of
//! it too. Wrong order, loss, doubling or a stale buffer shows as a wrong byte with overwhelming probability.

/// The finaliser of `SplitMix64`: spreads a counter over 64 bits.
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Fills `out` with the bytes of stream `seed` from `offset` on.
pub fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    let mut word = offset / 8;
    let mut skip = (offset % 8) as usize;
    let mut rest = out;
    while !rest.is_empty() {
        let bytes = mix(seed ^ mix(word)).to_le_bytes();
        let n = rest.len().min(8 - skip);
        let (now, later) = rest.split_at_mut(n);
        now.copy_from_slice(&bytes[skip..skip + n]);
        rest = later;
        skip = 0;
        word += 1;
    }
}

/// The first place, counted from `offset`, where `got` is not what stream `seed` says; `None` when all is right.
#[must_use]
pub fn mismatch(seed: u64, offset: u64, got: &[u8]) -> Option<u64> {
    let mut want = [0u8; 512];
    let mut at = offset;
    for part in got.chunks(want.len()) {
        let want = &mut want[..part.len()];
        fill(seed, at, want);
        if let Some(i) = part.iter().zip(want.iter()).position(|(a, b)| a != b) {
            return Some(at + i as u64);
        }
        at += part.len() as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_slice_of_a_stream_is_the_same_as_the_whole(seed in any::<u64>(), from in 0usize..900, len in 0usize..900) {
            let mut whole = [0u8; 2000];
            fill(seed, 0, &mut whole);
            let mut part = vec![0u8; len];
            fill(seed, from as u64, &mut part);
            prop_assert_eq!(&part[..], &whole[from..from + len]);
            prop_assert_eq!(mismatch(seed, from as u64, &part), None);
        }

        #[test]
        fn a_wrong_byte_is_found_where_it_is(seed in any::<u64>(), at in 0usize..2000) {
            let mut whole = [0u8; 2000];
            fill(seed, 100, &mut whole);
            whole[at] ^= 0x10;
            prop_assert_eq!(mismatch(seed, 100, &whole), Some(100 + at as u64));
        }
    }

    #[test]
    fn streams_differ() {
        let (mut a, mut b) = ([0u8; 64], [0u8; 64]);
        fill(1, 0, &mut a);
        fill(2, 0, &mut b);
        assert!(a.iter().zip(&b).filter(|(a, b)| a == b).count() < 8);
    }
}

//! The keyed hash of 4-tuples, by which the [index](super::index) finds a record.
//!
//! A peer chooses its tuples and must not be able to make them meet in one bucket, so the hash has a secret key. It never
//! leaves the process: a peer learns of two tuples at most that they meet. So the chance that two of them meet, over the
//! choice of the key, is all there is to ask for, and four rounds of AES, each with a key of its own, give that: a
//! difference of inputs becomes any one difference of outputs with a probability below 2⁻¹¹³ (Keliher and Sui, "Exact maximum
//! expected differential and linear probability for two-round AES", IET Information Security 2007, bound it for four
//! rounds), and as a chain over blocks they are what Minematsu and Tsunoo build a MAC from ("Provably Secure MACs from
//! Differentially-Uniform Permutations and AES-Based Implementations", FSE 2006). The processor does a round in one
//! instruction: a tuple of IPv4 is one block, and costs a tenth of a SipHash. Sequence numbers and cookies, which peers do
//! see, stay with SipHash ([`crate::tcp::isn`]).
//!
//! Where the processor has no such instruction, it is SipHash-1-3 here too.

use crate::wire::Tuple;
use crate::wire::pair::{Pair, Pair4, Pair6};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Sixteen bytes of what is hashed, as two words.
pub(crate) type Block = [u64; 2];

/// The hash, under one key.
#[derive(Clone, Copy, Debug)]
pub enum TupleHasher {
    /// By the processor's AES.
    #[cfg(target_arch = "x86_64")]
    Rounds(aes::FourRounds),
    /// Without it.
    Sip(SipHasher13),
}

impl TupleHasher {
    /// With a key of 128 random bits, drawn anew at every start.
    #[must_use]
    pub fn new(k0: u64, k1: u64) -> Self {
        let sip = SipHasher13::new_with_keys(k0, k1);
        #[cfg(target_arch = "x86_64")]
        if let Some(rounds) = aes::FourRounds::new(|n| {
            let mut words = sip;
            words.write_u64(n);
            words.finish()
        }) {
            return Self::Rounds(rounds);
        }
        Self::Sip(sip)
    }

    /// The hash of a tuple: over one block where both ends are IPv4, else over three.
    #[must_use]
    #[inline]
    pub fn hash(&self, t: &Tuple) -> u64 {
        if t.is_v4() { self.of_pair(&Pair4::of(t)) } else { self.of_pair(&Pair6::of(t)) }
    }

    /// The hash of the tuple that a pair of its family stands for.
    #[must_use]
    #[inline]
    pub fn of_pair(&self, pair: &impl Pair) -> u64 {
        let blocks = pair.blocks();
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Rounds(rounds) => rounds.hash(blocks),
            Self::Sip(sip) => {
                let mut sip = *sip;
                for word in blocks.as_ref().as_flattened() {
                    sip.write_u64(*word);
                }
                sip.finish()
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod aes {
    #![allow(unsafe_code)]

    use super::Block;
    use std::arch::x86_64::{__m128i, _mm_aesenc_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_xor_si128};

    /// The keys of the chain. There is one only where the processor has AES.
    #[derive(Clone, Copy, Debug)]
    pub struct FourRounds([__m128i; 5]);

    impl FourRounds {
        /// With keys of these words, each asked for once by its number; `None` when the processor does not know AES.
        pub fn new(word: impl Fn(u64) -> u64) -> Option<Self> {
            is_x86_feature_detected!("aes").then(|| {
                Self(std::array::from_fn(|n| {
                    let n = 2 * n as u64;
                    vector([word(n), word(n + 1)])
                }))
            })
        }

        #[inline]
        pub fn hash(&self, blocks: impl AsRef<[Block]>) -> u64 {
            // SAFETY: `new` has found that the processor has these instructions.
            unsafe { chain(&self.0, blocks) }
        }
    }

    #[inline]
    fn vector([low, high]: Block) -> __m128i {
        // SAFETY: SSE2 is part of the architecture.
        unsafe { _mm_set_epi64x(high.cast_signed(), low.cast_signed()) }
    }

    #[target_feature(enable = "aes")]
    fn chain(keys: &[__m128i; 5], blocks: impl AsRef<[Block]>) -> u64 {
        let [whitening, rounds @ ..] = keys;
        let mut state = *whitening;
        for &block in blocks.as_ref() {
            state = _mm_xor_si128(state, vector(block));
            for &key in rounds {
                state = _mm_aesenc_si128(state, key);
            }
        }
        _mm_cvtsi128_si64(state).cast_unsigned()
    }
}

#[cfg(test)]
mod tests;

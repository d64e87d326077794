//! A keyed function of a connection's 4-tuple that nobody can tell from a random one without the key: where its record lies in
//! the index, and what is hidden in its sequence numbers and timestamps.
//!
//! A peer chooses its tuples. It must not be able to make them meet in one bucket of the index, nor to tell from one
//! connection's numbers those of another (RFC 6528 §3, RFC 7323 §5.4). AES-128 is such a function over one block, which is what a
//! tuple of IPv4 fills; one of IPv6 is a chain of three (CBC-MAC, which is as good where no message begins with another:
//! a word that only IPv4 sets tells them apart). Processors have AES as instructions: a block costs a quarter of a SipHash-1-3
//! there. Elsewhere the library does it in software, in constant time and slowly.

use crate::wire::Tuple;
use crate::wire::pair::{Pair, Pair4, Pair6};
use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};

/// The function, under one key.
#[derive(Clone, Debug)]
pub struct TuplePrf(Aes128);

impl TuplePrf {
    /// Under a key of 128 random bits.
    #[must_use]
    pub fn new(k0: u64, k1: u64) -> Self {
        Self(Aes128::new(&bytes([k0, k1]).into()))
    }

    /// Its value for a tuple.
    #[must_use]
    #[inline]
    pub fn of(&self, t: &Tuple) -> u64 {
        if t.is_v4() { self.of_pair(&Pair4::of(t)) } else { self.of_pair(&Pair6::of(t)) }
    }

    /// Its value for the tuple that a pair of its family stands for.
    #[must_use]
    #[inline]
    pub fn of_pair(&self, pair: &impl Pair) -> u64 {
        let mut state = [0; 2];
        for block in pair.blocks().as_ref() {
            let mut mixed = bytes([state[0] ^ block[0], state[1] ^ block[1]]).into();
            self.0.encrypt_block(&mut mixed);
            let n = u128::from_le_bytes(mixed.into());
            state = [n as u64, (n >> 64) as u64];
        }
        state[0]
    }
}

fn bytes([low, high]: [u64; 2]) -> [u8; 16] {
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}

#[cfg(test)]
mod tests;

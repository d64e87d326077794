//! Memory of the large tables: reserved at start, in huge pages where the kernel has them, and fetched ahead.
//!
//! A table of ten million records lies in 80,000 small pages, many more than the processor keeps translations of, so nearly
//! each access to it would wait for a walk through the page tables first. With pages of 2 MiB there are 150. Nothing is
//! needed for that but the kernel's leave: `/sys/kernel/mm/transparent_hugepage/enabled` says `madvise` or `always`. Where
//! it says `never`, all works as before, slower.
//!
//! Needs no privilege. System calls: madvise(2), once for each table at start.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Bytes from which on a table asks for huge pages. Lower: small tables take a whole one each; higher: tables of medium
/// size go without.
const HUGE_FROM: usize = 4 << 20;

/// Bytes of a page: what madvise(2) counts in.
const PAGE: usize = 4096;

/// An empty vector with room for `n`, which it must not outgrow. Pages are touched on first use.
///
/// # Panics
///
/// If the memory cannot be reserved.
#[must_use]
pub fn reserve<T>(n: usize) -> Vec<T> {
    let mut v = Vec::with_capacity(n);
    prefer_huge_pages(v.spare_capacity_mut());
    v
}

/// `n` bytes of zeros. Pages are touched on first use.
///
/// # Panics
///
/// If the memory cannot be reserved.
#[must_use]
pub fn zeroed(n: usize) -> Box<[u8]> {
    // The allocator takes memory of this size from the kernel, which gives it zeroed.
    let mut bytes = vec![0; n].into_boxed_slice();
    let len = bytes.len();
    // SAFETY: initialised bytes are valid as bytes that may be uninitialised, and nothing is written through this view.
    let view = unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<MaybeUninit<u8>>(), len) };
    prefer_huge_pages(view);
    bytes
}

/// Asks for huge pages for the whole pages of a table. That they are not to be had is no error: the table is the same.
fn prefer_huge_pages<T>(table: &mut [MaybeUninit<T>]) {
    let bytes = size_of_val(table);
    if bytes < HUGE_FROM {
        return;
    }
    let from = table.as_mut_ptr().cast::<u8>();
    let skip = from.align_offset(PAGE);
    let len = (bytes - skip) / PAGE * PAGE;
    // SAFETY: the range lies within the table, which is borrowed for the time of the call; the advice changes how the
    // kernel backs the pages and not what they hold.
    let answer = unsafe { libc::madvise(from.add(skip).cast(), len, libc::MADV_HUGEPAGE) };
    if answer != 0 {
        tracing::debug!("no huge pages for a table of {bytes} bytes: {}", std::io::Error::last_os_error());
    }
}

/// Has the cache line with the beginning of an element fetched, without waiting for it. Of an element that is not there,
/// nothing.
#[inline]
pub fn prefetch<T>(table: &[T], at: usize) {
    prefetch_part(table, at, 0);
}

/// Like [`prefetch`], for the line that is `offset` bytes into the element.
#[inline]
pub fn prefetch_part<T>(table: &[T], at: usize, offset: usize) {
    let Some(element) = table.get(at) else { return };
    let line = std::ptr::from_ref(element).cast::<i8>().wrapping_add(offset);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program sees, and faults for no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_memory_is_there_and_stays_where_it_is() {
        let mut v = reserve::<u64>(1 << 20);
        let begin = v.as_ptr();
        v.resize(1 << 20, 7);
        assert_eq!((v.as_ptr(), v.capacity()), (begin, 1 << 20));
        assert!(v.iter().all(|&n| n == 7));
    }

    #[test]
    fn zeroed_memory_is_zero() {
        let bytes = zeroed((8 << 20) + 1);
        assert_eq!(bytes.len(), (8 << 20) + 1);
        assert!(bytes.iter().all(|&b| b == 0));
        assert!(zeroed(0).is_empty());
    }

    #[test]
    fn asking_for_what_is_not_there_does_nothing() {
        prefetch::<u8>(&[], 0);
        prefetch(&[1, 2, 3], usize::MAX);
        prefetch_part(&[1, 2, 3], 2, usize::MAX);
    }
}

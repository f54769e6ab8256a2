//! Memory, copies and fills.

use vgpu::driver::memory::*;
use vgpu::driver::stream::{cuStreamCreate, cuStreamSynchronize};

use super::{alloc, alone, download, start, upload};

fn free_bytes() -> usize {
    let (mut free, mut total) = (0, 0);
    // SAFETY: pointers to local variables.
    unsafe { assert_eq!(cuMemGetInfo_v2(&mut free, &mut total), 0) };
    assert!(free <= total);
    free
}

#[test]
fn what_is_taken_is_given_back() {
    let body = || {
        start();
        let before = free_bytes();
        let a = alloc(1000).unwrap();
        assert!(a.is_multiple_of(256) && before - free_bytes() >= 1000);
        assert_eq!(alloc(0), Err(1));
        assert_eq!(alloc(1 << 21), Err(2), "there is a megabyte");
        assert_eq!(cuMemFree_v2(a), 0);
        assert_eq!(free_bytes(), before);
        assert_eq!(cuMemFree_v2(a), 1, "it is free already");
        assert_eq!(cuMemFree_v2(0), 0);
    };
    if let Some(ended) = alone("memory::what_is_taken_is_given_back", &[("VGPU_MEMORY", "1048576")], body) {
        let ended = ended.fine();
        assert_eq!((ended.number("/allocations/calls"), ended.number("/allocations/bytes")), (1, 1000));
        assert!(ended.report["live"].as_array().unwrap().is_empty());
    }
}

#[test]
fn copies_keep_to_their_bounds() {
    let body = || {
        start();
        let (a, b) = (alloc(64).unwrap(), alloc(64).unwrap());
        let words: Vec<u32> = (0..16).collect();
        assert_eq!(upload(a, &words), 0);
        assert_eq!(download(a, 16), Ok(words.clone()));
        assert_eq!(download(a + 32, 8), Ok(words[8..].to_vec()));
        assert_eq!(cuMemcpyDtoD_v2(b + 4, a, 60), 0);
        assert_eq!(download(b + 4, 15), Ok(words[..15].to_vec()));
        assert_eq!(upload(a + 4, &words), 1);
        assert_eq!(download(a + 4, 16), Err(1));
        assert_eq!(cuMemcpyDtoD_v2(b, a + 4, 64), 1);
        assert_eq!(cuMemsetD32_v2(a, 7, 17), 1);
        assert_eq!(upload(12, &words), 1, "no address of the device");
        assert_eq!(upload(a, &[]), 0);
    };
    if let Some(ended) = alone("memory::copies_keep_to_their_bounds", &[], body) {
        let ended = ended.fine();
        assert_eq!(ended.report["live"].as_array().unwrap().len(), 2, "two are left");
        assert!(ended.report["faults"].as_array().unwrap().len() >= 5);
    }
}

#[test]
fn fills_of_all_widths() {
    let body = || {
        start();
        let a = alloc(16).unwrap();
        assert_eq!(cuMemsetD8_v2(a, 0xab, 16), 0);
        assert_eq!(cuMemsetD16_v2(a + 4, 0x1234, 2), 0);
        assert_eq!(cuMemsetD32_v2(a + 8, 0xdead_beef, 1), 0);
        assert_eq!(download(a, 4), Ok(vec![0xabab_abab, 0x1234_1234, 0xdead_beef, 0xabab_abab]));
        let mut stream = 0;
        // SAFETY: the pointer is to a local variable.
        unsafe { assert_eq!(cuStreamCreate(&mut stream, 0), 0) };
        assert_eq!(cuMemsetD8Async(a, 1, 4, stream), 0);
        assert_eq!(cuMemsetD16Async(a + 4, 2, 2, stream), 0);
        assert_eq!(cuMemsetD32Async(a + 8, 3, 2, stream), 0);
        assert_eq!(cuStreamSynchronize(stream), 0);
        assert_eq!(download(a, 4), Ok(vec![0x0101_0101, 0x0002_0002, 3, 3]));
    };
    if let Some(ended) = alone("memory::fills_of_all_widths", &[], body) {
        assert_eq!(ended.fine().number("/fills/calls"), 6);
    }
}

/// Who does not wait sees what a slow device would have left.
#[test]
fn a_copy_arrives_when_it_is_waited_for() {
    let body = || {
        start();
        let a = alloc(4).unwrap();
        let mut stream = 0;
        let mut found = 1_u32;
        // SAFETY: pointers to local variables, which live until the stream is waited for.
        unsafe {
            // A stream that does not keep to one order with the default stream.
            assert_eq!(cuStreamCreate(&mut stream, 1), 0);
            let given = 5_u32;
            assert_eq!(cuMemcpyHtoDAsync_v2(a, (&raw const given).cast(), 4, stream), 0);
            assert_eq!(cuMemcpyDtoHAsync_v2((&raw mut found).cast(), a, 4, stream), 0);
            assert_eq!((&raw const found).read_volatile(), 1);
            assert_eq!(cuStreamSynchronize(stream), 0);
            assert_eq!((&raw const found).read_volatile(), 5);
        }
    };
    if let Some(ended) = alone("memory::a_copy_arrives_when_it_is_waited_for", &[], body) {
        ended.fine();
    }
}

#[test]
fn memory_of_the_host() {
    let body = || {
        start();
        let mut address = 0;
        // SAFETY: the pointer is to a local variable; the memory is written within its bounds.
        unsafe {
            assert_eq!(cuMemAllocHost_v2(&mut address, 4096), 0);
            std::slice::from_raw_parts_mut(address as *mut u8, 4096).fill(3);
            assert_eq!(cuMemFreeHost(address), 0);
            assert_eq!(cuMemFreeHost(address), 1);
        }
    };
    if let Some(ended) = alone("memory::memory_of_the_host", &[], body) {
        ended.fine();
    }
}

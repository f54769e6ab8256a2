//! Takes a fuzzer's input apart into pairs of byte strings: a byte with the length of the first, two
//! with that of the second (low byte first), then both. What is too short ends early.

/// The pairs in `input`.
pub fn frames(mut input: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let take = |input: &mut &[u8], length: usize| {
        let (head, tail) = input.split_at(length.min(input.len()));
        *input = tail;
        head.to_vec()
    };
    let mut frames = Vec::new();
    while let [first, low, high, rest @ ..] = input {
        let lengths = (
            usize::from(*first),
            usize::from(u16::from_le_bytes([*low, *high])),
        );
        input = rest;
        let key = take(&mut input, lengths.0);
        frames.push((key, take(&mut input, lengths.1)));
    }
    frames
}

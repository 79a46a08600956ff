//! Chunked bodies: any split decodes the same, and as a decoder does that has the whole body before it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muelle::http::{Chunked, Refusal};
use muelle::limits::{HTTP_CHUNK_EXTENSION_MAX, HTTP_TRAILERS_MAX};

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (offer, room, wire) = input;
    let whole = decode(wire, wire.len(), wire.len());
    let split = decode(wire, 1 + usize::from(offer), 1 + usize::from(room));
    assert_eq!(whole, split);
    if let Ok((taken, body, done)) = &whole {
        assert!(body.len() <= *taken && *taken <= wire.len());
        assert!(*done || *taken == wire.len());
    }
    let ended = whole.ok().filter(|(.., done)| *done).map(|(taken, body, _)| (taken, body));
    assert_eq!(ended, model(wire));
});

/// The bytes taken, the body, and whether it ended. More arrives only when the rest was taken, or it would not be a split.
fn decode(wire: &[u8], offer: usize, room: usize) -> Result<(usize, Vec<u8>, bool), Refusal> {
    let (mut chunked, mut body, mut output) = (Chunked::default(), Vec::new(), vec![0; room.max(1)]);
    let (mut offered, mut taken) = (0, 0);
    while !chunked.is_done() && taken < wire.len() {
        if taken == offered {
            offered = wire.len().min(offered + offer);
        }
        let (count, written) = chunked.decode(&wire[taken..offered], &mut output)?;
        assert!(count > 0, "it goes on");
        taken += count;
        body.extend_from_slice(&output[..written]);
    }
    Ok((taken, body, chunked.is_done()))
}

/// The length of a whole chunked body at the start of `wire` and what it holds; `None` for one that is wrong or not whole.
fn model(wire: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut rest = wire;
    let mut body = Vec::new();
    loop {
        let head = line(&mut rest)?;
        let (size, extension) = match head.iter().position(|byte| *byte == b';') {
            Some(at) => (&head[..at], &head[at + 1..]),
            None => (head, &head[..0]),
        };
        if extension.len() > HTTP_CHUNK_EXTENSION_MAX || size.len() > 16 || size.contains(&b'+') {
            return None;
        }
        let size = usize::try_from(u64::from_str_radix(str::from_utf8(size).ok()?, 16).ok()?).ok()?;
        if size == 0 {
            break;
        }
        let (chunk, behind) = rest.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        rest = behind.strip_prefix(b"\r\n")?;
    }
    let mut spent = 0;
    loop {
        let trailer = line(&mut rest)?;
        if trailer.is_empty() {
            return Some((wire.len() - rest.len(), body));
        }
        spent += trailer.len() + 1;
        if spent > HTTP_TRAILERS_MAX {
            return None;
        }
    }
}

/// The next line without its CRLF; none with a control byte in it but a tab.
fn line<'w>(rest: &mut &'w [u8]) -> Option<&'w [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, behind) = rest.split_at(end);
    *rest = &behind[2..];
    line.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t').then_some(line)
}

//! Takes chunked bodies apart (RFC 9112 §7.1).
//!
//! Pure: bytes in, bytes out, no socket and no clock; any split of the input gives the same output. Chunk extensions are read
//! over, trailers are dropped: nothing in them may reach whoever trusts the head. Must not know who reads the body.

use super::Refusal;
use super::head::{hex, is_control};
use crate::limits::{HTTP_CHUNK_EXTENSION_MAX, HTTP_TRAILERS_MAX};

/// A chunked body in the middle of being read.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Bytes of the present chunk still to come; while its size is read, the size so far.
    left: u64,
    /// Bytes of the present extension or of the trailers.
    spent: usize,
}

/// What the next byte has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8 },
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf { last: bool },
    Done,
}

impl Default for State {
    fn default() -> State {
        State::Size { digits: 0 }
    }
}

impl Chunked {
    /// Decodes from `input` into `output` until one of them or the body ends; gives the bytes taken and the bytes written.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] at the first byte that cannot be part of a chunked body; then nothing more may be decoded.
    pub fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Refusal> {
        let (mut taken, mut written) = (0, 0);
        while taken < input.len() && !self.is_done() {
            if self.state == State::Data {
                let space = (input.len() - taken).min(output.len() - written);
                let count = usize::try_from(self.left).map_or(space, |left| left.min(space));
                if count == 0 {
                    break;
                }
                output[written..written + count].copy_from_slice(&input[taken..taken + count]);
                taken += count;
                written += count;
                self.left -= count as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(input[taken])?;
                taken += 1;
            }
        }
        Ok((taken, written))
    }

    /// Whether the last chunk and its trailers were taken.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The state behind one byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        const MALFORMED: Refusal = Refusal::Malformed("The request body is not chunked properly");
        match (self.state, byte) {
            // Sixteen digits are a u64; no white space and no sign anywhere near them.
            (State::Size { digits: 1.. } | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size { digits: 1.. }, b';') => {
                self.spent = 0;
                Ok(State::Extension)
            }
            (State::Size { digits: digits @ 0..16 }, _) => {
                self.left = self.left << 4 | u64::from(hex(byte).ok_or(MALFORMED)?);
                Ok(State::Size { digits: digits + 1 })
            }
            (State::Extension, _) if !is_control(byte) => {
                self.spend(HTTP_CHUNK_EXTENSION_MAX)?;
                Ok(State::Extension)
            }
            (State::SizeLf, b'\n') if self.left > 0 => Ok(State::Data),
            (State::SizeLf, b'\n') => {
                self.spent = 0;
                Ok(State::TrailerStart)
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            // `left` is 0 here, as the next size needs it.
            (State::DataLf, b'\n') => Ok(State::default()),
            (State::TrailerStart, b'\r') => Ok(State::TrailerLf { last: true }),
            (State::Trailer, b'\r') => Ok(State::TrailerLf { last: false }),
            (State::TrailerStart | State::Trailer, _) if !is_control(byte) => {
                self.spend(HTTP_TRAILERS_MAX)?;
                Ok(State::Trailer)
            }
            (State::TrailerLf { last: true }, b'\n') => Ok(State::Done),
            (State::TrailerLf { last: false }, b'\n') => {
                self.spend(HTTP_TRAILERS_MAX)?;
                Ok(State::TrailerStart)
            }
            _ => Err(MALFORMED),
        }
    }

    fn spend(&mut self, max: usize) -> Result<(), Refusal> {
        self.spent += 1;
        if self.spent > max {
            return Err(Refusal::Malformed("The request body has too much besides its data"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Xorshift;
    use super::*;

    /// Decodes all of `input` through a small window: the bytes taken, the body, and whether it ended.
    fn decode(input: &[u8]) -> Result<(usize, Vec<u8>, bool), Refusal> {
        decode_in(input, || (7, 3))
    }

    /// Decodes `input` in pieces; `step` says how many bytes to offer and how much room to leave.
    fn decode_in(
        input: &[u8],
        mut step: impl FnMut() -> (usize, usize),
    ) -> Result<(usize, Vec<u8>, bool), Refusal> {
        let (mut chunked, mut body) = (Chunked::default(), Vec::new());
        let (mut offered, mut taken) = (0, 0);
        while !chunked.is_done() && taken < input.len() {
            let (more, room) = step();
            // More arrives only when the rest was taken, or it would not be a split.
            if taken == offered {
                offered = input.len().min(offered + more);
            }
            let mut output = vec![0; room];
            let (count, written) = chunked.decode(&input[taken..offered], &mut output)?;
            taken += count;
            body.extend_from_slice(&output[..written]);
        }
        Ok((taken, body, chunked.is_done()))
    }

    #[test]
    fn chunks_are_joined_and_what_follows_is_left_alone() {
        let wire = b"5\r\nhello\r\n00A;name=\"v\";x\r\n, chunked!\r\n0\r\n\r\nGET /";
        assert_eq!(decode(wire), Ok((wire.len() - 5, b"hello, chunked!".to_vec(), true)));
        assert_eq!(decode(b"0\r\n\r\n"), Ok((5, Vec::new(), true)));
        assert_eq!(decode(b"5\r\nhel"), Ok((6, b"hel".to_vec(), false)));
    }

    #[test]
    fn chunks_that_can_be_read_twofold_are_refused() {
        for wire in [
            &b"\r\n"[..],
            b";x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1\n",
            b"1\rx",
            b"1;x\n",
            b"1;\0\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\r\na\rx",
            b"0\r\n\n",
            b"0\r\n\rx",
            b"0\r\nX: 1\n\n",
            b"0\r\nX: \0\r\n\r\n",
            b"10000000000000000\r\n",
            b"00000000000000001\r\n",
            b"g\r\n",
        ] {
            assert!(decode(wire).is_err(), "{:?}", String::from_utf8_lossy(wire));
        }
        assert_eq!(decode(b"ffffffffffffffff\r\nab"), Ok((20, b"ab".to_vec(), false)));
    }

    #[test]
    fn case_11_trailers_are_dropped_and_bounded() {
        let wire = b"1\r\na\r\n0\r\nContent-Length: 9\r\nHost: b\r\nAuthorization: c\r\n\r\n";
        assert_eq!(decode(wire), Ok((wire.len(), b"a".to_vec(), true)));
        let trailers = |count: usize| format!("0\r\n{}\r\n", "a:\r\n".repeat(count));
        // Three bytes of each count: the name, the colon and the end.
        assert!(decode(trailers(HTTP_TRAILERS_MAX / 3).as_bytes()).is_ok_and(|(.., done)| done));
        assert!(decode(trailers(HTTP_TRAILERS_MAX / 3 + 1).as_bytes()).is_err());
        assert!(decode(trailers(10_000).as_bytes()).is_err());
    }

    #[test]
    fn an_extension_is_bounded_chunk_by_chunk() {
        let chunks = |length: usize| format!("1;{}\r\na\r\n", "x".repeat(length)).repeat(3) + "0\r\n\r\n";
        assert!(decode(chunks(HTTP_CHUNK_EXTENSION_MAX).as_bytes()).is_ok_and(|(.., done)| done));
        assert!(decode(chunks(HTTP_CHUNK_EXTENSION_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn any_split_of_the_bytes_decodes_the_same() {
        let mut random = Xorshift::new(3);
        let (mut intact, mut broken) = (0, 0);
        for _ in 0..4_000 {
            let mut wire = Vec::new();
            let mut sent = Vec::new();
            for _ in 0..random.below(4) {
                let chunk: Vec<u8> = (0..=random.below(40)).map(|at| b"\r\n0;a"[at % 5]).collect();
                let extension = ["", ";a=b", ";\"q\""][random.below(3)];
                wire.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(&chunk);
                wire.extend_from_slice(b"\r\n");
                sent.extend_from_slice(&chunk);
            }
            wire.extend_from_slice(["0\r\n\r\n", "0;x\r\nA: b\r\nC: d\r\n\r\n"][random.below(2)].as_bytes());
            let length = wire.len();
            wire.extend_from_slice(b"GET / HTTP/1.1");
            let mutated = random.below(2) == 1;
            if mutated {
                let at = random.below(length);
                wire[at] = b"\r\n0f; \0"[random.below(7)];
            }
            let whole = decode_in(&wire, || (usize::MAX / 2, 1024));
            let split = decode_in(&wire, || (1 + random.below(9), 1 + random.below(9)));
            assert_eq!(whole, split, "{:?}", String::from_utf8_lossy(&wire));
            if mutated {
                broken += usize::from(whole.is_err());
            } else {
                assert_eq!(whole, Ok((length, sent, true)));
                intact += 1;
            }
        }
        assert!(intact > 1_000 && broken > 500, "{intact} intact, {broken} broken");
    }
}

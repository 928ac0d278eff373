//! Where a message's body ends (RFC 9112, section 6), checked byte by byte while the bytes pass.

/// Longest chunk extension and longest trailer section, in bytes, and most digits of a chunk's size, zeros before it
/// included. They carry nothing that anybody uses, and without a bound they are a way to send for ever. Sixteen digits
/// are what others read, too.
const MOST_DIGITS: u32 = 16;
const LONGEST_EXTENSION: u32 = 1024;
const LONGEST_TRAILERS: u32 = 16 * 1024;

/// How much of a body is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// That many bytes; 0 is the end.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Until the connection ends.
    UntilClose,
}

/// The bytes are not a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk;

impl Framing {
    pub(crate) const NONE: Framing = Framing::Length(0);
    pub(crate) const CHUNKED: Framing = Framing::Chunked(Chunked::START);

    /// Whether the whole body has passed.
    pub(crate) fn done(&self) -> bool {
        match self {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(chunked) => chunked.state == State::End,
            Framing::UntilClose => false,
        }
    }

    /// How many of `bytes` belong to the body; the rest belongs to the next message.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match self {
            Framing::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                Ok(count)
            }
            Framing::Chunked(chunked) => chunked.advance(bytes),
            Framing::UntilClose => Ok(bytes.len()),
        }
    }
}

/// The state of a chunked body. Stricter than the RFC where leniency has been used for smuggling: lines end with CR LF,
/// nothing stands between size and its line's end but an extension, no control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes left of the chunk, or its size as far as it has been read.
    size: u64,
    /// Length of the size or of the extension at hand, or of all trailers so far.
    length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit.
    Start,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    End,
}

impl Chunked {
    const START: Chunked = Chunked { state: State::Start, size: 0, length: 0 };

    fn advance(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::End {
            if self.state == State::Data {
                let count = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.size -= count as u64;
                at += count;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        Ok(match (self.state, byte) {
            (State::Start | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.state == State::Start {
                    self.length = 0;
                }
                self.count(MOST_DIGITS)?;
                // 2^60 bytes are beyond any body; more digits would overflow.
                if self.size >> 56 != 0 {
                    return Err(BadChunk);
                }
                let digit = (byte as char).to_digit(16).ok_or(BadChunk)?;
                self.size = self.size * 16 + u64::from(digit);
                State::Size
            }
            (State::Size, b'\r') | (State::Extension, b'\r') => State::SizeLf,
            (State::Size, b';') => {
                self.length = 0;
                State::Extension
            }
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count(LONGEST_EXTENSION)?;
                State::Extension
            }
            (State::SizeLf, b'\n') if self.size == 0 => {
                self.length = 0;
                State::Trailer
            }
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::Trailer, b'\r') => State::LastLf,
            (State::Trailer | State::TrailerName, name) if crate::detect::is_token(name) => {
                self.count(LONGEST_TRAILERS)?;
                State::TrailerName
            }
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count(LONGEST_TRAILERS)?;
                State::TrailerValue
            }
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::Trailer,
            (State::LastLf, b'\n') => State::End,
            _ => return Err(BadChunk),
        })
    }

    fn count(&mut self, most: u32) -> Result<(), BadChunk> {
        self.length += 1;
        if self.length > most { Err(BadChunk) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Consumes `text` in pieces of `size` bytes: how many bytes belong to the body, and whether it is done.
    fn consume(text: &[u8], size: usize) -> Result<(usize, bool), BadChunk> {
        let mut framing = Framing::CHUNKED;
        let mut total = 0;
        for piece in text.chunks(size) {
            total += framing.advance(piece)?;
        }
        Ok((total, framing.done()))
    }

    fn in_all_pieces(text: &[u8]) -> Result<(usize, bool), BadChunk> {
        let whole = consume(text, text.len());
        for size in 1..text.len() {
            assert_eq!(consume(text, size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn chunks_end_where_they_say() {
        let body = b"4\r\nWiki\r\n5;ext=\"a b\"\r\npedia\r\n0\r\n\r\n";
        let with_next = [&body[..], b"GET / HTTP/1.1"].concat();
        assert_eq!(in_all_pieces(&with_next), Ok((body.len(), true)));
        let trailers = b"A\r\n0123456789\r\n000\r\ngrpc-status: 0\r\nX:\r\n\r\n";
        assert_eq!(in_all_pieces(trailers), Ok((trailers.len(), true)));
        assert_eq!(in_all_pieces(b"4\r\nWik"), Ok((6, false)));
        let zeros = b"0000000000000001\r\na\r\n0000000000000000\r\n\r\n";
        assert_eq!(in_all_pieces(zeros), Ok((zeros.len(), true)));
    }

    #[test]
    fn ambiguous_chunks_are_refused() {
        for bad in [
            &b"\r\n"[..],
            b"4\nWiki\r\n",
            b"4 \r\nWiki\r\n",
            b" 4\r\n",
            b"0x4\r\n",
            b"-1\r\n",
            b"+4\r\n",
            b"4\r\nWikipedia",
            b"4\r\nWiki\n",
            b"4;a\nb\r\n",
            b"4;a\rb\r\n",
            b"4;\0\r\n",
            b"0\r\nX: a\n\r\n",
            b"0\r\n X: a\r\n",
            b"0\r\nX a\r\n",
            b"0\r\n\rX",
            b"10000000000000000\r\n",
            b"ffffffffffffffff\r\n",
            b"00000000000000004\r\nWiki\r\n",
        ] {
            assert!(in_all_pieces(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        let long = [&b"1;"[..], &[b'a'; 2000]].concat();
        assert!(consume(&long, 7).is_err());
    }

    #[test]
    fn a_length_ends_at_its_length() {
        let mut framing = Framing::Length(5);
        assert_eq!(framing.advance(b"abc"), Ok(3));
        assert!(!framing.done());
        assert_eq!(framing.advance(b"defg"), Ok(2));
        assert!(framing.done());
        assert!(Framing::NONE.done());
        assert!(!Framing::UntilClose.done());
    }
}

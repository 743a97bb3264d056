//! Callers whose `:authority` is no host.
//!
//! gRPC's C core (the clients of Python and C++, among others) gives the path of a Unix socket there, percent-encoded, which
//! the server's HTTP/2 library takes for malformed: it ends each call with a protocol error. On a socket nobody asks for
//! the authority, so it is overwritten as it comes in, by a name of the same length. That needs no knowledge of the header
//! compression's tables: a literal tells its own length, and the table gets what stands there now.

/// What a client sends first.
const PREFACE: usize = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in the table that every connection has (RFC 7541, appendix A), in letters, and compressed. C-core spells it.
const AUTHORITY: u32 = 1;
const SPELT: &[u8] = b":authority";
const COMPRESSED: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// Its code is five bits long (RFC 7541, appendix B): as many of them as fit fill any number of bytes.
const LETTER: u8 = b'a';
const LETTER_CODE: [bool; 5] = [false, false, false, true, true];

/// Follows one connection's bytes from its beginning.
#[derive(Debug)]
pub(crate) struct Authority {
    place: Place,
    field: Field,
}

/// Where in the sequence of frames.
#[derive(Debug, Clone, Copy)]
enum Place {
    Preface {
        left: usize,
    },
    FrameHeader {
        known: usize,
        header: [u8; FRAME_HEADER],
    },
    /// How much padding there is, then `skip` bytes of priority.
    Padding {
        skip: usize,
        left: usize,
    },
    Priority {
        left: usize,
        padding: usize,
        block: usize,
    },
    Block {
        left: usize,
        padding: usize,
    },
    Other {
        left: usize,
    },
}

/// Where in a block of header fields, which may go over several frames.
#[derive(Debug, Clone, Copy)]
enum Field {
    Start,
    Number {
        sum: u32,
        shift: u32,
        of: Number,
    },
    Length {
        of: Text,
    },
    Text {
        left: u32,
        at: u32,
        length: u32,
        huffman: bool,
        of: Text,
    },
    /// It makes no sense, and is left to the server to refuse.
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum Number {
    /// Of a field or a table's size: nothing follows.
    Alone,
    Name,
    Length {
        huffman: bool,
        of: Text,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// Whether it may be the authority's, as far as it is known.
    Name {
        is_authority: bool,
    },
    Value {
        is_authority: bool,
    },
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self { place: Place::Preface { left: PREFACE }, field: Field::Start }
    }

    /// Takes the next bytes of the connection, in pieces of whatever size.
    pub(crate) fn overwrite(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest);
            rest = &mut std::mem::take(&mut rest)[taken..];
        }
    }

    /// Takes at least one byte.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        match &mut self.place {
            Place::Preface { left } | Place::Other { left } => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                if *left == 0 {
                    self.place = Place::next();
                }
                taken
            }
            Place::FrameHeader { known, header } => {
                let (Some(free), Some(byte)) = (header.get_mut(*known), bytes.first()) else { return bytes.len() };
                *free = *byte;
                *known += 1;
                if *known == FRAME_HEADER {
                    let header = *header;
                    self.begin(header);
                }
                1
            }
            &mut Place::Padding { skip, left } => {
                let padding = usize::from(bytes.first().copied().unwrap_or_default());
                self.place = Place::after_padding(skip, padding, left);
                1
            }
            Place::Priority { left, padding, block } => {
                *left -= 1;
                if *left == 0 {
                    self.place = Place::block(*block, *padding);
                }
                1
            }
            Place::Block { left, padding } => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                if *left == 0 {
                    self.place = Place::other(*padding);
                }
                for byte in bytes.iter_mut().take(taken) {
                    self.field = self.field.step(byte);
                }
                taken
            }
        }
    }

    fn begin(&mut self, header: [u8; FRAME_HEADER]) {
        let [high, middle, low, kind, flags, ..] = header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.place = match kind {
            HEADERS => {
                self.field = Field::Start;
                let skip = if flags & PRIORITY == 0 { 0 } else { 5 };
                match (flags & PADDED == 0, length.checked_sub(1)) {
                    (false, Some(left)) => Place::Padding { skip, left },
                    _ => Place::after_padding(skip, 0, length),
                }
            }
            CONTINUATION => Place::block(length, 0),
            _ => Place::other(length),
        };
    }
}

impl Place {
    fn next() -> Self {
        Self::FrameHeader { known: 0, header: [0; FRAME_HEADER] }
    }

    fn other(left: usize) -> Self {
        if left == 0 { Self::next() } else { Self::Other { left } }
    }

    fn block(left: usize, padding: usize) -> Self {
        if left == 0 { Self::other(padding) } else { Self::Block { left, padding } }
    }

    fn after_padding(skip: usize, padding: usize, left: usize) -> Self {
        match left.checked_sub(skip + padding) {
            // The server refuses such a frame.
            None => Self::other(left),
            Some(block) if skip == 0 => Self::block(block, padding),
            Some(block) => Self::Priority { left: skip, padding, block },
        }
    }
}

impl Field {
    /// What comes after a byte, which is overwritten if it is of the authority.
    fn step(self, byte: &mut u8) -> Self {
        match self {
            Self::Lost => Self::Lost,
            Self::Start => match *byte {
                own @ 0x80.. => Self::number(own & 0x7f, 0x7f, Number::Alone),
                own @ 0x40.. => Self::number(own & 0x3f, 0x3f, Number::Name),
                own @ 0x20.. => Self::number(own & 0x1f, 0x1f, Number::Alone),
                own => Self::number(own & 0x0f, 0x0f, Number::Name),
            },
            Self::Number { sum, shift, of } => {
                let more = u32::from(*byte & 0x7f).checked_shl(shift).filter(|_| shift <= 21);
                match more.and_then(|more| sum.checked_add(more)) {
                    None => Self::Lost,
                    Some(sum) if *byte & 0x80 == 0 => Self::after(sum, of),
                    Some(sum) => Self::Number { sum, shift: shift + 7, of },
                }
            }
            Self::Length { of } => Self::number(*byte & 0x7f, 0x7f, Number::Length { huffman: *byte & 0x80 != 0, of }),
            Self::Text { left, at, length, huffman, of } => {
                let of = match of {
                    Text::Name { is_authority } => {
                        let name = if huffman { COMPRESSED } else { SPELT };
                        let same = name.get(at as usize) == Some(byte) && name.len() == length as usize;
                        Text::Name { is_authority: is_authority && same }
                    }
                    Text::Value { is_authority: true } => {
                        *byte = if huffman { filling(at, length) } else { LETTER };
                        of
                    }
                    Text::Value { .. } => of,
                };
                if left == 1 {
                    Self::after_text(of)
                } else {
                    Self::Text { left: left - 1, at: at + 1, length, huffman, of }
                }
            }
        }
    }

    fn number(own: u8, most: u8, of: Number) -> Self {
        if own == most { Self::Number { sum: u32::from(own), shift: 0, of } } else { Self::after(u32::from(own), of) }
    }

    fn after(number: u32, of: Number) -> Self {
        match of {
            Number::Alone => Self::Start,
            Number::Name if number == 0 => Self::Length { of: Text::Name { is_authority: true } },
            Number::Name => Self::Length { of: Text::Value { is_authority: number == AUTHORITY } },
            Number::Length { of: Text::Name { .. }, .. } if number == 0 => Self::Lost,
            Number::Length { of, .. } if number == 0 => Self::after_text(of),
            Number::Length { huffman, of } => Self::Text { left: number, at: 0, length: number, huffman, of },
        }
    }

    fn after_text(of: Text) -> Self {
        match of {
            Text::Name { is_authority } => Self::Length { of: Text::Value { is_authority } },
            Text::Value { .. } => Self::Start,
        }
    }
}

/// A byte of as many letters as fit into `length` bytes; what is left over is ones.
fn filling(at: u32, length: u32) -> u8 {
    let bits = u64::from(length) * 8;
    let last = bits - bits % 5;
    (0..8).map(|bit| u64::from(at) * 8 + bit).fold(0, |byte, bit| {
        let one =
            bit >= last || LETTER_CODE.get(usize::try_from(bit % 5).unwrap_or_default()).copied().unwrap_or_default();
        byte << 1 | u8::from(one)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: u8 = 0x82;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, &[]), frames.concat()].concat()
    }

    /// With a literal whose name is a number, and a value as it is or said to be compressed.
    fn field(name: u8, value: &[u8], huffman: bool) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap() | if huffman { 0x80 } else { 0 };
        [&[0x40 | name, length], value].concat()
    }

    fn overwritten(bytes: &[u8], pieces: usize) -> Vec<u8> {
        let mut authority = Authority::new();
        let mut bytes = bytes.to_vec();
        for piece in bytes.chunks_mut(pieces) {
            authority.overwrite(piece);
        }
        bytes
    }

    #[test]
    fn the_authority_and_nothing_else_is_overwritten() {
        let path = field(4, b"/v1beta1.DevicePlugin/Allocate", false);
        let own_name = [&[0x00, 10][..], b":authoritx", &[3], b"%2F"].concat();
        let before = [vec![GET], path.clone(), own_name.clone()].concat();
        let block = |authority: &[u8]| [before.clone(), field(1, authority, false), path.clone()].concat();
        let (sent, wanted) = (block(b"%2Ftmp%2Fa.sock"), block(b"aaaaaaaaaaaaaaa"));
        for pieces in [1, 2, 7, 1000] {
            let whole = |block: &[u8]| connection(&[frame(1, 4, block), frame(0, 1, b"%2F")]);
            assert_eq!(overwritten(&whole(&sent), pieces), whole(&wanted), "{pieces}");
            // Padded, with a priority, and over three frames.
            let parts = |block: &[u8]| {
                let (first, rest) = block.split_at(block.len() - 20);
                let padded = [&[3, 0, 0, 0, 0, 9][..], first, &[0, 0, 0]].concat();
                connection(&[frame(1, 0x28, &padded), frame(9, 0, &rest[..3]), frame(9, 4, &rest[3..])])
            };
            assert_eq!(overwritten(&parts(&sent), pieces), parts(&wanted), "{pieces}");
        }
    }

    #[test]
    fn a_name_that_is_spelt_is_recognised_too() {
        for (length, name) in [(10, SPELT), (0x88, COMPRESSED)] {
            let block = |value: &[u8]| [&[0x40, length], name, &[5], value].concat();
            let whole = |value: &[u8]| connection(&[frame(1, 4, &block(value))]);
            assert_eq!(overwritten(&whole(b"%2Fab"), 4), whole(b"aaaaa"));
        }
    }

    /// By the table of RFC 7541: six letters `a` are 30 bits, and two ones fill the fourth byte.
    #[test]
    fn a_compressed_one_is_overwritten_by_letters_that_fill_it() {
        let sent = connection(&[frame(1, 4, &field(1, &[0xff; 4], true))]);
        let wanted = connection(&[frame(1, 4, &field(1, &[0x18, 0xc6, 0x31, 0x8f], true))]);
        assert_eq!(overwritten(&sent, 3), wanted);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_no_reason_to_fail(bytes in proptest::collection::vec(any::<u8>(), 0..400), pieces in 1_usize..50) {
            let sent = connection(&[bytes]);
            prop_assert_eq!(overwritten(&sent, pieces), overwritten(&sent, 1));
        }

        #[test]
        fn any_block_of_headers_ends_where_it_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let after = connection(&[frame(1, 4, &bytes), frame(1, 4, &field(1, b"%2F", false))]);
            prop_assert!(overwritten(&after, 9).ends_with(b"aaa"));
        }
    }
}

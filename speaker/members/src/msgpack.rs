//! The MessagePack of go-msgpack: structs as maps in the alphabetical order of their field names, text and bytes both in
//! the format's old "raw" types (no str8, no bin), whole numbers in their shortest form, an empty byte slice as nil.
//!
//! Reading takes the newer types too. It never allocates by a length that was only announced, and bounds the work of one
//! value by [`MAX_ITEMS`].

use rmp::Marker;

/// Most values, nested ones counted, that one value may consist of. The largest struct of the protocol has 8 fields.
pub const MAX_ITEMS: u32 = 256;

/// What stopped the reading of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The bytes end inside the value; more of them may help.
    #[error("the message ends too early")]
    Short,
    /// No more bytes would make this a value of the protocol.
    #[error("not the MessagePack that was expected here")]
    Bad,
}

/// One value without its nested ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Nothing: Go's nil.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number that is not negative.
    Uint(u64),
    /// A negative whole number.
    Int(i64),
    /// Text or bytes.
    Raw(&'a [u8]),
    /// The head of a map: as many pairs follow.
    Map(u32),
    /// The head of an array: as many values follow.
    Array(u32),
    /// A floating-point number or an extension: of no use in the protocol.
    Other,
}

/// Reads values off the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let (front, rest) = self.rest.split_at_checked(count).ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(front)
    }

    fn number(&mut self, width: usize) -> Result<u64, Stop> {
        Ok(self
            .take(width)?
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn length(&mut self, width: usize) -> Result<usize, Stop> {
        usize::try_from(self.number(width)?).map_err(|_| Stop::Bad)
    }

    fn count(&mut self, width: usize) -> Result<u32, Stop> {
        u32::try_from(self.number(width)?).map_err(|_| Stop::Bad)
    }

    fn signed(&mut self, width: u32) -> Result<Item<'a>, Stop> {
        let raw = self.number(width as usize)?;
        let shift = 64 - 8 * width;
        let value = (raw << shift).cast_signed() >> shift;
        Ok(u64::try_from(value).map_or(Item::Int(value), Item::Uint))
    }

    fn other(&mut self, length: usize) -> Result<Item<'a>, Stop> {
        self.take(length).map(|_| Item::Other)
    }

    /// The next value, or the head of the next map or array.
    pub fn item(&mut self) -> Result<Item<'a>, Stop> {
        let first = *self.take(1)?.first().ok_or(Stop::Short)?;
        Ok(match Marker::from_u8(first) {
            Marker::Null => Item::Nil,
            Marker::False => Item::Bool(false),
            Marker::True => Item::Bool(true),
            Marker::FixPos(value) => Item::Uint(u64::from(value)),
            Marker::FixNeg(value) => Item::Int(i64::from(value)),
            Marker::U8 => Item::Uint(self.number(1)?),
            Marker::U16 => Item::Uint(self.number(2)?),
            Marker::U32 => Item::Uint(self.number(4)?),
            Marker::U64 => Item::Uint(self.number(8)?),
            Marker::I8 => self.signed(1)?,
            Marker::I16 => self.signed(2)?,
            Marker::I32 => self.signed(4)?,
            Marker::I64 => self.signed(8)?,
            Marker::FixStr(length) => Item::Raw(self.take(usize::from(length))?),
            Marker::Str8 | Marker::Bin8 => self.raw(1)?,
            Marker::Str16 | Marker::Bin16 => self.raw(2)?,
            Marker::Str32 | Marker::Bin32 => self.raw(4)?,
            Marker::FixMap(pairs) => Item::Map(u32::from(pairs)),
            Marker::Map16 => Item::Map(self.count(2)?),
            Marker::Map32 => Item::Map(self.count(4)?),
            Marker::FixArray(values) => Item::Array(u32::from(values)),
            Marker::Array16 => Item::Array(self.count(2)?),
            Marker::Array32 => Item::Array(self.count(4)?),
            Marker::F32 => self.other(4)?,
            Marker::F64 => self.other(8)?,
            Marker::FixExt1 => self.other(2)?,
            Marker::FixExt2 => self.other(3)?,
            Marker::FixExt4 => self.other(5)?,
            Marker::FixExt8 => self.other(9)?,
            Marker::FixExt16 => self.other(17)?,
            Marker::Ext8 => self.extension(1)?,
            Marker::Ext16 => self.extension(2)?,
            Marker::Ext32 => self.extension(4)?,
            Marker::Reserved => return Err(Stop::Bad),
        })
    }

    fn raw(&mut self, width: usize) -> Result<Item<'a>, Stop> {
        let length = self.length(width)?;
        Ok(Item::Raw(self.take(length)?))
    }

    fn extension(&mut self, width: usize) -> Result<Item<'a>, Stop> {
        // One byte more than announced: the extension's type.
        let length = self.length(width)?.checked_add(1).ok_or(Stop::Bad)?;
        self.other(length)
    }

    /// Passes over one value with all that is nested in it.
    pub fn skip(&mut self) -> Result<(), Stop> {
        let mut open: u32 = 1;
        let mut seen: u32 = 0;
        while open > 0 {
            open -= 1;
            seen += 1;
            let nested = match self.item()? {
                Item::Map(pairs) => pairs.checked_mul(2).ok_or(Stop::Bad)?,
                Item::Array(values) => values,
                _ => 0,
            };
            if nested > MAX_ITEMS - seen.min(MAX_ITEMS) {
                return Err(Stop::Bad);
            }
            open += nested;
            if open > MAX_ITEMS {
                return Err(Stop::Bad);
            }
        }
        Ok(())
    }

    /// Reads a map with raw keys: `field` gets each key with a reader that stands at its value. What it leaves unread is
    /// passed over, so that unknown fields do no harm. Nil is an empty map, as it is to Go.
    pub fn fields(
        &mut self,
        mut field: impl FnMut(&'a [u8], &mut Reader<'a>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let pairs = match self.item()? {
            Item::Map(pairs) if pairs <= MAX_ITEMS => pairs,
            Item::Nil => 0,
            _ => return Err(Stop::Bad),
        };
        for _ in 0..pairs {
            let Item::Raw(key) = self.item()? else {
                return Err(Stop::Bad);
            };
            let mut value = *self;
            self.skip()?;
            field(key, &mut value)?;
        }
        Ok(())
    }

    /// A whole number; nil is 0.
    pub fn uint<T: TryFrom<u64>>(&mut self) -> Result<T, Stop> {
        let value = match self.item()? {
            Item::Uint(value) => value,
            Item::Nil => 0,
            _ => return Err(Stop::Bad),
        };
        T::try_from(value).map_err(|_| Stop::Bad)
    }

    /// A truth value; nil is false.
    pub fn truth(&mut self) -> Result<bool, Stop> {
        match self.item()? {
            Item::Bool(value) => Ok(value),
            Item::Nil => Ok(false),
            _ => Err(Stop::Bad),
        }
    }

    /// Bytes; nil is none of them.
    pub fn bytes(&mut self) -> Result<&'a [u8], Stop> {
        match self.item()? {
            Item::Raw(value) => Ok(value),
            Item::Nil => Ok(&[]),
            _ => Err(Stop::Bad),
        }
    }

    /// Text in UTF-8 of at most `limit` bytes; nil is empty.
    pub fn text(&mut self, limit: usize) -> Result<String, Stop> {
        let bytes = self.bytes()?;
        if bytes.len() > limit {
            return Err(Stop::Bad);
        }
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| Stop::Bad)
    }
}

/// Appends values to a message.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Writes behind `out`.
    pub fn after(out: Vec<u8>) -> Self {
        Self { out }
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// The head of a map of up to 15 fields, more than any struct of the protocol has.
    pub fn map(&mut self, fields: u8) -> &mut Self {
        self.out.push(Marker::FixMap(fields & 0x0f).to_u8());
        self
    }

    /// A field's name; its value comes next.
    pub fn key(&mut self, name: &str) -> &mut Self {
        self.raw(name.as_bytes())
    }

    /// Nothing.
    pub fn nil(&mut self) -> &mut Self {
        self.out.push(Marker::Null.to_u8());
        self
    }

    /// A truth value.
    pub fn truth(&mut self, value: bool) -> &mut Self {
        self.out
            .push(if value { Marker::True } else { Marker::False }.to_u8());
        self
    }

    /// A whole number in its shortest form.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        let [_, _, _, _, bytes @ ..] = value.to_be_bytes();
        let [b3, b2, b1, b0] = bytes;
        match value {
            0..=0x7f => self.out.push(b0),
            0x80..=0xff => self.out.extend([Marker::U8.to_u8(), b0]),
            0x100..=0xffff => self.out.extend([Marker::U16.to_u8(), b1, b0]),
            0x1_0000..=0xffff_ffff => self.out.extend([Marker::U32.to_u8(), b3, b2, b1, b0]),
            _ => {
                self.out.push(Marker::U64.to_u8());
                self.out.extend(value.to_be_bytes());
            }
        }
        self
    }

    /// Text or bytes, never nil.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let [b3, b2, b1, b0] = length.to_be_bytes();
        match length {
            0..=0x1f => self.out.push(Marker::FixStr(b0).to_u8()),
            0x20..=0xffff => self.out.extend([Marker::Str16.to_u8(), b1, b0]),
            _ => self.out.extend([Marker::Str32.to_u8(), b3, b2, b1, b0]),
        }
        self.out.extend_from_slice(value);
        self
    }

    /// Bytes, nil for none: Go's empty slice.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        if value.is_empty() {
            self.nil()
        } else {
            self.raw(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_bytes_come_back(number: u64, small in 0u64..70_000, bytes: Vec<u8>, truth: bool) {
            let mut writer = Writer::default();
            writer.uint(number).uint(small).raw(&bytes).truth(truth);
            let out = writer.finish();
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.uint::<u64>(), Ok(number));
            prop_assert_eq!(reader.uint::<u64>(), Ok(small));
            prop_assert_eq!(reader.bytes(), Ok(bytes.as_slice()));
            prop_assert_eq!(reader.truth(), Ok(truth));
            prop_assert!(reader.rest().is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.skip().is_ok() {}
            prop_assert!(reader.rest().len() <= bytes.len());
        }
    }

    #[test]
    fn long_bytes_take_the_wider_heads() {
        for length in [31, 32, 255, 256, 65_535, 65_536] {
            let mut writer = Writer::default();
            writer.raw(&vec![7; length]);
            let out = writer.finish();
            assert_eq!(Reader::new(&out).bytes().map(<[u8]>::len), Ok(length));
            assert_ne!(out[0], Marker::Str8.to_u8(), "old readers know no str8");
        }
    }

    #[test]
    fn negative_numbers_are_told_apart() {
        let mut reader = Reader::new(&[0xd0, 0xff, 0xd0, 0x05, 0xd1, 0xff, 0x00, 0xe0]);
        assert_eq!(reader.item(), Ok(Item::Int(-1)));
        assert_eq!(reader.item(), Ok(Item::Uint(5)));
        assert_eq!(reader.item(), Ok(Item::Int(-256)));
        assert_eq!(reader.item(), Ok(Item::Int(-32)));
    }

    #[test]
    fn a_bomb_of_nested_values_is_refused() {
        // Arrays of 15 arrays of 15 arrays: few bytes, many values.
        assert_eq!(Reader::new(&[0x9f; 4000]).skip(), Err(Stop::Bad));
        // A map that announces four thousand million pairs.
        assert_eq!(
            Reader::new(&[0xdf, 0xff, 0xff, 0xff, 0xff]).skip(),
            Err(Stop::Bad)
        );
        // Bytes that are announced and missing are waited for, not allocated.
        assert_eq!(
            Reader::new(&[0xdb, 0xff, 0xff, 0xff, 0xff]).skip(),
            Err(Stop::Short)
        );
    }
}

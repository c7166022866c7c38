//! The state machine of the pre-validator: bytes in, elements out.
//!
//! ```text
//!              ┌──────────────────────────── settle: levels that end here are closed ◄─────────────┐
//!              ▼                                                                                   │
//!   Header (8 or 12 bytes) ─► value kept ─► Keep ──────────────────────────────────────────────────┤
//!        │                ─► value left ─► Skip ───────────────────────────────────────────────────┤
//!        │                ─► sequence, item: a level is opened ────────────────────────────────────┤
//!        └─► encapsulated ─► FragmentHeader ─► Fragment ─► … ─► delimiter ─────────────────────────┘
//! ```
//!
//! Invariants
//! - S-1 No step recurses; levels are a vector of at most 2 × `depth_max` + 1.
//! - S-2 Memory grows by bytes that arrived, never by a length that was declared.
//! - S-3 A level never reaches beyond the one around it: checked when it is opened.
//! - S-4 The result depends on the bytes, not on how they were cut into pieces.

use super::{
    canonical::{Canonical, CanonicalDigest},
    fragments::{Fragments, Table},
    header::{self, Coding, Header, ITEM, ITEM_END, Parsed, SEQUENCE_END, UNDEFINED},
    levels::{Encapsulated, Kind, Level, State, take},
    value,
};
use crate::{DataSet, Element, Invalid, Limits, Place, Value, Warning, tags};
use dicom_core::{Tag, VR};

/// Warnings that are kept: enough to know what is wrong with a device, too few to be an attack on memory.
const WARNINGS_MAX: usize = 64;

/// Memory that elements and their values may take, as a multiple of the limit of the header's bytes.
const HEAP_FACTOR: u64 = 2;

const PIXEL_DATA: [Tag; 3] = [tags::PIXEL_DATA, tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA];

/// What the machine does beyond validating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An instance: bulk values stay in the body; groups 0000 and 0002 do not belong there.
    Instance,
    /// An identifier, a command set, a meta header: everything is kept.
    Small,
}

#[derive(Debug)]
pub(crate) struct Machine {
    limits: Limits,
    purpose: Purpose,
    pos: u64,
    state: State,
    carry: [u8; 12],
    carried: usize,
    /// Whether the value before had an odd length: a pad byte may follow.
    odd: bool,
    levels: Vec<Level>,
    depth: usize,
    elements: u64,
    header_bytes: u64,
    heap_bytes: u64,
    encapsulated: Option<Encapsulated>,
    /// Fragments of the pixel data of the data set itself.
    pub(crate) pixels: Option<Fragments>,
    pub(crate) extended_offsets: Option<Table>,
    pub(crate) extended_lengths: Option<Table>,
    pub(crate) warnings: Vec<Warning>,
    canonical: Option<Canonical>,
}

impl Machine {
    pub(crate) fn new(coding: Coding, limits: &Limits, purpose: Purpose) -> Self {
        let kind = Kind::elements();
        Self {
            limits: limits.clone(),
            purpose,
            pos: 0,
            state: State::Header,
            carry: [0; 12],
            carried: 0,
            odd: false,
            levels: vec![Level { end: limits.instance_bytes_max, defined: false, coding, kind }],
            depth: 0,
            elements: 0,
            header_bytes: 0,
            heap_bytes: 0,
            encapsulated: None,
            pixels: None,
            extended_offsets: None,
            extended_lengths: None,
            warnings: Vec::new(),
            canonical: None,
        }
    }

    /// Says in the end, too, what the data set has in common with one that differs in padding alone.
    pub(crate) fn compare_as(&mut self, transfer_syntax: &str) {
        self.canonical = Some(Canonical::new(transfer_syntax));
    }

    /// That, of a data set that is complete.
    pub(crate) fn canonical(&mut self) -> Option<CanonicalDigest> {
        self.canonical.take().map(Canonical::finish)
    }

    /// Bytes so far of all that is not a bulk value.
    pub(crate) fn header_bytes(&self) -> u64 {
        self.header_bytes
    }

    /// Elements of the data set itself that are complete.
    pub(crate) fn so_far(&self) -> Option<&DataSet> {
        match self.levels.first().map(|level| &level.kind) {
            Some(Kind::Elements { set, .. }) => Some(set),
            _ => None,
        }
    }

    /// The same with those that came out of order.
    pub(crate) fn gathered(&self) -> DataSet {
        match self.levels.first().map(|level| &level.kind) {
            Some(Kind::Elements { set, late, .. }) => {
                let mut set = set.clone();
                set.merge(late.clone());
                set
            }
            _ => DataSet::new(),
        }
    }

    /// The element of the data set itself that was begun last.
    pub(crate) fn last_of_root(&self) -> Tag {
        match self.levels.first().map(|level| &level.kind) {
            Some(Kind::Elements { last, .. }) => *last,
            _ => Tag(0, 0),
        }
    }

    /// Takes all of `piece`.
    pub(crate) fn feed(&mut self, mut piece: &[u8]) -> Result<(), Invalid> {
        loop {
            self.settle()?;
            if piece.is_empty() {
                return Ok(());
            }
            piece = self.step(piece)?;
        }
    }

    /// Takes some of `piece`, at least one byte, and returns the rest.
    fn step<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], Invalid> {
        let room = self.room();
        if room == 0 && self.level().end < self.limits.instance_bytes_max {
            let tag = self.last_tag().unwrap_or(ITEM);
            return Err(self.malformed(tag, "an undefined length does not end within what encloses it"));
        }
        if room == 0 {
            return Err(self.too_large(None, "the instance", self.limits.instance_bytes_max));
        }
        match &mut self.state {
            State::Header | State::FragmentHeader => self.step_header(piece, room),
            State::Keep { left, bytes, .. } => {
                let taken = take(left, piece);
                bytes.extend_from_slice(taken);
                self.pass(taken);
                Ok(&piece[taken.len()..])
            }
            State::Skip { left, table } => {
                let taken = take(left, piece);
                let table = match table {
                    Some(tags::EXTENDED_OFFSET_TABLE) => self.extended_offsets.as_mut(),
                    Some(_) => self.extended_lengths.as_mut(),
                    None => None,
                };
                if let Some(table) = table {
                    table.push(taken, 8);
                }
                self.pass(taken);
                Ok(&piece[taken.len()..])
            }
            State::Fragment { left } => {
                let taken = take(left, piece);
                if let Some(encapsulated) = self.encapsulated.as_mut() {
                    encapsulated.fragments.bytes(taken);
                }
                self.pass(taken);
                Ok(&piece[taken.len()..])
            }
        }
    }

    /// Tells the canonical digest, if there is one to be found.
    fn compare(&mut self, tell: impl FnOnce(&mut Canonical)) {
        if let Some(canonical) = &mut self.canonical {
            tell(canonical);
        }
    }

    /// What passes by is not as the standard has it, and only tolerated: it is like nothing but its own bytes.
    pub(crate) fn like_nothing(&mut self) {
        self.canonical = None;
    }

    /// Bytes of a value or a fragment pass by.
    fn pass(&mut self, bytes: &[u8]) {
        self.pos += bytes.len() as u64;
        self.compare(|canonical| canonical.bytes(bytes));
    }

    /// The VR as the header that was read last has it; zeros where headers have none.
    fn written_vr(&self) -> [u8; 2] {
        if self.level().coding.explicit { [self.carry[4], self.carry[5]] } else { [0; 2] }
    }

    /// Gathers a header, and reads it once it is whole.
    fn step_header<'a>(&mut self, piece: &'a [u8], room: u64) -> Result<&'a [u8], Invalid> {
        let held = self.carried as u64;
        let (coding, last) = (self.level().coding, self.last_tag());
        if self.odd && self.carried == 0 && room == 1 {
            self.warn(last, "pad byte after an odd value");
            self.like_nothing();
            self.odd = false;
            self.pos += 1;
            return Ok(&piece[1..]);
        }
        if self.carried == 0 && room < 8 {
            let place = Place { tag: last, offset: self.pos };
            return Err(Invalid::TooLong { place, declared: 8, room });
        }
        let need = if self.carried < 8 { 8 } else { 12 };
        if need > held + room {
            let place = Place { tag: last, offset: self.pos - held };
            return Err(Invalid::TooLong { place, declared: need, room: held + room });
        }
        let taken = piece.len().min(need as usize - self.carried);
        self.carry[self.carried..self.carried + taken].copy_from_slice(&piece[..taken]);
        self.carried += taken;
        self.pos += taken as u64;
        let rest = &piece[taken..];
        if self.carried < need as usize {
            return Ok(rest);
        }
        if self.odd && self.carried == 8 {
            self.odd = false;
            let after = last.unwrap_or(Tag(0, 0));
            let shifted = matches!(self.carry[0], 0 | b' ')
                && !header::is_plausible(&self.carry[..8], coding, after)
                && header::is_plausible(&self.carry[1..8], coding, after);
            if shifted {
                self.warn(last, "pad byte after an odd value");
                self.like_nothing();
                self.carry.copy_within(1..8, 0);
                self.carried = 7;
                return Ok(rest);
            }
        }
        if let Parsed::Complete(header) = header::parse(&self.carry[..self.carried], coding) {
            let first = self.elements == 0 && !coding.explicit;
            if first && VR::from_binary([self.carry[4], self.carry[5]]).is_some() {
                // Else its length would be 16 KiB and more: no data set begins so.
                return Err(self.malformed(header.tag, "has VRs although the transfer syntax is implicit"));
            }
            self.charge(self.carried as u64, header.tag)?;
            self.carried = 0;
            match self.state {
                State::FragmentHeader => self.fragment(header)?,
                _ => self.element(header)?,
            }
        }
        Ok(rest)
    }

    /// A header is complete: decides what comes next.
    fn element(&mut self, header: Header) -> Result<(), Invalid> {
        // Delimiters take no memory; that they are not endless is the header's limit.
        let ends = matches!(header.tag, ITEM_END | SEQUENCE_END);
        self.elements += u64::from(!ends);
        if ends && header.length != 0 {
            self.like_nothing();
        }
        if self.elements > self.limits.elements_max {
            let max = self.limits.elements_max;
            return Err(Invalid::TooMany { place: self.place(header.tag), what: "elements", max });
        }
        self.heap_bytes += value::ELEMENT_HEAP_BYTES;
        if self.heap_bytes > self.heap_bytes_max() {
            return Err(self.too_large(Some(header.tag), "memory for all elements", self.heap_bytes_max()));
        }
        let in_sequence = matches!(self.level().kind, Kind::Sequence { .. });
        match (header.tag, in_sequence) {
            (ITEM, true) => self.open(header, self.level().coding, Kind::elements()),
            (SEQUENCE_END, true) => self.close_undefined(header.tag),
            (_, true) => Err(self.malformed(header.tag, "something else than an item is in a sequence")),
            (ITEM, false) => Err(self.malformed(header.tag, "an item is outside of a sequence")),
            (ITEM_END, false) => self.close_undefined(header.tag),
            (SEQUENCE_END, false) => self.sequence_end_in_item(),
            (_, false) => self.begin_value(header),
        }
    }

    /// An element with a value, or a sequence.
    fn begin_value(&mut self, header: Header) -> Result<(), Invalid> {
        let Header { tag, length, .. } = header;
        if let Some(odd) = header.odd {
            self.warn(Some(tag), odd);
        }
        self.check_order(tag);
        let vr = header.vr.unwrap_or_else(|| header::dictionary_vr(tag, self.signed()));
        if length == UNDEFINED {
            return self.begin_undefined(tag, vr, header.vr);
        }
        if vr == VR::SQ {
            let coding = self.level().coding;
            return self.open(header, coding, Kind::Sequence { tag, items: Vec::new() });
        }
        let left = u64::from(length);
        self.check_room(tag, left)?;
        self.odd = length % 2 == 1;
        // UN of a standard element: another node did not know it, we do (PS3.5 §6.2.2 note 2).
        let vr = match header::dictionary_vr(tag, self.signed()) {
            // In big-endian data sets UN is little endian nevertheless: left as it is.
            known if vr == VR::UN && known != VR::SQ && tag.0 % 2 == 0 && !self.level().coding.big => known,
            _ => vr,
        };
        let written = self.written_vr();
        self.compare(|canonical| canonical.begin_value(tag, written, vr, left));
        if self.is_bulk(tag, vr, left) {
            self.put(Element { tag, vr, value: Value::Bulk { offset: self.pos, length: left } });
            let table = self.table(tag, vr, left)?;
            self.state = State::Skip { left, table };
        } else {
            self.charge(left, tag)?;
            self.state = State::Keep { tag, vr, left, bytes: Vec::new() };
        }
        Ok(())
    }

    /// Undefined length: a sequence, or fragments.
    fn begin_undefined(&mut self, tag: Tag, vr: VR, written: Option<VR>) -> Result<(), Invalid> {
        let coding = self.level().coding;
        let header = Header { tag, vr: Some(vr), length: UNDEFINED, odd: None };
        let sequence = Kind::Sequence { tag, items: Vec::new() };
        let pixels = PIXEL_DATA.contains(&tag);
        match vr {
            VR::SQ if written == Some(VR::SQ) || !coding.explicit => self.open(header, coding, sequence),
            VR::OB | VR::OW | VR::OF | VR::OD | VR::OL | VR::OV => self.begin_fragments(tag, vr),
            VR::UN if pixels => self.begin_fragments(tag, VR::OB),
            // PS3.5 §6.2.2: UN of undefined length is a sequence in implicit little endian, whatever surrounds it.
            VR::UN | VR::SQ if written == Some(VR::UN) => self.open(header, Coding::IMPLICIT, sequence),
            VR::UN | VR::SQ => self.open(header, coding, sequence),
            _ if written.is_none() => self.open(header, coding, sequence),
            _ => Err(self.malformed(tag, "an undefined length is not possible for this VR")),
        }
    }

    fn begin_fragments(&mut self, tag: Tag, vr: VR) -> Result<(), Invalid> {
        let written = self.written_vr();
        self.compare(|canonical| canonical.open_fragments(tag, written));
        self.encapsulated = Some(Encapsulated { tag, vr, offset: self.pos, fragments: Fragments::default() });
        self.state = State::FragmentHeader;
        Ok(())
    }

    /// A header within encapsulated pixel data.
    fn fragment(&mut self, header: Header) -> Result<(), Invalid> {
        let at = self.pos;
        let Some(encapsulated) = self.encapsulated.as_mut() else { return Ok(()) };
        let (tag, max) = (encapsulated.tag, self.limits.fragments_max);
        match header.tag {
            ITEM if header.length == UNDEFINED => Err(self.malformed(tag, "a fragment has undefined length")),
            ITEM => {
                if encapsulated.fragments.len() >= max {
                    return Err(Invalid::TooMany { place: self.place(tag), what: "fragments", max });
                }
                let is_table = encapsulated.fragments.begin(at, header.length);
                if is_table && u64::from(header.length) > max.saturating_mul(4) {
                    return Err(Invalid::TooMany { place: self.place(tag), what: "offsets", max });
                }
                self.check_room(tag, u64::from(header.length))?;
                self.state = State::Fragment { left: u64::from(header.length) };
                self.compare(|canonical| canonical.begin_fragment());
                Ok(())
            }
            SEQUENCE_END => {
                let Some(Encapsulated { tag, vr, offset, fragments }) = self.encapsulated.take() else { return Ok(()) };
                if self.levels.len() == 1 && tag == tags::PIXEL_DATA && self.pixels.is_none() {
                    self.pixels = Some(fragments);
                }
                self.compare(|canonical| canonical.close_fragments());
                self.put(Element { tag, vr, value: Value::Bulk { offset, length: at - offset } });
                self.state = State::Header;
                Ok(())
            }
            _ => Err(self.malformed(tag, "something else than a fragment is in encapsulated pixel data")),
        }
    }

    /// Opens a sequence or an item.
    fn open(&mut self, header: Header, coding: Coding, kind: Kind) -> Result<(), Invalid> {
        if matches!(kind, Kind::Sequence { .. }) {
            self.depth += 1;
            if self.depth > self.limits.depth_max {
                return Err(Invalid::TooDeep { place: self.place(header.tag), max: self.limits.depth_max });
            }
        }
        let defined = header.length != UNDEFINED;
        let end = if defined {
            self.check_room(header.tag, u64::from(header.length))?;
            self.pos + u64::from(header.length)
        } else {
            self.level().end
        };
        let written = self.written_vr();
        self.compare(|canonical| match kind {
            Kind::Sequence { tag, .. } => canonical.open_sequence(tag, written),
            Kind::Elements { .. } => canonical.open_item(),
        });
        self.levels.push(Level { end, defined, coding, kind });
        self.odd = false;
        self.state = State::Header;
        Ok(())
    }

    /// A delimiter: closes the innermost level if that has undefined length, and is a mistake otherwise.
    fn close_undefined(&mut self, tag: Tag) -> Result<(), Invalid> {
        if self.level().defined || self.levels.len() == 1 {
            self.warn(Some(tag), "delimiter where nothing is open, disregarded");
            self.like_nothing();
            return Ok(());
        }
        self.close();
        Ok(())
    }

    /// A sequence ends although its item has not: the item's delimiter was left out.
    fn sequence_end_in_item(&mut self) -> Result<(), Invalid> {
        self.close_undefined(ITEM_END)?;
        if matches!(self.level().kind, Kind::Sequence { .. }) && !self.level().defined {
            self.warn(Some(SEQUENCE_END), "item without its delimiter");
            self.like_nothing();
            self.close();
        }
        Ok(())
    }

    /// Closes what is complete: the value, then every level that ends here.
    fn settle(&mut self) -> Result<(), Invalid> {
        match &mut self.state {
            State::Keep { tag, vr, left: 0, bytes } => {
                let (tag, vr, bytes) = (*tag, *vr, std::mem::take(bytes));
                let (value, odd) = self.value(tag, vr, bytes)?;
                if let Some(odd) = odd {
                    self.warn(Some(tag), odd);
                }
                self.put(Element { tag, vr, value });
                self.end_value();
            }
            State::Skip { left: 0, .. } => self.end_value(),
            State::Fragment { left: 0 } => {
                if let Some(encapsulated) = self.encapsulated.as_mut() {
                    encapsulated.fragments.end();
                }
                self.compare(|canonical| canonical.end_fragment());
                self.state = State::FragmentHeader;
            }
            State::Header
            | State::Keep { .. }
            | State::Skip { .. }
            | State::FragmentHeader
            | State::Fragment { .. } => {}
        }
        if matches!(self.state, State::Header) && self.carried == 0 {
            while self.levels.len() > 1 && self.level().defined && self.level().end == self.pos {
                self.close();
                self.odd = false;
            }
        }
        Ok(())
    }

    /// What comes next is a header.
    fn end_value(&mut self) {
        self.compare(|canonical| canonical.end_value());
        self.state = State::Header;
    }

    /// The value of the bytes just read. When values take too much memory, they are left in the body instead.
    fn value(&mut self, tag: Tag, vr: VR, bytes: Vec<u8>) -> Result<(Value, Option<&'static str>), Invalid> {
        let heap_bytes = value::heap_bytes(vr, &bytes);
        let max = self.heap_bytes_max();
        if self.heap_bytes.saturating_add(heap_bytes) > max {
            let length = bytes.len() as u64;
            return match self.purpose {
                Purpose::Instance => Ok((Value::Bulk { offset: self.pos - length, length }, None)),
                Purpose::Small => Err(self.too_large(Some(tag), "memory for all values", max)),
            };
        }
        self.heap_bytes += heap_bytes;
        Ok(value::decode(vr, bytes, self.level().coding.big))
    }

    fn heap_bytes_max(&self) -> u64 {
        self.limits.header_bytes_max.saturating_mul(HEAP_FACTOR)
    }

    /// Closes the innermost level and hands its contents to the one around it.
    fn close(&mut self) {
        let Some(level) = self.levels.pop() else { return };
        match level.kind {
            Kind::Sequence { tag, mut items } => {
                self.compare(|canonical| canonical.close_sequence());
                self.depth -= 1;
                items.shrink_to_fit();
                let value = if items.is_empty() { Value::Empty } else { Value::Items(items) };
                self.put(Element { tag, vr: VR::SQ, value });
            }
            Kind::Elements { mut set, late, .. } => {
                self.compare(|canonical| canonical.close_item());
                if set.merge(late) > 0 {
                    self.warn(Some(ITEM), "an element occurs twice in an item, the first is taken");
                }
                set.shrink_to_fit();
                if let Some(Level { kind: Kind::Sequence { items, .. }, .. }) = self.levels.last_mut() {
                    items.push(set);
                }
            }
        }
    }

    /// Adds an element to the innermost data set, unless it is one that carries no meaning.
    fn put(&mut self, element: Element) {
        let Tag(group, number) = element.tag;
        let small = self.purpose == Purpose::Small;
        // Group lengths are retired (PS3.5 §7.2); padding has no meaning (PS3.5 §7.2, PS3.10 §7.2).
        let meaningless = number == 0 || element.tag == tags::DATA_SET_TRAILING_PADDING;
        if (group == 0 || group == 2) && self.levels.len() == 1 {
            if !small {
                self.warn(Some(element.tag), "group 0000 or 0002 in the data set, disregarded");
                return;
            }
        } else if meaningless {
            return;
        }
        if let Some(Level { kind: Kind::Elements { set, late, .. }, .. }) = self.levels.last_mut() {
            match set.iter().next_back() {
                Some(newest) if newest.tag >= element.tag => late.push(element),
                _ => set.put(element),
            }
        }
    }

    fn check_order(&mut self, tag: Tag) {
        let mut before = None;
        if let Some(Level { kind: Kind::Elements { last, .. }, .. }) = self.levels.last_mut() {
            before = Some(*last);
            *last = tag;
        }
        match before {
            Some(before) if before == tag && tag != Tag(0, 0) => self.warn(Some(tag), "element occurs twice"),
            Some(before) if before > tag => self.warn(Some(tag), "element is out of order"),
            _ => {}
        }
    }

    /// Which table of the data set itself this value is, so that its numbers are gathered as they pass by.
    fn table(&mut self, tag: Tag, vr: VR, length: u64) -> Result<Option<Tag>, Invalid> {
        if self.levels.len() > 1 || vr != VR::OV {
            return Ok(None);
        }
        let table = match tag {
            tags::EXTENDED_OFFSET_TABLE => &mut self.extended_offsets,
            tags::EXTENDED_OFFSET_TABLE_LENGTHS => &mut self.extended_lengths,
            _ => return Ok(None),
        };
        *table = Some(Table::default());
        let max = self.limits.fragments_max;
        if length > max.saturating_mul(8) {
            return Err(Invalid::TooMany { place: self.place(tag), what: "offsets", max });
        }
        Ok(Some(tag))
    }

    fn is_bulk(&self, tag: Tag, vr: VR, length: u64) -> bool {
        let table = tag == tags::EXTENDED_OFFSET_TABLE || tag == tags::EXTENDED_OFFSET_TABLE_LENGTHS;
        let min = match vr {
            VR::LT | VR::ST | VR::UC | VR::UT => self.limits.text_bulk_bytes_min,
            _ => self.limits.bulk_bytes_min,
        };
        let at_root = self.levels.len() == 1 && self.purpose == Purpose::Instance;
        length >= min || (at_root && (table || PIXEL_DATA.contains(&tag)))
    }

    /// Whether Pixel Representation (0028,0103) says signed, here or in the data set itself.
    fn signed(&self) -> bool {
        let says = |level: &Level| match &level.kind {
            Kind::Elements { set, .. } => set.integer(tags::PIXEL_REPRESENTATION),
            Kind::Sequence { .. } => None,
        };
        self.levels.last().and_then(says).or_else(|| self.levels.first().and_then(says)) == Some(1)
    }

    fn check_room(&self, tag: Tag, declared: u64) -> Result<(), Invalid> {
        let room = self.room();
        if declared <= room {
            return Ok(());
        }
        if self.level().end == self.limits.instance_bytes_max {
            return Err(self.too_large(Some(tag), "the instance", self.limits.instance_bytes_max));
        }
        Err(Invalid::TooLong { place: self.place(tag), declared, room })
    }

    /// Counts bytes that are kept, or that are no bulk value.
    fn charge(&mut self, bytes: u64, tag: Tag) -> Result<(), Invalid> {
        self.header_bytes += bytes;
        if self.header_bytes <= self.limits.header_bytes_max {
            return Ok(());
        }
        Err(self.too_large(Some(tag), "all but bulk data", self.limits.header_bytes_max))
    }

    /// Bytes left in the innermost level.
    fn room(&self) -> u64 {
        self.level().end.saturating_sub(self.pos)
    }

    fn level(&self) -> &Level {
        // The first level is never popped: close() is called for inner levels only.
        &self.levels[self.levels.len() - 1]
    }

    fn last_tag(&self) -> Option<Tag> {
        match &self.level().kind {
            Kind::Sequence { tag, .. } => Some(*tag),
            Kind::Elements { last, .. } if *last == Tag(0, 0) => None,
            Kind::Elements { last, .. } => Some(*last),
        }
    }

    fn place(&self, tag: Tag) -> Place {
        Place { tag: Some(tag), offset: self.pos }
    }

    fn malformed(&self, tag: Tag, why: &'static str) -> Invalid {
        Invalid::Malformed { place: self.place(tag), why }
    }

    fn too_large(&self, tag: Option<Tag>, what: &'static str, max: u64) -> Invalid {
        Invalid::TooLarge { place: Place { tag, offset: self.pos }, what, max }
    }

    pub(crate) fn warn(&mut self, tag: Option<Tag>, what: &'static str) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Warning { place: Place { tag, offset: self.pos }, what });
        }
    }

    /// The bytes are at their end: what was gathered, if they were whole.
    pub(crate) fn finish(&mut self) -> Result<DataSet, Invalid> {
        self.settle()?;
        let tag = match &self.state {
            State::Keep { tag, .. } => Some(*tag),
            State::FragmentHeader | State::Fragment { .. } => self.encapsulated.as_ref().map(|e| e.tag),
            State::Header | State::Skip { .. } => self.last_tag(),
        };
        // A data set of odd length is padded to even by some (PS3.5 §7.1.1 knows only even ones).
        let pad = self.carried == 1 && self.carry[0] == 0 && self.pos.is_multiple_of(2);
        let whole = matches!(self.state, State::Header) && self.levels.len() == 1 && (self.carried == 0 || pad);
        if !whole {
            return Err(Invalid::Truncated { place: Place { tag, offset: self.pos } });
        }
        if pad {
            self.warn(tag, "pad byte after the data set");
            self.like_nothing();
        }
        let Some(Level { kind: Kind::Elements { mut set, late, .. }, .. }) = self.levels.pop() else {
            return Ok(DataSet::new());
        };
        if set.merge(late) > 0 {
            self.warn(None, "an element occurs twice in the data set, the first is taken");
        }
        value::decode_text(&mut set);
        Ok(set)
    }
}

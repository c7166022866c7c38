//! XML to data sets.

use super::{
    COMPONENTS, DEPTH_MAX, GROUPS, XmlError,
    lex::{Lexer, Open, Token, wrong},
};
use crate::{
    DataSet, Element, Limits, Tag, VR, Value,
    json::{Item, key_tag, value_of},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

/// Values that are not there between others that are, in one document.
const GAPS_MAX: usize = 100_000;

/// Where a bulk value is said to be: a text of its sender, which names a part that comes with the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign(pub String);

/// The data set of a document, and the places of its bulk values: `offset` of a `Value::Bulk` counts in that list.
///
/// # Errors
/// For what is not XML, or no data set; the message says where.
pub fn data_set_from_xml(bytes: &[u8], limits: &Limits) -> Result<(DataSet, Vec<Foreign>), XmlError> {
    if bytes.len() as u64 > limits.header_bytes_max {
        return Err(wrong(format!("the XML is larger than {} bytes", limits.header_bytes_max)));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8: write it so"))?;
    let mut reader = Reader {
        lexer: Lexer::new(text),
        foreign: Vec::new(),
        gaps_left: GAPS_MAX,
        elements_left: limits.elements_max,
    };
    match reader.significant()? {
        Token::Open(open) if open.name == "NativeDicomModel" => {}
        _ => return Err(wrong("it does not begin with NativeDicomModel (PS3.19 A.1)")),
    }
    let set = reader.data_set(0)?;
    match reader.significant()? {
        Token::End => Ok((set, reader.foreign)),
        _ => Err(wrong("something is behind the end of NativeDicomModel")),
    }
}

struct Reader<'a> {
    lexer: Lexer<'a>,
    foreign: Vec<Foreign>,
    gaps_left: usize,
    elements_left: u64,
}

impl<'a> Reader<'a> {
    /// The next token that is not white space between elements.
    fn significant(&mut self) -> Result<Token<'a>, XmlError> {
        loop {
            match self.lexer.next()? {
                Token::Text(text) if text.trim().is_empty() => {}
                Token::Text(_) => return Err(wrong("NativeDicomModel has text between its elements")),
                token => return Ok(token),
            }
        }
    }

    /// The attributes up to the end of the element that holds them.
    fn data_set(&mut self, depth: usize) -> Result<DataSet, XmlError> {
        if depth > DEPTH_MAX {
            return Err(wrong("sequences are nested more than 64 deep"));
        }
        let (mut set, mut late) = (DataSet::new(), Vec::new());
        self.count()?;
        loop {
            match self.significant()? {
                Token::Open(open) if open.name == "DicomAttribute" => {
                    self.count()?;
                    let element = self.attribute(&open, &mut set, depth)?;
                    // What is out of order is put in at once: one by one would take quadratic time.
                    if set.iter().next_back().is_none_or(|last| last.tag < element.tag) {
                        set.put(element);
                    } else {
                        late.push(element);
                    }
                }
                Token::Close("NativeDicomModel" | "Item") => {
                    set.merge(late);
                    return Ok(set);
                }
                Token::Open(_) => return Err(wrong("a data set holds an element that is no DicomAttribute")),
                Token::Close(_) => return Err(wrong("an end has no beginning")),
                Token::Text(_) | Token::End => return Err(wrong("the document ends within a data set")),
            }
        }
    }

    /// One more attribute, or data set.
    fn count(&mut self) -> Result<(), XmlError> {
        let left = self.elements_left.checked_sub(1);
        self.elements_left =
            left.ok_or_else(|| wrong("there are more attributes and data sets than are taken at once"))?;
        Ok(())
    }

    fn attribute(&mut self, open: &Open<'_>, set: &mut DataSet, depth: usize) -> Result<Element, XmlError> {
        let tag = open.get("tag").and_then(key_tag);
        let tag = tag.ok_or_else(|| wrong("a DicomAttribute has no `tag` of eight hexadecimal digits"))?;
        let tag = match open.get("privateCreator").filter(|creator| !creator.is_empty()) {
            Some(creator) if tag.0 % 2 == 1 => in_block(set, tag, creator)?,
            _ => tag,
        };
        let at = |why: &str| XmlError { tag: Some(tag), why: why.into() };
        let vr = match open.get("vr") {
            Some(text) => text.parse::<VR>().map_err(|_| at("its `vr` is not one of PS3.5"))?,
            None => crate::scanner::dictionary_vr(tag, false),
        };
        let (mut items, mut other) = (Vec::new(), None);
        loop {
            let open = match self.significant()? {
                Token::Open(open) => open,
                Token::Close("DicomAttribute") => break,
                Token::Close(_) => return Err(at("an end has no beginning")),
                Token::Text(_) | Token::End => return Err(at("the document ends within it")),
            };
            match open.name {
                "Value" | "PersonName" | "Item" => {
                    self.skip_to(&open, &mut items).map_err(at)?;
                    items.push(match open.name {
                        "Value" => Item::Text(self.text("Value")?),
                        "PersonName" => Item::Name(self.name()?),
                        _ => Item::Set(self.data_set(depth + 1)?),
                    });
                }
                "InlineBinary" => {
                    let text: String = self.text("InlineBinary")?.split_ascii_whitespace().collect();
                    let bytes = BASE64.decode(text).map_err(|_| at("its InlineBinary is not Base64"))?;
                    other = Some(Value::Bytes(bytes.into()));
                }
                "BulkData" => {
                    let uri =
                        open.get("uri").or_else(|| open.get("uuid")).ok_or_else(|| at("its BulkData has no uri"))?;
                    other = Some(Value::Bulk { offset: self.foreign.len() as u64, length: 0 });
                    self.foreign.push(Foreign(uri.to_owned()));
                    if !self.text("BulkData")?.trim().is_empty() {
                        return Err(at("its BulkData holds something"));
                    }
                }
                _ => return Err(at("it holds an element that is no value")),
            }
        }
        let value = match other {
            Some(value) => value,
            None => value_of(vr, items).map_err(|what| at(&format!("a value of {vr} is {what}")))?,
        };
        Ok(Element { tag, vr, value })
    }

    /// Makes the values that are left out before the one with this number.
    fn skip_to(&mut self, open: &Open<'_>, items: &mut Vec<Item>) -> Result<(), &'static str> {
        let Some(number) = open.get("number") else { return Ok(()) };
        let number: usize = number.trim().parse().map_err(|_| "a `number` of its values is none")?;
        let missing = number.checked_sub(items.len() + 1).ok_or("the numbers of its values do not ascend")?;
        self.gaps_left = self.gaps_left.checked_sub(missing).ok_or("too many of its values are left out")?;
        items.extend((0..missing).map(|_| Item::Null));
        Ok(())
    }

    /// The characters up to the end of the element `name`, which holds nothing else.
    fn text(&mut self, name: &str) -> Result<String, XmlError> {
        let mut text = String::new();
        loop {
            match self.lexer.next()? {
                Token::Text(piece) => text.push_str(&piece),
                Token::Close(closed) if closed == name => return Ok(text),
                Token::Open(_) => return Err(wrong("a value holds an element")),
                Token::Close(_) => return Err(wrong("an end has no beginning")),
                Token::End => return Err(wrong("the document ends within a value")),
            }
        }
    }

    fn name(&mut self) -> Result<[String; 3], XmlError> {
        let mut groups = [const { String::new() }; 3];
        loop {
            match self.significant()? {
                Token::Open(open) => match GROUPS.iter().position(|known| *known == open.name) {
                    Some(at) => groups[at] = self.components(open.name)?,
                    None => return Err(wrong("a PersonName holds what is none of its three groups")),
                },
                Token::Close("PersonName") => return Ok(groups),
                _ => return Err(wrong("a PersonName does not end")),
            }
        }
    }

    fn components(&mut self, group: &str) -> Result<String, XmlError> {
        let mut parts = [const { String::new() }; 5];
        loop {
            match self.significant()? {
                Token::Open(open) => match COMPONENTS.iter().position(|known| *known == open.name) {
                    Some(at) => parts[at] = self.text(open.name)?,
                    None => return Err(wrong("a name holds what is none of its five components")),
                },
                Token::Close(closed) if closed == group => return Ok(parts.join("^").trim_end_matches('^').to_owned()),
                _ => return Err(wrong("a name does not end")),
            }
        }
    }
}

/// The tag in the block of its creator, which is reserved if it has none yet.
fn in_block(set: &mut DataSet, Tag(group, number): Tag, creator: &str) -> Result<Tag, XmlError> {
    let reserved = |block: &u16| set.text(Tag(group, *block)) == Some(creator);
    let free = |block: &u16| set.get(Tag(group, *block)).is_none();
    let block = (0x10..=0xFF).find(reserved).or_else(|| (0x10..=0xFF).find(free));
    let block = block.ok_or_else(|| wrong("a group has more than 240 private creators"))?;
    set.put_text(Tag(group, block), VR::LO, creator);
    Ok(Tag(group, block << 8 | number & 0xFF))
}

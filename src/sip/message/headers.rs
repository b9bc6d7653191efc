//! The header lines of a message, in order and as they came.
//!
//! Invariant: a line that is not touched keeps its place, the spelling of its name and its value.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::header::split_list;
use super::super::steps::walked;
use super::Name;

/// One header line. Credentials never print.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub(super) name: Name,
    /// As it came (`v`, `CALL-ID` …); `None` in lines of our own.
    pub(super) spelled: Option<Bytes>,
    pub(super) value: Bytes,
}

impl Header {
    /// A line of our own.
    pub fn new(name: Name, value: impl Into<Bytes>) -> Self {
        Self { name, spelled: None, value: value.into() }
    }

    /// Which.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The name as it is written.
    pub fn spelled(&self) -> &[u8] {
        self.spelled.as_deref().unwrap_or(self.name.as_bytes())
    }

    /// The value without the white space around it; folds are already one space (RFC 3261 section 7.3.1).
    pub fn value(&self) -> &Bytes {
        &self.value
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = [Name::Authorization, Name::ProxyAuthorization].contains(&self.name);
        let value = if hidden { Cow::Borrowed("…") } else { String::from_utf8_lossy(&self.value) };
        write!(f, "{}: {value:?}", String::from_utf8_lossy(self.spelled()))
    }
}

/// The header lines of a message in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(pub(super) Vec<Header>);

impl Headers {
    /// The lines in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Header> {
        self.0.iter()
    }

    /// How many lines.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is such a line.
    pub fn has(&self, name: &Name) -> bool {
        self.first(name).is_some()
    }

    /// The value of the first such line.
    pub fn first(&self, name: &Name) -> Option<&[u8]> {
        self.all(name).next().map(Bytes::as_ref)
    }

    /// The same as text; `None` when it is not UTF-8.
    pub fn text(&self, name: &Name) -> Option<&str> {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all such lines, one a line.
    pub fn all<'h, 'n>(&'h self, name: &'n Name) -> impl DoubleEndedIterator<Item = &'h Bytes> + use<'h, 'n> {
        walked(self.0.len());
        self.0.iter().filter(move |header| header.name == *name).map(|header| &header.value)
    }

    /// The values of all such lines, cut at commas outside quotes and `<>`.
    pub fn list<'h, 'n>(&'h self, name: &'n Name) -> impl Iterator<Item = &'h [u8]> + use<'h, 'n> {
        self.all(name).flat_map(|value| split_list(value))
    }

    /// Whether a list of tokens (`Supported`, `Require`, `Allow`) names this one.
    pub fn lists(&self, name: &Name, token: &str) -> bool {
        self.list(name).any(|have| have.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Adds a line at the end.
    pub fn push(&mut self, name: Name, value: impl Into<Bytes>) {
        self.0.push(Header::new(name, value));
    }

    /// Adds a line at the top.
    pub fn push_front(&mut self, name: Name, value: impl Into<Bytes>) {
        self.0.insert(0, Header::new(name, value));
    }

    /// Adds a line as it came in another message, with its spelling.
    pub fn push_header(&mut self, header: Header) {
        self.0.push(header);
    }

    /// Makes this the only such line, at the place of the first one or at the end.
    pub fn set(&mut self, name: Name, value: impl Into<Bytes>) {
        let place = self.0.iter().position(|header| header.name == name).unwrap_or(self.0.len());
        self.remove_all(&name);
        self.0.insert(place, Header::new(name, value));
    }

    /// Takes all such lines away.
    pub fn remove_all(&mut self, name: &Name) {
        self.0.retain(|header| header.name != *name);
    }

    /// Takes the first such line away and returns its value.
    pub fn remove_first(&mut self, name: &Name) -> Option<Bytes> {
        let place = self.0.iter().position(|header| header.name == *name)?;
        Some(self.0.remove(place).value)
    }

    /// Changes the value of the first such line, or adds one.
    pub fn replace_first(&mut self, name: Name, value: impl Into<Bytes>) {
        match self.0.iter_mut().find(|header| header.name == name) {
            Some(header) => header.value = value.into(),
            None => self.push(name, value),
        }
    }

    /// Changes the first value of a list (the top Via, the first Route), keeping the others of its line;
    /// an empty `value` takes it away, and the line with it when it held nothing else.
    pub fn replace_first_listed(&mut self, name: &Name, value: &[u8]) {
        let Some(place) = self.0.iter().position(|header| header.name == *name) else { return };
        let Some(header) = self.0.get_mut(place) else { return };
        let rest: Vec<&[u8]> = split_list(&header.value).skip(1).collect();
        let mut line = value.to_vec();
        for other in rest {
            if !line.is_empty() {
                line.extend_from_slice(b", ");
            }
            line.extend_from_slice(other);
        }
        if line.is_empty() {
            self.0.remove(place);
        } else {
            header.value = Bytes::from(line);
        }
    }
}

//! TOML as people write it → checked values, where every mistake keeps its line.
//!
//! Both the dialplans and the configuration are read through these tables. A mistake does not end the
//! reading: the value's default stands in, so that one run reports all mistakes of a file.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

/// Mistakes of one file that are kept; more help nobody.
pub const MAX_MISTAKES: usize = 100;
/// Values of one list.
pub const MAX_LIST: usize = 1_000;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file's name as it was given.
    pub file: String,
    /// From 1 on; 0 if the file as a whole is meant.
    pub line: usize,
    /// In words.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.text),
            line => write!(f, "{}:{line}: {}", self.file, self.text),
        }
    }
}

/// ` (did you mean 'x'?)` if one of `known` is close to `word`, else nothing.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let close = |candidate: &&str| strsim::damerau_levenshtein(word, candidate);
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    match known.into_iter().min_by_key(close) {
        Some(best) if close(&best) <= allowed => format!(" (did you mean '{best}'?)"),
        Some(_) | None => String::new(),
    }
}

/// One file while it is read: its lines, and what was found.
#[derive(Debug)]
pub struct Page<'f> {
    file: &'f str,
    text: &'f str,
    /// Where each line but the first begins.
    breaks: Vec<usize>,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Mistake>>,
}

impl<'f> Page<'f> {
    /// The file `file` with this text.
    pub fn new(file: &'f str, text: &'f str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        Self { file, text, breaks, mistakes: RefCell::default(), warnings: RefCell::default() }
    }

    /// The file as a tree; every mistake of the grammar is noted.
    pub fn tree(&self) -> Spanned<DeTable<'f>> {
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let line = error.span().map_or(0, |span| self.line(&span));
            self.wrong(line, format!("this is not TOML: {}", error.message()));
        }
        tree
    }

    /// The line of a place in the text, from 1 on.
    pub fn line(&self, span: &Range<usize>) -> usize {
        self.breaks.partition_point(|begin| *begin <= span.start) + 1
    }

    /// Notes a mistake.
    pub fn wrong(&self, line: usize, text: impl Into<String>) {
        push(&self.mistakes, Mistake { file: self.file.to_owned(), line, text: text.into() });
    }

    /// Notes what works but looks wrong.
    pub fn warn(&self, line: usize, text: impl Into<String>) {
        push(&self.warnings, Mistake { file: self.file.to_owned(), line, text: text.into() });
    }

    /// The file's name.
    pub fn file(&self) -> &'f str {
        self.file
    }

    /// Mistakes and warnings, each by line.
    pub fn found(self) -> (Vec<Mistake>, Vec<Mistake>) {
        let (mut mistakes, mut warnings) = (self.mistakes.into_inner(), self.warnings.into_inner());
        mistakes.sort_by_key(|mistake| mistake.line);
        warnings.sort_by_key(|warning| warning.line);
        (mistakes, warnings)
    }
}

fn push(list: &RefCell<Vec<Mistake>>, mistake: Mistake) {
    let mut list = list.borrow_mut();
    if list.len() < MAX_MISTAKES {
        list.push(mistake);
    }
}

/// A value with its line.
#[derive(Debug, Clone, Copy)]
pub struct Value<'p> {
    /// The value.
    pub value: &'p DeValue<'p>,
    /// Its line.
    pub line: usize,
}

/// One table of a page. Ask for every key that exists, then [`Table::finish`] refuses the others.
#[derive(Debug)]
pub struct Table<'p> {
    page: &'p Page<'p>,
    title: String,
    line: usize,
    entries: Option<&'p DeTable<'p>>,
    /// Keys that exist here.
    asked: RefCell<Vec<&'static str>>,
}

impl<'p> Table<'p> {
    /// The table `entries`, called `title` in messages; `None` reads as an empty one.
    pub fn new(
        page: &'p Page<'p>,
        title: impl Into<String>,
        line: usize,
        entries: Option<&'p DeTable<'p>>,
    ) -> Self {
        Self { page, title: title.into(), line, entries, asked: RefCell::default() }
    }

    /// The same under another name in messages.
    pub fn titled(self, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..self }
    }

    /// The page it stands on.
    pub fn page(&self) -> &'p Page<'p> {
        self.page
    }

    /// The line it begins on.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The value of a key, if it is there.
    pub fn value(&self, key: &'static str) -> Option<Value<'p>> {
        self.ask(key);
        let value = self.entries?.get(key)?;
        Some(Value { value: value.get_ref(), line: self.page.line(&value.span()) })
    }

    fn ask(&self, key: &'static str) {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
    }

    /// The names of all keys that are there.
    pub fn keys(&self) -> impl Iterator<Item = &'p str> {
        self.entries.into_iter().flat_map(|entries| entries.keys().map(|key| &**key.get_ref()))
    }

    /// Refuses every key that was not asked for, and names the keys that exist.
    pub fn finish(self) {
        let asked = self.asked.into_inner();
        for (key, value) in self.entries.into_iter().flat_map(|entries| entries.iter()) {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            let mut hint = did_you_mean(name, asked.iter().copied());
            if hint.is_empty() {
                hint = format!("; keys are {}", asked.join(", "));
            }
            // The value of a table that has a header of its own stands at the header.
            let line = self.page.line(&key.span()).min(self.page.line(&value.span()));
            let place = if self.title.is_empty() { String::new() } else { format!(" in {}", self.title) };
            self.page.wrong(line, format!("unknown key '{name}'{place}{hint}"));
        }
    }

    /// A table inside this one; an empty one if it is not there.
    pub fn table(&self, key: &'static str, title: &str) -> Table<'p> {
        let Some(value) = self.value(key) else { return Table::new(self.page, title, self.line, None) };
        if value.value.as_table().is_none() {
            self.page.wrong(value.line, format!("'{key}' is a table: write {title}"));
        }
        Table::new(self.page, title, value.line, value.value.as_table())
    }

    /// The tables of a list of tables.
    pub fn tables(&self, key: &'static str, title: &str) -> Vec<Table<'p>> {
        let tables = self.list(key).into_iter().filter_map(|item| match item.value.as_table() {
            Some(entries) => Some(Table::new(self.page, title, item.line, Some(entries))),
            None => {
                self.page.wrong(item.line, format!("'{key}' is a list of tables: write {title}"));
                None
            }
        });
        tables.collect()
    }

    /// The items of a list; empty if it is not there.
    pub fn list(&self, key: &'static str) -> Vec<Value<'p>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(items) = value.value.as_array() else {
            self.page.wrong(value.line, format!("'{key}' is a list: write [ … ]"));
            return Vec::new();
        };
        if items.len() > MAX_LIST {
            self.page.wrong(value.line, format!("'{key}' has more than {MAX_LIST} items"));
        }
        let item = |item: &'p Spanned<DeValue<'p>>| Value {
            value: item.get_ref(),
            line: self.page.line(&item.span()),
        };
        items.iter().take(MAX_LIST).map(item).collect()
    }

    /// A text made into `T`, or `None` if the key is not there or wrong.
    pub fn maybe<T>(&self, key: &'static str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let value = self.value(key)?;
        self.made(key, value, read)
    }

    /// A text made into `T`, or `default`.
    pub fn text<T>(&self, key: &'static str, default: T, read: impl FnOnce(&str) -> Result<T, String>) -> T {
        self.maybe(key, read).unwrap_or(default)
    }

    /// A list of texts, each made into `T`; `default` if the key is not there.
    pub fn texts<T>(
        &self,
        key: &'static str,
        default: Vec<T>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        if self.value(key).is_none() {
            return default;
        }
        self.list(key).into_iter().filter_map(|item| self.made(key, item, &read)).collect()
    }

    /// One text or a list of them (texts may also be separated by commas).
    pub fn one_or_more<T>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let items = if value.value.is_array() { self.list(key) } else { vec![value] };
        if items.is_empty() {
            self.page.wrong(value.line, format!("'{key}' is empty"));
        }
        let each = |text: &str| text.split(',').map(|part| read(part.trim())).collect::<Result<Vec<_>, _>>();
        Some(items.into_iter().filter_map(|item| self.made(key, item, each)).flatten().collect())
    }

    fn made<T>(
        &self,
        key: &str,
        value: Value<'_>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value.value.as_str() else {
            self.page.wrong(value.line, format!("'{key}' is a text: write it in quotes"));
            return None;
        };
        match read(text) {
            Ok(made) => Some(made),
            Err(why) => {
                self.page.wrong(value.line, format!("{key}: {why}"));
                None
            }
        }
    }

    /// A whole number inside `range`, or `default`.
    pub fn whole<T: TryFrom<i64>>(&self, key: &'static str, default: T, range: RangeInclusive<i64>) -> T {
        let Some(value) = self.value(key) else { return default };
        let number = value
            .value
            .as_integer()
            .and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok());
        number.unwrap_or_else(|| {
            let (low, high) = range.into_inner();
            self.page.wrong(value.line, format!("'{key}' is a whole number from {low} to {high}"));
            default
        })
    }

    /// True or false, or `default`.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.value(key) else { return default };
        value.value.as_bool().unwrap_or_else(|| {
            self.page.wrong(value.line, format!("'{key}' is true or false, without quotes"));
            default
        })
    }

    /// A duration such as `"30s"`, or `default`; milliseconds.
    pub fn duration(&self, key: &'static str, default_ms: u64) -> u64 {
        self.text(key, default_ms, duration_ms)
    }
}

/// `500ms`, `30s`, `15m`, `2h`, `90d` → milliseconds; `0` needs no unit.
///
/// # Errors
/// In words.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no duration; write for instance 500ms, 30s, 15m, 2h or 90d");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let count: u64 = count.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if count == 0 => 0,
        _ => return Err(wrong()),
    };
    // Ten years are longer than anything here, and no sum of two deadlines overflows.
    let ten_years_ms = 3_650 * 86_400_000;
    count.checked_mul(unit_ms).filter(|ms| *ms <= ten_years_ms).ok_or_else(|| format!("'{text}' is too long"))
}

/// A word out of a fixed set.
///
/// # Errors
/// In words, with the words that exist.
pub fn word<T: Clone>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
        return Ok(value.clone());
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let hint = did_you_mean(text, names.iter().copied());
    Err(format!("'{text}' is not one of {}{hint}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        let table =
            [("500ms", 500), ("30s", 30_000), ("15m", 900_000), ("2h", 7_200_000), ("0", 0), ("0s", 0)];
        for (text, ms) in table {
            assert_eq!(duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5s", "30 s", "1w", "999999999999d", "99999999999999999999s"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_close_word_is_suggested_and_a_far_one_is_not() {
        assert_eq!(did_you_mean("orderz", ["orders", "seniors"]), " (did you mean 'orders'?)");
        assert_eq!(did_you_mean("airport", ["orders", "seniors"]), "");
        assert_eq!(did_you_mean("x", []), "");
    }

    #[test]
    fn every_mistake_of_a_page_keeps_its_line() {
        let page = Page::new("f.toml", "a = 1\nb = 'x'\n\n[web]\nlisen = 2\nflag = 'yes'\n");
        let tree = page.tree();
        let root = Table::new(&page, "", 1, Some(tree.get_ref()));
        assert_eq!(root.whole::<u32>("a", 9, 5..=10), 9);
        assert_eq!(root.whole::<u32>("b", 7, 0..=10), 7);
        let web = root.table("web", "[web]");
        assert!(!web.flag("flag", false));
        assert_eq!(web.maybe("listen", |text| Ok(text.to_owned())), None);
        web.finish();
        root.finish();
        let shown: Vec<String> = page.found().0.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "f.toml:1: 'a' is a whole number from 5 to 10",
                "f.toml:2: 'b' is a whole number from 0 to 10",
                "f.toml:5: unknown key 'lisen' in [web] (did you mean 'listen'?)",
                "f.toml:6: 'flag' is true or false, without quotes",
            ]
        );
    }

    #[test]
    fn broken_toml_is_a_mistake_with_a_line() {
        let page = Page::new("f.toml", "a = 1\nb = \n");
        page.tree();
        let (mistakes, _) = page.found();
        assert_eq!(mistakes.first().map(|mistake| mistake.line), Some(2));
    }
}

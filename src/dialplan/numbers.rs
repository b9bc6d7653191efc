//! Telephone numbers: what people type and gateways present → [`Number`], and [`Number`] → what a trunk
//! wants dialled.
//!
//! Invariant: nothing but `0-9 + * #` ever passes, so that no text of a peer becomes a part of a dial
//! string, a header or a route.

use serde::{Deserialize, Serialize};

use crate::terms::Number;

/// Digits of the longest number that passes; E.164 has 15, prefixes of carriers come on top.
pub const MAX_DIGITS: usize = 32;
/// Numbers of so few digits are short numbers (services, emergency): rules leave them as they are.
pub const SHORT_DIGITS: usize = 6;

/// One rewriting rule: a number that begins with `strip` begins with `add` instead.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// Taken off; empty fits every number.
    pub strip: String,
    /// Put on.
    pub add: String,
}

impl Rule {
    fn apply(&self, digits: &str) -> Option<String> {
        digits.strip_prefix(self.strip.as_str()).map(|rest| format!("{}{rest}", self.add))
    }
}

/// What a text that should be a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotANumber {
    /// It holds something else than digits, `+`, `*` and `#`, or nothing.
    #[error("a number has only the digits 0-9, + at its beginning, * and #")]
    Letters,
    /// It is longer than [`MAX_DIGITS`].
    #[error("a number has at most {MAX_DIGITS} digits")]
    TooLong,
}

/// What names a caller who does not want to be named, in any case of letters.
const WITHHELD: [&str; 8] =
    ["anonymous", "withheld", "restricted", "private", "unavailable", "unknown", "blocked", "hidden"];

/// What somebody typed or a dialled user part, as a number: separators of people are taken out, then the
/// first rule that fits is applied, unless it is short or begins with `+` already.
///
/// # Errors
/// [`NotANumber`]: answer 404 (SIP) or 400 (API).
pub fn normalise(typed: &str, rules: &[Rule]) -> Result<Number, NotANumber> {
    let digits = without_separators(typed);
    check(&digits)?;
    if digits.starts_with('+') || digits.len() <= SHORT_DIGITS {
        return Ok(Number::new(digits));
    }
    let ruled = rules.iter().find_map(|rule| rule.apply(&digits)).unwrap_or(digits);
    check(&ruled)?;
    Ok(Number::new(ruled))
}

/// A caller's number as a gateway presents it (the user part of the header's address): withheld callers
/// are an empty [`Number`]; `None` if it is no number at all, such as a gateway's own user name.
pub fn caller(presented: &str, rules: &[Rule]) -> Option<Number> {
    let name = presented.trim().to_ascii_lowercase();
    if name.is_empty() || WITHHELD.contains(&name.as_str()) {
        return Some(Number::default());
    }
    normalise(presented, rules).ok()
}

/// What a trunk wants dialled for `number`: the first of its `dial_rules` that fits.
///
/// # Errors
/// [`NotANumber`] if the number is empty or a rule makes it too long.
pub fn dial_string(number: &Number, dial_rules: &[Rule]) -> Result<String, NotANumber> {
    let digits = number.reveal();
    let dialled = dial_rules.iter().find_map(|rule| rule.apply(digits)).unwrap_or_else(|| digits.to_owned());
    check(&dialled)?;
    Ok(dialled)
}

/// Whether `text` could stand before a number: digits, `*`, `#`, and `+` at its beginning; may be empty.
pub(crate) fn is_prefix(text: &str) -> bool {
    let rest = text.strip_prefix('+').unwrap_or(text);
    rest.len() <= MAX_DIGITS && rest.bytes().all(is_digit)
}

/// What people write between digits; a `+` inside is left for [`check`] to refuse.
fn without_separators(typed: &str) -> String {
    let separator = |letter: &char| matches!(letter, ' ' | '-' | '(' | ')' | '.' | '/' | '\u{a0}');
    typed.chars().filter(|letter| !separator(letter)).take(MAX_DIGITS * 4).collect()
}

fn check(digits: &str) -> Result<(), NotANumber> {
    let rest = digits.strip_prefix('+').unwrap_or(digits);
    if rest.is_empty() || !rest.bytes().all(is_digit) {
        return Err(NotANumber::Letters);
    }
    if rest.len() > MAX_DIGITS {
        return Err(NotANumber::TooLong);
    }
    Ok(())
}

fn is_digit(letter: u8) -> bool {
    letter.is_ascii_digit() || letter == b'*' || letter == b'#'
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn rules() -> Vec<Rule> {
        [("00", "+"), ("0", "+380")]
            .map(|(strip, add)| Rule { strip: strip.into(), add: add.into() })
            .to_vec()
    }

    #[test]
    fn what_people_type_becomes_e164_and_short_numbers_stay() {
        let table = [
            ("067 123-45-67", "+380671234567"),
            ("(044) 123.45.67", "+380441234567"),
            ("0048221234567", "+48221234567"),
            ("+380 67 123 45 67", "+380671234567"),
            ("112", "112"),
            ("0123", "0123"),
            ("*100#", "*100#"),
            ("380671234567", "380671234567"),
        ];
        for (typed, number) in table {
            assert_eq!(normalise(typed, &rules()).unwrap().reveal(), number, "{typed}");
        }
    }

    #[test]
    fn nothing_but_digits_is_ever_dialled() {
        let injected = [
            "",
            "+",
            "9+123456",
            "100&SIP/200",
            "${EXTEN}1234567",
            "1234567%0d%0aX:",
            "1234567;phone-context=+1",
            "123\n4567",
            "123\t4567",
            "１２３４５６７",
            "alice",
            "++1234567",
        ];
        for typed in injected {
            assert_eq!(normalise(typed, &rules()), Err(NotANumber::Letters), "{typed:?}");
        }
        assert_eq!(normalise(&"1".repeat(33), &rules()), Err(NotANumber::TooLong));
        assert_eq!(normalise(&"0".repeat(500), &rules()), Err(NotANumber::TooLong));
        // A rule must not carry a number over the limit either.
        assert_eq!(normalise(&format!("0{}", "1".repeat(31)), &rules()), Err(NotANumber::TooLong));
    }

    #[test]
    fn a_withheld_caller_is_a_caller_and_a_user_name_is_none() {
        for presented in ["anonymous", "Anonymous", "", " withheld ", "UNKNOWN"] {
            assert!(caller(presented, &rules()).unwrap().is_withheld(), "{presented:?}");
        }
        assert_eq!(caller("gsm-1", &rules()), None);
        assert_eq!(caller("0671234567", &rules()).unwrap().reveal(), "+380671234567");
    }

    #[test]
    fn a_trunk_gets_the_number_its_own_way() {
        let plus_off = [Rule { strip: "+".into(), add: String::new() }];
        let local =
            [Rule { strip: "+380".into(), add: "0".into() }, Rule { strip: "+".into(), add: "00".into() }];
        let table: [(&str, &[Rule], &str); 5] = [
            ("+380671234567", &plus_off, "380671234567"),
            ("112", &plus_off, "112"),
            ("+380671234567", &local, "0671234567"),
            ("+48221234567", &local, "0048221234567"),
            ("+48221234567", &[], "+48221234567"),
        ];
        for (number, rules, dialled) in table {
            assert_eq!(dial_string(&Number::new(number), rules).unwrap(), dialled);
        }
        assert_eq!(dial_string(&Number::default(), &plus_off), Err(NotANumber::Letters));
    }
}

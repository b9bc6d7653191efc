//! Opening hours: `mon-fri 08:00-18:00, sat, sun 10:00-16:00`.
//!
//! Days first, then their times; several times share the days before them, times without days are every
//! day's, days without times are whole days. A time that ends before it begins goes over midnight and
//! belongs to the day it begins on. Hours are compared with the clock on the wall (weekday and
//! minute), so a change of daylight saving time makes a span one hour longer or shorter and nothing else.

use std::fmt;

use jiff::{Timestamp, tz::TimeZone};

use crate::terms::WallMs;

const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;
/// Spans of one text.
const MAX_SPANS: usize = 200;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Weekday {
    /// From Monday on.
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// `mon` … `sun`, in any case of letters.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|day| day.word().eq_ignore_ascii_case(word))
    }

    /// `mon` … `sun`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }

    /// 0 for Monday … 6 for Sunday.
    fn index(self) -> u16 {
        match self {
            Self::Mon => 0,
            Self::Tue => 1,
            Self::Wed => 2,
            Self::Thu => 3,
            Self::Fri => 4,
            Self::Sat => 5,
            Self::Sun => 6,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Mon => Self::Tue,
            Self::Tue => Self::Wed,
            Self::Wed => Self::Thu,
            Self::Thu => Self::Fri,
            Self::Fri => Self::Sat,
            Self::Sat => Self::Sun,
            Self::Sun => Self::Mon,
        }
    }
}

/// What the clock on the wall shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// The day.
    pub weekday: Weekday,
    /// Minutes since midnight as the clock shows it, 0…1439.
    pub minute: u16,
}

impl LocalTime {
    /// What the clock shows at `wall_ms` in `zone`.
    pub fn of(wall_ms: WallMs, zone: &TimeZone) -> Self {
        let civil = zone.to_datetime(Timestamp::from_millisecond(wall_ms).unwrap_or(Timestamp::UNIX_EPOCH));
        let weekday = match civil.weekday() {
            jiff::civil::Weekday::Monday => Weekday::Mon,
            jiff::civil::Weekday::Tuesday => Weekday::Tue,
            jiff::civil::Weekday::Wednesday => Weekday::Wed,
            jiff::civil::Weekday::Thursday => Weekday::Thu,
            jiff::civil::Weekday::Friday => Weekday::Fri,
            jiff::civil::Weekday::Saturday => Weekday::Sat,
            jiff::civil::Weekday::Sunday => Weekday::Sun,
        };
        let minutes = i32::from(civil.hour()) * 60 + i32::from(civil.minute());
        Self { weekday, minute: u16::try_from(minutes).unwrap_or(0) }
    }

    /// `sat 03:00`.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no time; write for instance 'sat 03:00'");
        let (day, time) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let weekday = Weekday::from_word(day).ok_or_else(wrong)?;
        let minute = clock(time.trim()).filter(|minute| *minute < DAY).ok_or_else(wrong)?;
        Ok(Self { weekday, minute })
    }

    /// The beginning of the week.
    pub(crate) const MONDAY: Self = Self { weekday: Weekday::Mon, minute: 0 };

    fn of_week(minute: u16) -> Self {
        let minute = minute % WEEK;
        let weekday = Weekday::ALL.get(usize::from(minute / DAY)).copied().unwrap_or(Weekday::Mon);
        Self { weekday, minute: minute % DAY }
    }

    fn minute_of_week(self) -> u16 {
        self.weekday.index() * DAY + self.minute.min(DAY - 1)
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:02}:{:02}", self.weekday.word(), self.minute / 60, self.minute % 60)
    }
}

/// Spans of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    spans: Vec<Span>,
}

/// So many minutes from a minute of the week on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u16,
    minutes: u16,
}

impl Span {
    fn contains(self, minute_of_week: u16) -> bool {
        (minute_of_week + WEEK - self.start) % WEEK < self.minutes
    }
}

impl Hours {
    /// Reads opening hours.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut spans = Vec::new();
        let mut days = Vec::new();
        let mut timed = true; // Whether the days so far have been given a time.
        for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
            if word.starts_with(|letter: char| letter.is_ascii_digit()) {
                let (start, minutes) = time_span(word)?;
                let every = if days.is_empty() { &Weekday::ALL[..] } else { &days[..] };
                spans.extend(every.iter().map(|day| Span { start: day.index() * DAY + start, minutes }));
                timed = true;
            } else {
                if timed {
                    days.clear();
                }
                days.extend(day_span(word)?);
                timed = false;
            }
            if spans.len() > MAX_SPANS || days.len() > MAX_SPANS {
                return Err(format!("more than {MAX_SPANS} spans"));
            }
        }
        if !timed {
            spans.extend(days.iter().map(|day| Span { start: day.index() * DAY, minutes: DAY }));
        }
        if spans.is_empty() {
            return Err("no hours; write for instance 'mon-fri 08:00-18:00, sat 10:00-14:00'".into());
        }
        Ok(Self { spans })
    }

    /// Whether `at` lies inside.
    pub fn contain(&self, at: LocalTime) -> bool {
        let minute = at.minute_of_week();
        self.spans.iter().any(|span| span.contains(minute))
    }

    /// Every moment of the week where inside becomes outside or the other way round.
    pub(crate) fn edges(&self) -> impl Iterator<Item = LocalTime> {
        self.spans.iter().flat_map(|span| [span.start, span.start + span.minutes]).map(LocalTime::of_week)
    }
}

/// `mon` or `fri-mon`.
fn day_span(word: &str) -> Result<Vec<Weekday>, String> {
    let day = |text: &str| {
        Weekday::from_word(text)
            .ok_or_else(|| format!("'{text}' is no day; days are mon tue wed thu fri sat sun"))
    };
    let Some((first, last)) = word.split_once('-') else { return Ok(vec![day(word)?]) };
    let (first, last) = (day(first)?, day(last)?);
    let mut days = vec![first];
    let mut today = first;
    while today != last {
        today = today.next();
        days.push(today);
    }
    Ok(days)
}

/// `08:00-18:00`: begin and length in minutes.
fn time_span(word: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("'{word}' is no span of time; write for instance '08:00-18:00'");
    let (from, to) = word.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (clock(from).ok_or_else(wrong)?, clock(to).ok_or_else(wrong)?);
    if from == DAY {
        return Err(format!("'{word}' begins at 24:00; write 00:00 of the next day"));
    }
    if from == to {
        return Err(format!("'{word}' is empty; the whole day is 00:00-24:00"));
    }
    Ok((from, if to > from { to - from } else { to + DAY - from }))
}

/// `HH:MM`, up to 24:00.
fn clock(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |part: &str| {
        (part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())?
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn open(hours: &str, at: &str) -> bool {
        Hours::parse(hours).unwrap().contain(LocalTime::parse(at).unwrap())
    }

    #[test]
    fn hours_hold_as_people_read_them() {
        let table = [
            ("mon-sun 06:00-24:00", "sun 23:59", true),
            ("mon-sun 06:00-24:00", "mon 05:59", false),
            ("mon-sun 06:00-24:00", "mon 06:00", true),
            ("mon-fri 08:00-12:00, 13:00-18:00", "tue 12:30", false),
            ("mon-fri 08:00-12:00, 13:00-18:00", "tue 13:00", true),
            ("mon-fri 08:00-12:00, 13:00-18:00", "sat 13:00", false),
            ("mon-fri 08:00-18:00, sat, sun 10:00-16:00", "sat 09:00", false),
            ("mon-fri 08:00-18:00, sat, sun 10:00-16:00", "sat 15:59", true),
            ("mon-fri 08:00-18:00, sat", "sat 00:00", true),
            ("22:00-06:00", "wed 05:59", true),
            ("22:00-06:00", "wed 06:00", false),
            ("fri 22:00-06:00", "sat 05:59", true),
            ("fri 22:00-06:00", "fri 05:59", false),
            ("sun 22:00-06:00", "mon 01:00", true),
            ("sat-mon 00:00-24:00", "mon 12:00", true),
            ("sat-mon 00:00-24:00", "tue 00:00", false),
            ("MON 10:00-11:00", "mon 10:30", true),
        ];
        for (hours, at, inside) in table {
            assert_eq!(open(hours, at), inside, "{hours} at {at}");
        }
    }

    #[test]
    fn hours_that_mean_nothing_are_refused_in_words() {
        for text in
            ["", " , ", "mo 08:00-10:00", "mon 8:00-10:00", "mon 08:00", "mon 08:00-08:00", "mon 24:00-01:00"]
                .into_iter()
                .chain([
                    "mon-xyz",
                    "mon 08:60-10:00",
                    "mon 08:00-24:01",
                    "mon 08:00_10:00",
                    "mon 25:00-26:00",
                ])
        {
            assert!(!Hours::parse(text).unwrap_err().is_empty(), "{text}");
        }
        assert!(Hours::parse(&"mon,".repeat(300)).is_err());
    }

    #[test]
    fn the_clock_on_the_wall_decides_on_the_days_of_daylight_saving() {
        let zone = TimeZone::posix("EET-2EEST,M3.5.0/3,M10.5.0/4").unwrap();
        // 2026-03-29: 02:59 is followed by 04:00; 2026-10-25: 03:59 is followed by 03:00 once.
        let table = [
            ("2026-03-29T00:59:00Z", "sun 02:59"),
            ("2026-03-29T01:00:00Z", "sun 04:00"),
            ("2026-10-25T00:59:00Z", "sun 03:59"),
            ("2026-10-25T01:00:00Z", "sun 03:00"),
        ];
        for (at, shown) in table {
            let wall_ms = at.parse::<Timestamp>().unwrap().as_millisecond();
            assert_eq!(LocalTime::of(wall_ms, &zone).to_string(), shown, "{at}");
        }
    }
}

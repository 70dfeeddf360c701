//! What an operator reads when a configuration is refused: one sentence with the fix, and the place.

use std::fmt;
use std::ops::Range;

use super::names::closest;

/// A refused configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<String>,
    message: String,
    place: Option<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    text: String,
    indent: usize,
    width: usize,
}

/// Characters of a line that are shown at most.
const SHOWN: usize = 160;

/// Bytes of a sentence at most: what it repeats of the file may be long.
const SENTENCE: usize = 600;

/// A problem found in a text, before the text and its name are attached.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) span: Option<Range<usize>>,
}

impl Problem {
    pub(super) fn new(span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self { message: message.into(), span }
    }
}

impl ConfigError {
    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self { file: None, message: printable(&message.into()), place: None }
    }

    pub(super) fn at(text: &str, problem: Problem) -> Self {
        let place = problem.span.map(|span| Place::find(text, span));
        Self { file: None, message: shortened(printable(&problem.message)), place }
    }

    pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        Self::at(text, Problem::new(error.span(), plain_words(error.message())))
    }

    pub(super) fn in_file(mut self, file: &str) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// The sentence alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Line and column, from 1, where there is one place to look at.
    pub fn place(&self) -> Option<(usize, usize)> {
        self.place.as_ref().map(|place| (place.line, place.column))
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or("configuration");
        let Some(Place { line, column, text, indent, width }) = &self.place else {
            return write!(f, "{file}: {}", self.message);
        };
        let margin = line.to_string().len();
        writeln!(f, "{file}:{line}:{column}: {}", self.message)?;
        writeln!(f, "{:margin$} |", "")?;
        writeln!(f, "{line} | {text}")?;
        write!(f, "{:margin$} | {:indent$}{}", "", "", "^".repeat(*width), indent = indent)
    }
}

impl Place {
    fn find(text: &str, span: Range<usize>) -> Self {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let before = text.get(..start).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_text = text.get(line_start..).unwrap_or("").lines().next().unwrap_or("");
        let column = text.get(line_start..start).unwrap_or("").chars().count() + 1;
        // A value over several lines is underlined on its first.
        let spanned = text.get(start..span.end.min(text.len())).unwrap_or("").lines().next().unwrap_or("");
        // Of a line that no screen holds, what is around the place.
        let skipped = if line_text.len() > SHOWN { column.saturating_sub(SHOWN / 2) } else { 0 };
        let shown = line_text.chars().skip(skipped).take(SHOWN);
        Self {
            line: before.matches('\n').count() + 1,
            column,
            // Tabs would move the underline away from what it points at, and a terminal takes orders from others.
            text: shown.map(|c| if c.is_control() { ' ' } else { c }).collect(),
            indent: column - 1 - skipped,
            width: spanned.chars().count().clamp(1, SHOWN - (column - 1 - skipped).min(SHOWN - 1)),
        }
    }
}

/// The sentence on one line, with what a terminal would take as an order spelled out: it repeats words of the file, and TOML
/// lets those hold any character as `\u001B`.
fn printable(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The sentence without what makes it longer than anybody reads, from its middle.
fn shortened(message: String) -> String {
    if message.len() <= SENTENCE {
        return message;
    }
    let (head, tail) = (SENTENCE / 3, message.len() - SENTENCE / 3);
    let head = (0..=head).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
    let tail = (tail..message.len()).find(|&at| message.is_char_boundary(at)).unwrap_or(message.len());
    format!("{}...{}", &message[..head], &message[tail..])
}

/// serde's words turned into a sentence with the fix in it. Words that are not known here stay as they are.
fn plain_words(message: &str) -> String {
    let message = message.trim();
    if let Some((name, names)) = offered(message, "unknown field ") {
        return match closest(name, names.iter().copied()) {
            Some(guess) => format!("unknown key `{name}`: did you mean `{guess}`?"),
            None if names.is_empty() => format!("unknown key `{name}`: remove it, nothing belongs here"),
            None => format!("unknown key `{name}`: the keys here are {}", list(&names)),
        };
    }
    if let Some((name, names)) = offered(message, "unknown variant ") {
        return match closest(name, names.iter().copied()) {
            Some(guess) => format!("`{name}` is not a value of this key: did you mean `{guess}`?"),
            None => format!("`{name}` is not a value of this key: use {}", list(&names)),
        };
    }
    if let Some(name) = message.strip_prefix("missing field ") {
        return format!("the key {name} is missing here: add it");
    }
    if let Some(rest) = message.strip_prefix("invalid type: ").or(message.strip_prefix("invalid value: ")) {
        return match rest.split_once(", expected ") {
            Some((found, expected)) => format!("this is {}: write {expected}", article(found)),
            None => message.to_owned(),
        };
    }
    // Where one of a few words belongs.
    if message == "wanted string or table" {
        return "this key takes a word: write one in quotes, `dpdk-conntrack config show` prints it"
            .to_owned();
    }
    message.replace('\n', ", ")
}

fn article(found: &str) -> String {
    match found.split_once(' ') {
        Some(("string", rest)) => format!("the string {rest}"),
        Some(("integer", rest)) => format!("the integer {rest}"),
        Some(("boolean", rest)) => format!("the boolean {rest}"),
        Some(("floating", rest)) => format!("the number {}", rest.trim_start_matches("point ")),
        _ => format!("a {found}"),
    }
}

/// The refused name and the offered ones out of "unknown field `x`, expected one of `a`, `b`".
fn offered<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let mut quoted = message.strip_prefix(prefix)?.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    Some((name, quoted.collect()))
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

//! What `-o` takes: the form of the lines and the columns besides, or JSON.

use std::str::FromStr;

use super::{Form, Style};

/// What `-o` asked for; [`Output::style`] completes it by the profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    form: Option<Form>,
    family: bool,
    id: bool,
    /// Events begin with the wall clock's time.
    pub timestamp: bool,
    pub layout: Layout,
}

/// How records follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// A line of text each.
    #[default]
    Text,
    /// One JSON array.
    Json,
    /// A JSON object a line.
    JsonLines,
}

/// Why an output was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    #[error(
        "`{0}` is no output: use classic, conntrack or proc for the form, extended, id or timestamp for columns, or json or jsonl"
    )]
    Unknown(String),
    #[error("`{0}` and `{1}` cannot both be the form: give one of them")]
    TwoForms(&'static str, &'static str),
    #[error("JSON always has every field: leave out the other words")]
    JsonWithColumns,
    #[error("a classic line has no family column: give -o conntrack,extended, or leave extended out")]
    ClassicExtended,
}

impl Output {
    /// The lines' style. Without a word for the form it is `conntrack`'s own if a column of `conntrack`'s was asked
    /// for, and else the profile's: classic in `classic`, `conntrack`'s in `linux`.
    pub fn style(&self, classic_profile: bool) -> Style {
        let otherwise = if classic_profile && !self.family { Form::Classic } else { Form::Conntrack };
        Style {
            form: self.form.unwrap_or(otherwise),
            family: self.family,
            id: self.id,
            listen: classic_profile,
        }
    }
}

impl FromStr for Output {
    type Err = OutputError;

    fn from_str(text: &str) -> Result<Self, OutputError> {
        let mut output = Self::default();
        let mut form: Option<&'static str> = None;
        for word in text.split(',').map(str::trim) {
            let mut take = |name| match form.replace(name) {
                Some(other) if other != name => Err(OutputError::TwoForms(other, name)),
                _ => Ok(()),
            };
            match word {
                "classic" => {
                    take("classic")?;
                    output.form = Some(Form::Classic);
                }
                "conntrack" => {
                    take("conntrack")?;
                    output.form = Some(Form::Conntrack);
                }
                "proc" => {
                    take("proc")?;
                    output.form = Some(Form::Proc);
                }
                "json" => {
                    take("json")?;
                    output.layout = Layout::Json;
                }
                "jsonl" => {
                    take("jsonl")?;
                    output.layout = Layout::JsonLines;
                }
                "extended" => output.family = true,
                "id" => output.id = true,
                "timestamp" => output.timestamp = true,
                other => return Err(OutputError::Unknown(other.to_owned())),
            }
        }
        if output.layout != Layout::Text && (output.family || output.id || output.timestamp) {
            return Err(OutputError::JsonWithColumns);
        }
        if output.form == Some(Form::Classic) && output.family {
            return Err(OutputError::ClassicExtended);
        }
        Ok(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_chooses_the_form_unless_a_word_does() {
        let form = |words: &str, classic| words.parse::<Output>().unwrap().style(classic).form;
        assert_eq!(Output::default().style(true).form, Form::Classic);
        assert_eq!(Output::default().style(false).form, Form::Conntrack);
        assert_eq!(form("id", true), Form::Classic);
        assert_eq!(form("extended", true), Form::Conntrack);
        assert_eq!(form("classic", false), Form::Classic);
        assert_eq!(form("conntrack,id", true), Form::Conntrack);
        assert_eq!(form("proc", true), Form::Proc);
        assert!(!"classic".parse::<Output>().unwrap().style(false).listen);
    }

    #[test]
    fn words_that_contradict_each_other_are_refused() {
        for words in [
            "",
            "csv",
            "classic,proc",
            "json,jsonl",
            "json,id",
            "jsonl,timestamp",
            "classic,extended",
            "id,,id",
        ] {
            assert!(words.parse::<Output>().is_err(), "{words}");
        }
    }
}

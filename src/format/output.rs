//! What `-o` takes: the form of the lines and the columns besides, or another layout.

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
    /// The flow's start is shown.
    pub since: bool,
    pub layout: Layout,
    /// `conntrack`'s own words, whatever the profile.
    letters: bool,
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
    /// Columns under a head, for people.
    Table,
    /// `conntrack`'s XML.
    Xml,
    /// Words for `conntrack -R`.
    Save,
}

/// Why an output was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    #[error(
        "`{0}` is no output: use classic, conntrack or proc for the form, extended, id, timestamp or ktimestamp for columns, \
         or table, xml, save, json or jsonl"
    )]
    Unknown(String),
    #[error("`{0}` is no output of conntrack: use extended, id, timestamp, ktimestamp, labels, save or xml")]
    UnknownLetter(String),
    #[error("`{0}` and `{1}` cannot both be the form: give one of them")]
    TwoForms(&'static str, &'static str),
    #[error("JSON and tables always have every field: leave out the other words")]
    Whole,
    #[error("cannot combine save output with any other output type, use -o save only")]
    SaveAlone,
    #[error("a classic line has no family column: give -o conntrack,extended, or leave extended out")]
    ClassicExtended,
}

impl Output {
    /// What the letters print without `-o`.
    pub fn letters() -> Self {
        Self { form: Some(Form::Conntrack), letters: true, ..Self::default() }
    }

    /// What `-o` behind a letter asks for: `conntrack`'s own words and no others.
    pub fn parse_letters(text: &str) -> Result<Self, OutputError> {
        let mut kept = Vec::new();
        for word in text.split(',') {
            match word.to_ascii_lowercase().as_str() {
                // A flow has no labels here, and conntrack prints nothing for one that has none.
                "labels" => {}
                "extended" | "id" | "timestamp" | "ktimestamp" | "save" | "xml" => {
                    kept.push(word.to_ascii_lowercase());
                }
                _ => return Err(OutputError::UnknownLetter(word.to_owned())),
            }
        }
        if kept.is_empty() {
            return Ok(Self::letters());
        }
        let parsed: Self = kept.join(",").parse()?;
        Ok(Self { form: Some(Form::Conntrack), letters: true, ..parsed })
    }

    /// The lines' style. Without a word for the form it is `conntrack`'s own if a column of `conntrack`'s was asked
    /// for, and else the profile's: classic in `classic`, `conntrack`'s in `linux`.
    pub fn style(&self, classic_profile: bool) -> Style {
        let otherwise =
            if classic_profile && !self.family && !self.since { Form::Classic } else { Form::Conntrack };
        Style {
            family: self.family,
            id: self.id,
            listen: classic_profile && !self.letters,
            ..Style::new(self.form.unwrap_or(otherwise))
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
                // What it is without a word.
                "text" => take("text")?,
                "json" => {
                    take("json")?;
                    output.layout = Layout::Json;
                }
                "jsonl" => {
                    take("jsonl")?;
                    output.layout = Layout::JsonLines;
                }
                "table" => {
                    take("table")?;
                    output.layout = Layout::Table;
                }
                "xml" => {
                    take("xml")?;
                    output.layout = Layout::Xml;
                }
                "save" => {
                    take("save")?;
                    output.layout = Layout::Save;
                }
                "extended" => output.family = true,
                "id" => output.id = true,
                "timestamp" => output.timestamp = true,
                "ktimestamp" => output.since = true,
                other => return Err(OutputError::Unknown(other.to_owned())),
            }
        }
        let columns = output.family || output.id || output.timestamp || output.since;
        match output.layout {
            Layout::Json | Layout::JsonLines | Layout::Table if columns => Err(OutputError::Whole),
            Layout::Save if columns => Err(OutputError::SaveAlone),
            _ if output.form == Some(Form::Classic) && (output.family || output.since) => {
                Err(OutputError::ClassicExtended)
            }
            _ => Ok(output),
        }
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
        assert_eq!(form("ktimestamp", true), Form::Conntrack);
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
            "table,extended",
            "table,xml",
            "save,extended",
            "id,save",
            "classic,extended",
            "classic,ktimestamp",
            "id,,id",
        ] {
            assert!(words.parse::<Output>().is_err(), "{words}");
        }
    }

    #[test]
    fn letters_speak_conntracks_words_in_either_profile() {
        for words in ["extended,id", "labels", "XML,timestamp", "ktimestamp", "save"] {
            let style = Output::parse_letters(words).unwrap().style(true);
            assert_eq!((style.form, style.listen), (Form::Conntrack, false), "{words}");
        }
        assert!(Output::parse_letters("extended").unwrap().style(true).family);
        for words in ["", "json", "classic", "table", "save,id", "extended,json"] {
            assert!(Output::parse_letters(words).is_err(), "{words}");
        }
    }
}

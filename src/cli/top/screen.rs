//! What `top` knows and what keys do to it. Sees no terminal.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::control::schema::overview::Overview;

/// What is below the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Reasons,
    Workers,
    Ports,
    Talkers,
}

impl Tab {
    pub(super) const ALL: [Self; 5] =
        [Self::Overview, Self::Reasons, Self::Workers, Self::Ports, Self::Talkers];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Reasons => "Reasons",
            Self::Workers => "Workers",
            Self::Ports => "Ports",
            Self::Talkers => "Talkers",
        }
    }

    /// By what its rows can be sorted; the first is what they are sorted by at the start.
    pub(super) const fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Overview => &["flows", "name"],
            Self::Reasons => &["rate", "total", "name"],
            Self::Workers => &["number", "busy", "flows", "rx"],
            Self::Ports => &["number", "rx", "tx", "name"],
            Self::Talkers => &["flows", "address"],
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Quit,
}

/// See the file's head.
pub(super) struct Screen {
    pub(super) socket: String,
    pub(super) latest: Option<Overview>,
    /// Why there is no news, and since when.
    pub(super) gone: Option<(String, Instant)>,
    pub(super) paused: bool,
    pub(super) tab: Tab,
    /// By [`Tab`]: the number of its order.
    orders: [usize; Tab::ALL.len()],
    /// Rows that are above the screen's part of a long table.
    pub(super) above: usize,
}

impl Screen {
    pub(super) fn new(socket: String) -> Self {
        Self {
            socket,
            latest: None,
            gone: None,
            paused: false,
            tab: Tab::Overview,
            orders: [0; Tab::ALL.len()],
            above: 0,
        }
    }

    /// By what the present rows are sorted.
    pub(super) fn order(&self) -> &'static str {
        let orders = self.tab.orders();
        orders[self.orders[self.tab as usize] % orders.len()]
    }

    /// Takes what the appliance says, or why it says nothing.
    pub(super) fn hear(&mut self, answer: Result<Overview, String>) {
        match answer {
            Ok(overview) => {
                self.gone = None;
                if !self.paused {
                    self.latest = Some(overview);
                }
            }
            Err(why) => {
                let since = self.gone.take().map_or_else(Instant::now, |(_, since)| since);
                self.gone = Some((why, since));
            }
        }
    }

    /// How long there has been no answer.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        self.gone.as_ref().map(|(_, since)| since.elapsed())
    }

    /// Does what a key asks for.
    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Go;
        }
        let step = |by: usize| Tab::ALL[(self.tab as usize + by) % Tab::ALL.len()];
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Next::Quit,
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('s') => self.orders[self.tab as usize] += 1,
            KeyCode::Tab | KeyCode::Right => (self.tab, self.above) = (step(1), 0),
            KeyCode::BackTab | KeyCode::Left => (self.tab, self.above) = (step(Tab::ALL.len() - 1), 0),
            KeyCode::Char(digit @ '1'..='5') => {
                (self.tab, self.above) = (Tab::ALL[digit as usize - '1' as usize], 0);
            }
            KeyCode::Down | KeyCode::Char('j') => self.above = self.above.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.above = self.above.saturating_sub(1),
            _ => {}
        }
        Next::Go
    }
}

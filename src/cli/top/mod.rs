//! `top`: how the appliance does, once a second, on one screen. Owns the terminal while it runs, and gives it back as it
//! was however that ends; what is on the screen is [`view`]'s.

mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event};

use super::client::Client;
use super::{Ask, Done, Failure};
use crate::control::schema::overview::Overview;
use screen::{Next, Screen, Tab};

/// How often the appliance is asked: it looks at itself as often.
const PERIOD: Duration = Duration::from_secs(1);

/// The longest that a key or a change of the window's size waits.
const KEY_PERIOD: Duration = Duration::from_millis(50);

/// The width of what is printed where there is no terminal: the longest name of a port fits.
const ONCE_WIDTH: u16 = 96;

/// Which appliance to watch.
#[derive(Debug, Args)]
pub(super) struct TopWords {
    #[command(flatten)]
    ask: Ask,
    /// Print all of it once as text, and end: for scripts, and where there is no terminal
    #[arg(long)]
    once: bool,
}

/// What the screen hears.
enum Message {
    Overview(Box<Result<Overview, String>>),
    /// A signal asks for the end.
    Quit,
}

impl TopWords {
    pub(super) fn run(self) -> Done {
        // Before the terminal is touched: nobody there is an error like any other command's.
        let client = Client::new(&self.ask.socket)?;
        let first: Overview = client.get("/v1/overview")?;
        let mut screen = Screen::new(self.ask.socket.display().to_string());
        if self.once {
            // The table is looked through for whoever asks, and that takes it a moment.
            std::thread::sleep(PERIOD);
            screen.hear(Ok(client.get("/v1/overview")?));
            return Ok(io::stdout().write_all(text(&mut screen)?.as_bytes())?);
        }
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(Failure::Usage("top needs a terminal: print it with --once".to_owned()));
        }
        screen.hear(Ok(first));
        let (sender, receiver) = channel();
        watch_signals(sender.clone())?;
        std::thread::spawn(move || ask(&client, &sender));
        // From here on a panic gives the terminal back as well.
        let mut terminal = ratatui::try_init()?;
        let shown = show(&mut terminal, &mut screen, &receiver);
        ratatui::restore();
        shown
    }
}

/// Every part below each other, without what a terminal adds.
fn text(screen: &mut Screen) -> Result<String, Failure> {
    let mut text = String::new();
    for tab in Tab::ALL {
        screen.tab = tab;
        let with_head = tab == Tab::Overview;
        let height = view::part_height(screen, with_head);
        let mut terminal = Terminal::new(TestBackend::new(ONCE_WIDTH, height))
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let drawn = terminal
            .draw(|frame| view::draw_part(frame, screen, with_head))
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let cells = drawn.buffer.content().chunks(usize::from(ONCE_WIDTH));
        for row in cells {
            let line: String = row.iter().map(|cell| cell.symbol()).collect();
            text += line.trim_end();
            text.push('\n');
        }
    }
    Ok(text)
}

/// Asks once a second for as long as anybody listens.
fn ask(client: &Client, to: &Sender<Message>) {
    loop {
        std::thread::sleep(PERIOD);
        let answer = client.get("/v1/overview").map_err(|error: Failure| error.to_string());
        if to.send(Message::Overview(Box::new(answer))).is_err() {
            return;
        }
    }
}

/// A signal's default would leave the terminal as it is.
fn watch_signals(to: Sender<Message>) -> Done {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: io::Error| Failure::Failed(format!("signals cannot be received: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        // The screen may have ended by itself.
        let _ = to.send(Message::Quit);
    });
    Ok(())
}

/// Draws, and hears keys and the appliance, until one of them says that it is over.
fn show(terminal: &mut ratatui::DefaultTerminal, screen: &mut Screen, heard: &Receiver<Message>) -> Done {
    loop {
        terminal.draw(|frame| view::draw(frame, screen))?;
        let mut changed = false;
        while !changed {
            if event::poll(KEY_PERIOD)? {
                match event::read()? {
                    Event::Key(key) if screen.key(key) == Next::Quit => return Ok(()),
                    _ => changed = true,
                }
            }
            match heard.recv_timeout(Duration::ZERO) {
                Ok(Message::Quit) => return Ok(()),
                Ok(Message::Overview(answer)) => {
                    screen.hear(*answer);
                    changed = true;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}

//! `aquatic ctl watch`: the terminal. Shows what `view` makes of the tracker's replies, and is left as it was
//! found however this ends.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aquatic_cli_helpers::{ExitStatus, complain};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::client::{Client, ClientError};
use super::view::{Look, View};
use crate::control::Request;

/// Time between two replies.
const INTERVAL: Duration = Duration::from_secs(1);

/// Switches to the other screen without a cursor, and back.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// What is shown in a window of unknown size.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// Watches a tracker until the user or a signal ends it.
pub(super) fn watch(path: &Path) -> ExitStatus {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        complain(
            &"standard input or output is no terminal; use \"aquatic ctl status\", with --json for programs",
        );
        return ExitStatus::Failure;
    }
    let ended = Client::connect(path).map_err(Ended::Tracker).and_then(|mut client| {
        let screen = Screen::enter().map_err(Ended::Terminal)?;
        screen.run(&mut client)
    });
    match ended {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            complain(&error);
            ExitStatus::Failure
        }
    }
}

/// Why watching has ended, if nobody wanted that.
#[derive(Debug)]
enum Ended {
    Tracker(ClientError),
    Terminal(io::Error),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracker(error) => error.fmt(f),
            Self::Terminal(error) => write!(f, "the terminal cannot be used: {error}"),
        }
    }
}

/// A terminal without line editing, on its other screen. Restored when dropped, and on a panic.
struct Screen {
    before: Termios,
    stop: Arc<AtomicBool>,
    /// The lines that the terminal shows.
    shown: Vec<String>,
    size: (usize, usize),
}

fn restore(before: &Termios) {
    let mut out = io::stdout();
    // Nothing is left to do if the terminal has gone.
    let _ = out.write_all(LEAVE).and_then(|()| out.flush());
    let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

impl Screen {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let (hook, saved) = (std::panic::take_hook(), before.clone());
        std::panic::set_hook(Box::new(move |panic| {
            restore(&saved);
            hook(panic);
        }));
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let screen = Self { before, stop, shown: Vec::new(), size: (0, 0) };
        let mut out = io::stdout();
        out.write_all(ENTER)?;
        out.flush()?;
        Ok(screen)
    }

    #[allow(clippy::disallowed_methods, reason = "a program for people, beside the tracker")]
    fn run(mut self, client: &mut Client) -> Result<(), Ended> {
        let mut view = View::default();
        let mut next = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= next {
                next = now + INTERVAL;
                let reply = client.ask(&Request::Status {}).map_err(Ended::Tracker)?;
                view.update(reply, self.look());
            }
            self.show(&view).map_err(Ended::Terminal)?;
            if self.is_asked_to_quit(next.saturating_duration_since(Instant::now())) {
                break;
            }
        }
        Ok(())
    }

    fn look(&self) -> Look {
        let (width, height) = match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            Ok(_) | Err(_) => USUAL_SIZE,
        };
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let unicode = locale.to_ascii_uppercase().replace('-', "").contains("UTF8");
        let colors = set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb");
        Look { width, height, colors, unicode }
    }

    /// Writes the lines that differ from those the terminal shows.
    fn show(&mut self, view: &View) -> io::Result<()> {
        let look = self.look();
        let lines = view.lines(look);
        let mut out = Vec::new();
        if self.size != (look.width, look.height) {
            self.size = (look.width, look.height);
            self.shown.clear();
            out.extend_from_slice(b"\x1b[2J");
        }
        for (row, line) in lines.iter().enumerate() {
            if self.shown.get(row) != Some(line) {
                write!(out, "\x1b[{};1H{line}\x1b[K", row + 1)?;
            }
        }
        if lines.len() < self.shown.len() {
            write!(out, "\x1b[{};1H\x1b[J", lines.len() + 1)?;
        }
        self.shown = lines;
        let mut terminal = io::stdout();
        terminal.write_all(&out)?;
        terminal.flush()
    }

    /// Waits for a key, or a change of the window, for a part of a second at most. Returns whether to quit.
    fn is_asked_to_quit(&self, left: Duration) -> bool {
        /// A new size of the window is noticed so soon.
        const POLL: Duration = Duration::from_millis(200);
        let wait = left.min(POLL);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        // A signal interrupts the wait.
        if poll(&mut fds, Some(&timeout)).unwrap_or(0) == 0 {
            return false;
        }
        let mut keys = [0; 64];
        let read = rustix::io::read(&stdin, &mut keys).unwrap_or(0);
        // q, Q, Ctrl-C, Ctrl-D, or the end of a terminal that has gone.
        read == 0 || keys.get(..read).unwrap_or_default().iter().any(|key| [b'q', b'Q', 3, 4].contains(key))
    }
}

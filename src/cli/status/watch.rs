//! `foldd status --watch`: the picture, painted anew every second, on a screen of its own.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::super::paint::{Line, Paint, Tone};
use super::super::{Failure, connect_to_look};
use super::table::{TREND, Trends, id};
use super::{lost, picture};
use crate::config::Loaded;
use crate::ledger::deeds;
use crate::ledger::status::{self, LagSource};
use crate::store::Link;

/// How often it looks.
const REFRESH: Duration = Duration::from_secs(1);
/// How many of the last deeds are shown.
const DEEDS: i64 = 3;

/// A terminal gets a screen of its own, which is gone afterwards; the last picture stays. Elsewhere pictures follow
/// each other.
struct Screen {
    paint: Paint,
    is_terminal: bool,
}

impl Screen {
    fn open(paint: Paint) -> Self {
        let screen = Self { paint, is_terminal: std::io::stdout().is_terminal() };
        if screen.is_terminal {
            screen.write("\x1b[?1049h\x1b[?25l");
        }
        screen
    }

    /// Paints over what is there, line by line, so that nothing flickers.
    fn show(&self, lines: &[Line]) {
        if !self.is_terminal {
            return self.write(&format!("{}\n\n", self.paint.text(lines)));
        }
        let (width, height) = size();
        let mut wrapped: Vec<Line> = lines.iter().flat_map(|line| line.wrapped(width)).collect();
        if wrapped.len() > height {
            let hidden = wrapped.len() - (height - 1);
            wrapped.truncate(height - 1);
            wrapped.push(Line::new(Tone::Soft, format!("… {hidden} lines more; a taller window shows them")));
        }
        let painted: Vec<_> = wrapped.iter().map(|line| self.paint.line(line)).collect();
        self.write(&format!("\x1b[H{}\x1b[K\x1b[J", painted.join("\x1b[K\r\n")));
    }

    fn close(self, last: &[Line]) {
        if self.is_terminal {
            self.write(&format!("\x1b[?25h\x1b[?1049l{}\n", self.paint.text(last)));
        }
    }

    fn write(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Whoever reads may go away; the next interrupt ends us.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Columns and lines of the terminal; what they usually are, where it does not say.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 1 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// Repaints until interrupted. A database that goes away is said and looked for again; meanwhile the last picture stays.
pub(super) async fn watch(loaded: &Loaded, paint: Paint) -> Result<(), Failure> {
    let unheard = |error| Failure::Failed(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
    let mut conn = None;
    let mut trends = Trends::default();
    let mut last = Vec::new();
    let screen = Screen::open(paint);
    loop {
        let looking = async {
            if conn.is_none() {
                conn = Some(connect_to_look(loaded).await?);
            }
            match &mut conn {
                Some(open) => look(open, &mut trends).await,
                None => Ok(Vec::new()),
            }
        };
        let looked = tokio::select! {
            looked = looking => looked,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        match looked {
            Ok(lines) => {
                screen.show(&lines);
                last = lines;
            }
            Err(failure) => {
                conn = None;
                let told = Line::new(Tone::Bad, format!("◆ no look at the database: {}", failure.report().1));
                let then =
                    Line::new(Tone::Soft, "it is tried again every second; below is the last that was seen");
                let lines: Vec<_> = [told, then].into_iter().chain(last.iter().cloned()).collect();
                screen.show(&lines);
            }
        }
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
    screen.close(&last);
    Ok(())
}

async fn look(conn: &mut Link<'_>, trends: &mut Trends) -> Result<Vec<Line>, Failure> {
    let status = status::read(conn, LagSource::Counted, None).await?;
    for projection in &status.projections {
        let lags = trends.entry(id(projection)).or_default();
        lags.push_back(projection.lag_events);
        if lags.len() > TREND {
            lags.pop_front();
        }
    }
    let lost = lost(conn, &status).await?;
    let mut lines = picture(&status, &lost, Some(trends));
    for deed in deeds::entries(conn, None, DEEDS).await? {
        let why = deed.why.map(|why| format!(": {why}")).unwrap_or_default();
        let at = deed.at.format("%H:%M:%S UTC");
        let text = format!("{at}  {} {} by {}{why}", deed.verb, deed.projection, deed.who);
        lines.push(Line::new(Tone::Soft, text));
    }
    lines.push(Line::new(Tone::Soft, "every second; Ctrl-C ends it"));
    Ok(lines)
}

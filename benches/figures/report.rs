//! What was measured, beside what it was measured against: as a table, as JSON, and as the rows of the
//! README.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::{Extent, Topic};

/// A figure: one sample a run, and what it is compared with.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    what: String,
    unit: &'static str,
    samples: Vec<f64>,
    comparisons: Vec<Comparison>,
}

/// A figure against a baseline, or against an aim of its own.
#[derive(Debug, Clone)]
struct Comparison {
    against: String,
    kind: Kind,
    samples: Vec<f64>,
    aim: Option<Aim>,
}

/// How a comparison reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// So many times the baseline.
    Times,
    /// A share of the baseline.
    Share,
    /// The figure itself.
    Itself,
}

/// What was to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Aim {
    /// This, or more.
    AtLeast(f64),
    /// Less than this.
    Below(f64),
}

impl Aim {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(aim) => value >= aim,
            Self::Below(aim) => value < aim,
        }
    }
}

impl Figure {
    /// A figure, one sample a run.
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        Self { what: what.into(), unit, samples, comparisons: Vec::new() }
    }

    /// How many times the samples of a baseline, run by run.
    pub(crate) fn times(self, against: &str, baseline: &[f64], aim: Option<Aim>) -> Self {
        self.compared(Kind::Times, against, baseline, aim)
    }

    /// Which share of the samples of a baseline, run by run.
    pub(crate) fn share(self, against: &str, baseline: &[f64], aim: Option<Aim>) -> Self {
        self.compared(Kind::Share, against, baseline, aim)
    }

    /// An aim for the figure itself.
    pub(crate) fn aim(mut self, aim: Aim) -> Self {
        let (against, samples) = (String::new(), self.samples.clone());
        self.comparisons.push(Comparison { against, kind: Kind::Itself, samples, aim: Some(aim) });
        self
    }

    fn compared(mut self, kind: Kind, against: &str, baseline: &[f64], aim: Option<Aim>) -> Self {
        let samples = self.samples.iter().zip(baseline).map(|(own, other)| own / other).collect();
        self.comparisons.push(Comparison { against: against.to_owned(), kind, samples, aim });
        self
    }

    fn text(&self) -> String {
        format!("{} {}", number(median(&self.samples)), self.unit).trim_end().to_owned()
    }

    fn spread(&self) -> String {
        let least = self.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.samples.iter().copied().fold(0.0, f64::max);
        format!("{} – {}", number(least), number(most))
    }
}

impl Comparison {
    fn text(&self, unit: &str) -> String {
        let value = median(&self.samples);
        match self.kind {
            Kind::Times => format!("{} × {}", number(value), self.against),
            Kind::Share => format!("{:.0} % of {}", value * 100.0, self.against),
            Kind::Itself => format!("{} {unit}", number(value)),
        }
    }

    fn aim(&self, unit: &str) -> String {
        let shown = |aim: f64| match self.kind {
            Kind::Times => format!("{aim} ×"),
            Kind::Share => format!("{:.0} %", aim * 100.0),
            Kind::Itself => format!("{aim} {unit}"),
        };
        match self.aim {
            Some(Aim::AtLeast(aim)) => format!("at least {}", shown(aim)),
            Some(Aim::Below(aim)) => format!("below {}", shown(aim)),
            None => String::new(),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.aim.map(|aim| aim.met(median(&self.samples))) {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        }
    }
}

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    extent: Extent,
    topics: Vec<(Topic, Vec<Figure>)>,
}

impl Report {
    /// A report without figures yet.
    pub(crate) fn new(extent: Extent) -> Self {
        Self { extent, topics: Vec::new() }
    }

    /// Adds what a topic has given.
    pub(crate) fn add(&mut self, topic: Topic, figures: Vec<Figure>) {
        self.topics.push((topic, figures));
    }

    /// The report, ready to print.
    pub(crate) fn print(&self, json: bool, markdown: bool) -> String {
        if json {
            format!("{:#}", self.json())
        } else if markdown {
            self.markdown()
        } else {
            self.table()
        }
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["TOPIC", "WHAT", "MEDIAN", "LEAST – MOST", "WHICH IS", "AIM", ""]);
        for (topic, figure) in self.figures() {
            let head = [topic.name(), figure.what.clone(), figure.text(), figure.spread()];
            let blank = [const { String::new() }; 4];
            if figure.comparisons.is_empty() {
                table.add_row(head.iter().chain([&String::new(), &String::new(), &String::new()]));
            }
            for (nth, comparison) in figure.comparisons.iter().enumerate() {
                let which = match comparison.kind {
                    Kind::Itself => String::new(),
                    Kind::Times | Kind::Share => comparison.text(figure.unit),
                };
                let tail = [which, comparison.aim(figure.unit), comparison.verdict().to_owned()];
                table.add_row(if nth == 0 { &head } else { &blank }.iter().chain(&tail));
            }
        }
        for column in 2..=3 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    fn markdown(&self) -> String {
        let mut lines = vec!["| what | | compared | aim |".to_owned(), "|---|---|---|---|".to_owned()];
        let mut last = None;
        for (topic, figure) in self.figures() {
            if last != Some(topic) {
                lines.push(format!("| **`cargo bench -- {}`** | | | |", topic.name()));
                last = Some(topic);
            }
            let each = |text: &dyn Fn(&Comparison) -> String| {
                figure.comparisons.iter().map(text).collect::<Vec<_>>().join("<br>")
            };
            let compared = each(&|comparison| match comparison.kind {
                Kind::Itself => String::new(),
                Kind::Times | Kind::Share => comparison.text(figure.unit),
            });
            let aims = each(&|comparison| match comparison.aim {
                Some(_) => format!("{}: {}", comparison.aim(figure.unit), comparison.verdict()),
                None => String::new(),
            });
            lines.push(format!("| {} | {} | {compared} | {aims} |", figure.what, figure.text()));
        }
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let figures: Vec<Value> = self
            .figures()
            .map(|(topic, figure)| {
                let comparisons: Vec<Value> = figure
                    .comparisons
                    .iter()
                    .map(|comparison| {
                        json!({
                            "is": comparison.text(figure.unit),
                            "median": median(&comparison.samples),
                            "samples": comparison.samples,
                            "aim": comparison.aim(figure.unit),
                            "met": comparison.aim.map(|aim| aim.met(median(&comparison.samples))),
                        })
                    })
                    .collect();
                json!({
                    "topic": topic.name(),
                    "what": figure.what,
                    "unit": figure.unit,
                    "median": median(&figure.samples),
                    "samples": figure.samples,
                    "comparisons": comparisons,
                })
            })
            .collect();
        json!({ "scale": self.extent.scale, "runs": self.extent.runs, "figures": figures })
    }

    fn figures(&self) -> impl Iterator<Item = (Topic, &Figure)> {
        self.topics.iter().flat_map(|(topic, figures)| figures.iter().map(|figure| (*topic, figure)))
    }
}

/// The middle one of the samples, or between the two that are.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length.is_multiple_of(2) => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    }
}

/// The sample below which this share of them lies; 0 of none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the samples")]
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// Three digits where they say something, thousands apart.
#[expect(clippy::cast_possible_truncation, reason = "numbers to print are far below 2^53")]
fn number(value: f64) -> String {
    if value < 100.0 && value.fract() == 0.0 {
        return format!("{value:.0}");
    }
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    // What is measured has no more than three digits.
    let digits = 10_f64.powi(value.log10().floor() as i32 - 2).max(1.0);
    grouped(((value / digits).round() * digits) as i64)
}

/// `500,000`: digits in groups, for people.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

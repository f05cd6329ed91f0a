//! Measures foldd beside its baselines: what most frameworks do, and what PostgreSQL could do at best.
//!
//! ```console
//! $ cargo bench                                  # everything
//! $ cargo bench -- catch-up --scale 0.1          # one topic, a tenth of the events
//! $ cargo bench -- --markdown                    # the rows of the README
//! ```
//!
//! Everything runs on a PostgreSQL of its own, as `foldd run --embedded` starts it, with fsync on. A run
//! measures a figure and its baselines one after the other, and the next run does so again: a machine that
//! slows down meanwhile slows down all of them. What is printed are medians, of figures and of the ratios
//! within a run.
//!
//! Without `--bench`, which cargo adds to `cargo bench`, one tiny run of everything only shows that it still
//! works.

mod account;
mod append;
mod at_rest;
mod beside_builds;
mod catch_up;
mod hostage;
mod lab;
mod latency;
mod page_cost;
mod pages;
mod process;
mod quarantine;
mod rebuild;
mod replicas;
mod report;
mod watch;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use report::{Figure, Report};

/// Measures foldd beside its baselines.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo bench --")]
struct Args {
    /// What to measure; everything unless named
    #[arg(value_enum)]
    topics: Vec<Topic>,
    /// How many events, as a share of the full size
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// How many runs the medians are taken of
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Also measure a log of ten million events
    #[arg(long)]
    huge: bool,
    /// Print everything measured as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the rows of the table in the README
    #[arg(long)]
    markdown: bool,
    /// What cargo says to benches
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Topic {
    /// A read model of balances, folded from the start of the log
    CatchUp,
    /// Reading the log page by page
    Pages,
    /// Appending, and what order costs
    Append,
    /// From an append to its effect
    Latency,
    /// The same beside transactions that have nothing to do with it
    Hostage,
    /// What a daemon costs while nothing happens
    AtRest,
    /// A thousand projections on three replicas
    Replicas,
    /// A page in a short log and in a long one
    PageCost,
    /// Beside streams that are quarantined
    Quarantine,
    /// A read model built from the whole log
    Rebuild,
    /// What builds cost projections that are live
    BesideBuilds,
}

impl Topic {
    /// As it is typed.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// How much to measure.
#[derive(Debug, Clone, Copy)]
struct Extent {
    scale: f64,
    runs: u32,
    huge: bool,
    /// Only to see that it works.
    smoke: bool,
}

impl Extent {
    /// So many of this many.
    #[expect(clippy::cast_possible_truncation, reason = "what is counted here is far below 2^53")]
    fn share(self, full: i64) -> i64 {
        (full as f64 * self.scale) as i64
    }

    /// So many events, at least a page.
    fn events(self, full: i64) -> i64 {
        self.share(full).max(1_000)
    }

    /// How long something that is measured by time goes on: a smoke run does not wait.
    fn time(self, full: std::time::Duration) -> std::time::Duration {
        if self.smoke { full / 20 } else { full.mul_f64(self.scale.clamp(0.2, 1.0)) }
    }
}

fn main() -> ExitCode {
    let smoke = !std::env::args().any(|argument| argument == "--bench" || argument == "--help");
    let args =
        if smoke { Args::parse_from(["bench", "--scale", "0.002", "--runs", "1"]) } else { Args::parse() };
    match measure(&args, smoke) {
        Ok(report) => {
            println!("{}", report.print(args.json, args.markdown));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cargo bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn measure(args: &Args, smoke: bool) -> anyhow::Result<Report> {
    watch::begin();
    let extent = Extent { scale: args.scale, runs: args.runs, huge: args.huge, smoke };
    let topics = if args.topics.is_empty() { Topic::value_variants() } else { &args.topics };
    let mut report = Report::new(extent);
    for topic in topics {
        tracing::info!("{}", topic.name());
        let figures: Vec<Figure> = match topic {
            Topic::CatchUp => catch_up::measure(extent).await?,
            Topic::Pages => pages::measure(extent).await?,
            Topic::Append => append::measure(extent).await?,
            Topic::Latency => latency::measure(extent).await?,
            Topic::Hostage => hostage::measure(extent).await?,
            Topic::AtRest => at_rest::measure(extent).await?,
            Topic::Replicas => replicas::measure(extent).await?,
            Topic::PageCost => page_cost::measure(extent).await?,
            Topic::Quarantine => quarantine::measure(extent).await?,
            Topic::Rebuild => rebuild::measure(extent).await?,
            Topic::BesideBuilds => beside_builds::measure(extent).await?,
        };
        report.add(*topic, figures);
    }
    Ok(report)
}

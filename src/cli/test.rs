//! `foldd test`: the `@test`s of projection files.

use secrecy::SecretString;
use serde::Serialize;

use super::args::Test;
use super::{Failure, aside, catalog, connect, print, print_json};
use crate::config::{Loaded, connect_options};
use crate::embedded::{Options, Server};
use crate::engine::scratch::cases::{Broken, Pages, run as run_case};
use crate::error::chain;
use crate::projection::Projection;
use crate::projection::handler::Registry;
use crate::store::{Link, Source, migrate};

/// `test --json`
#[derive(Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    tests: Vec<Tested>,
}

/// One test and what came of it.
#[derive(Serialize)]
struct Tested {
    projection: String,
    version: i32,
    test: String,
    file: String,
    line: u32,
    passed: bool,
    failures: Vec<Broken>,
}

/// Carries the verb out.
pub(crate) async fn run(args: &Test, loaded: &Loaded, registry: &Registry) -> Result<(), Failure> {
    let projections = chosen(args, catalog::projections(loaded, registry)?)?;
    if projections.iter().all(|projection| projection.tests.is_empty()) {
        let text =
            "no tests; write `-- @test NAME` into a projection file, with @given lines, a query and @expect";
        return if args.json { print_json(&Report::of(Vec::new())) } else { print(text) };
    }
    if loaded.has_database() {
        let mut conn = connect(loaded).await?;
        return report(args, run_all(&mut conn, &projections).await?);
    }
    eprintln!("foldd: no database is named: the tests run in a private PostgreSQL");
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let server = Server::start(Options::default()).await.map_err(|error| Failure::Failed(chain(&error)))?;
    server.create_database("test").await.map_err(|error| failed(&error))?;
    let options = connect_options(&SecretString::from(server.url("test")))?;
    migrate(&Source::Address(Box::new(options.clone()))).await?;
    let mut conn = Link::shared(&options).await?;
    let tested = run_all(&mut conn, &projections).await;
    conn.close().await;
    server.stop().await.map_err(|error| failed(&error))?;
    report(args, tested?)
}

/// The projections of these names, all when there are none.
fn chosen(args: &Test, projections: Vec<Projection>) -> Result<Vec<Projection>, Failure> {
    let known = |name: &String| projections.iter().any(|projection| projection.name == *name);
    if let Some(unknown) = args.names.iter().find(|name| !known(name)) {
        let there: Vec<&str> = projections.iter().map(|projection| projection.name.as_str()).collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        return Err(Failure::Usage(format!("there is no projection {unknown}; there are: {there}")));
    }
    let is_chosen = |projection: &Projection| args.names.is_empty() || args.names.contains(&projection.name);
    Ok(projections.into_iter().filter(is_chosen).collect())
}

async fn run_all(conn: &mut Link<'_>, projections: &[Projection]) -> Result<Vec<Tested>, Failure> {
    let mut tested = Vec::new();
    for projection in projections {
        for case in &projection.tests {
            let failures = run_case(conn, projection, case)
                .await
                .map_err(|error| aside::failure(&error, &projection.name))?;
            tested.push(Tested {
                projection: projection.name.clone(),
                version: projection.version,
                test: case.name.clone(),
                file: projection.definition.path.clone(),
                line: case.line,
                passed: failures.is_empty(),
                failures,
            });
        }
    }
    Ok(tested)
}

fn report(args: &Test, tested: Vec<Tested>) -> Result<(), Failure> {
    let report = Report::of(tested);
    if args.json {
        print_json(&report)?;
    } else {
        for test in &report.tests {
            print(&test.text())?;
        }
        if report.failed == 0 {
            print(&format!("{} passed", count(report.passed)))?;
        }
    }
    if report.failed == 0 {
        return Ok(());
    }
    Err(Failure::NotMet(format!("{} of {} failed", report.failed, count(report.passed + report.failed))))
}

impl Report {
    fn of(tests: Vec<Tested>) -> Self {
        let passed = tests.iter().filter(|test| test.passed).count();
        Self { passed, failed: tests.len() - passed, tests }
    }
}

impl Tested {
    fn text(&self) -> String {
        let mut text =
            format!("{} {}: {}", if self.passed { "ok    " } else { "FAILED" }, self.projection, self.test);
        for failure in &self.failures {
            text.push_str(&format!("\n{}:{}: {}", self.file, failure.line, failure.message));
            if failure.pages == Pages::Single {
                text.push_str("\n  with one event a page; in one page the events give what is expected");
            }
            if let Some(remedy) = &failure.remedy {
                text.push_str(&format!("; {remedy}"));
            }
            if let Some(rows) = &failure.rows {
                text.push_str(&format!("\n  - expected, + given by the query{}\n", rows.told_columns()));
                text.push_str(rows.diff().trim_end());
            }
        }
        text
    }
}

fn count(tests: usize) -> String {
    if tests == 1 { "1 test".to_owned() } else { format!("{tests} tests") }
}

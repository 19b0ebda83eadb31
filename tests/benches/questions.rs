//! How long the task that opens pinholes is held by each question: `cargo xtask bench questions` (needs root).
//!
//! With many calls, everything hit by strangers, and full ledgers: the worst that an operator can ask for. A plain loop with medians, as
//! the engine's bench. What runs beside that task (JSON, redaction, the end of the report) is nobody's concern but the asker's.

use std::time::Instant;

use anyhow::Result;
use sipfilter_daemon::shell::api::{Question, pages};
use sipfilter_tests::many::Many;
use tokio::sync::oneshot;

const CALLS: u32 = 20_000;
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let json = std::env::args().any(|argument| argument == "--json");
    let mut many = Many::new()?;
    many.call(CALLS);
    many.hit(4_096)?;
    many.knock(4_096)?;
    many.drop_everywhere()?;
    let calls = pages::Page {
        after: None,
        limit: pages::CALLS,
    };
    let pinholes = pages::Page {
        after: None,
        limit: pages::PINHOLES,
    };
    let drops = many.drops.clone();
    let mut table = Vec::new();
    let mut row = |what: &str, mut holds: Vec<f64>| {
        holds.sort_by(f64::total_cmp);
        let (count, last) = (holds.len() / ROUNDS, holds.len() - 1);
        table.push((what.to_owned(), count, holds[last / 2], holds[last]));
    };
    row("status", held(&mut many, Question::Status)?);
    row("metrics", held(&mut many, Question::Metrics)?);
    row("report", held(&mut many, Question::Report)?);
    row(
        "calls_page",
        held(&mut many, |asker| Question::Calls(calls, asker))?,
    );
    row(
        "pinholes_page",
        held(&mut many, |asker| Question::Pinholes(pinholes, asker))?,
    );
    row(
        "call",
        held(&mut many, |asker| Question::Call("12000".to_owned(), asker))?,
    );
    row("closed", held(&mut many, Question::Closed)?);
    row("losses", {
        let mut holds = Vec::new();
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            many.core.check_losses();
            holds.push(millis(begin));
            work(&mut many, &mut holds);
        }
        holds
    });
    // These hold it only where it opens a pinhole at that moment: they share a lock.
    row("drops_lock", beside(|| drop(drops.drops(100))));
    row(
        "strangers_lock",
        beside(|| drop(drops.lock().strangers(100))),
    );
    if json {
        let fields = table.iter().map(|(what, slices, median, max)| {
            format!(
                "\"{what}\":{{\"holds\":{slices},\"median_ms\":{median:.3},\"max_ms\":{max:.3}}}"
            )
        });
        println!("{{{}}}", fields.collect::<Vec<_>>().join(","));
        return Ok(());
    }
    println!("{CALLS} calls       holds    median       max");
    for (what, slices, median, max) in table {
        println!("{what:<16} {slices:>6}  {median:>6.2} ms  {max:>6.2} ms");
    }
    Ok(())
}

/// How long it is held each time, from the question to the answer.
fn held<T>(
    many: &mut Many,
    mut question: impl FnMut(oneshot::Sender<T>) -> Question,
) -> Result<Vec<f64>> {
    let mut holds = Vec::new();
    for _ in 0..ROUNDS {
        many.work();
        let (asker, mut answer) = oneshot::channel();
        let begin = Instant::now();
        many.core.answer(question(asker));
        holds.push(millis(begin));
        work(many, &mut holds);
        answer.try_recv()?;
    }
    Ok(holds)
}

fn work(many: &mut Many, holds: &mut Vec<f64>) {
    while many.core.has_work() {
        let begin = Instant::now();
        many.core.work();
        holds.push(millis(begin));
    }
}

fn beside(mut run: impl FnMut()) -> Vec<f64> {
    let measure = |_| {
        let begin = Instant::now();
        run();
        millis(begin)
    };
    (0..ROUNDS).map(measure).collect()
}

fn millis(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

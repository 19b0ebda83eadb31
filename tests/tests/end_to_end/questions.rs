//! What is asked of a daemon with many calls: answered in slices, between which everything else goes on.

use anyhow::{Result, ensure};
use sipfilter_daemon::shell::api::{QUEUE, Question, pages::Page};
use sipfilter_tests::many::Many;
use tokio::sync::oneshot;

use crate::Test;

/// Enough for several slices of everything.
const CALLS: u32 = 1_203;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new(
            "questions::about_all_calls_are_answered_in_slices_and_count_each_once",
            counted,
        ),
        Test::new(
            "questions::a_report_of_many_calls_tells_the_worst_and_counts_the_rest",
            reported,
        ),
        Test::new(
            "questions::are_bounded_in_number_and_end_with_whoever_asked",
            bounded,
        ),
    ]
}

fn counted() -> Result<()> {
    let mut many = Many::new()?;
    many.call(CALLS);
    let status = many.ask(Question::Status)?;
    ensure!(
        status.calls == CALLS as usize && status.pinholes == 2 * CALLS as usize,
        "{} calls, {} pinholes",
        status.calls,
        status.pinholes
    );
    let (asker, mut answer) = oneshot::channel();
    many.core.answer(Question::Metrics(asker));
    let mut slices = 0;
    // What happens meanwhile is not held up by it: the first calls end, and others begin.
    while many.core.has_work() {
        many.core.work();
        slices += 1;
        if slices == 1 {
            ensure!(answer.try_recv().is_err(), "all of it at once");
            many.end(1);
            many.call(2);
            let (asker, mut status) = oneshot::channel();
            many.core.answer(Question::Status(asker));
            let calls = status.try_recv()?.calls;
            ensure!(calls == CALLS as usize + 1, "{calls} calls");
        }
    }
    ensure!(slices >= 5, "{slices} slices");
    let snapshot = answer.try_recv()?;
    let calls: u64 = snapshot.calls.values().sum();
    // The one that had been counted when it ended, and the two that came before the last slice.
    ensure!(calls == u64::from(CALLS) + 2, "{calls} calls");
    let pinholes: u64 = snapshot.pinholes.values().sum();
    ensure!(pinholes == 2 * u64::from(CALLS) + 2, "{pinholes} pinholes");
    let page = Page {
        after: None,
        limit: 10,
    };
    let rows = many.ask(|asker| Question::Calls(page, asker))?;
    ensure!(rows.rows.len() == 10 && rows.rows[0].number == 2);
    Ok(())
}

fn reported() -> Result<()> {
    let mut many = Many::new()?;
    many.call(CALLS);
    many.hit(CALLS - 3)?;
    many.knock(20)?;
    let gathered = many.ask(Question::Report)?;
    let report = gathered.report(&many.drops);
    ensure!(report.calls.len() == 1_000, "{} calls", report.calls.len());
    ensure!(
        report.more_calls == u64::from(CALLS) - 3 - 1_000,
        "{} more",
        report.more_calls
    );
    ensure!(report.calls.iter().all(|call| call.sources.len() == 8));
    // Nobody's media is lost, and the first ones are told.
    ensure!(report.calls.iter().map(|call| call.number).eq(1..=1_000));
    ensure!(report.safe_to_enforce, "{:?}", report.objections);

    many.drop_everywhere()?;
    let gathered = many.ask(Question::Report)?;
    let report = gathered.report(&many.drops);
    ensure!(report.calls.len() == 1_000 && report.more_calls == u64::from(CALLS) - 1_000);
    ensure!(!report.safe_to_enforce, "{:?}", report.objections);
    let lost = |call: &sipfilter_daemon::view::ReportedCall| {
        (!call.loses_media, call.only_others, call.number)
    };
    ensure!(report.calls.is_sorted_by_key(lost), "others first");
    ensure!(report.calls[0].loses_media && report.calls[0].pinholes.len() == 2);
    Ok(())
}

fn bounded() -> Result<()> {
    let mut many = Many::new()?;
    many.call(CALLS);
    let mut answers = Vec::new();
    while many.core.has_room() {
        let (asker, answer) = oneshot::channel();
        many.core.answer(Question::Metrics(asker));
        answers.push(answer);
    }
    ensure!(answers.len() == QUEUE, "{} questions", answers.len());
    let mut last = answers.pop().expect("one of many");
    // Nobody waits for any but the last.
    drop(answers);
    let slices = many.work();
    ensure!(slices < 2 * QUEUE, "{slices} slices");
    ensure!(last.try_recv().is_ok(), "no answer");
    Ok(())
}

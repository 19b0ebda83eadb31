//! Lists that can be long, a page at a time: each holds up the task that opens pinholes for one page, whoever asks for all of it.
//!
//! A page has the form of the whole list. Where there is more, a `Link` header with `rel="next"` names the resource that goes on behind
//! it (RFC 8288). Rows are in the order of a key that stays, so that whatever is there from the first page to the last is on one of them.

use std::fmt::Display;

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// Calls of a page, at most.
pub const CALLS: usize = 500;
/// Pinholes of a page, at most.
pub const PINHOLES: usize = 1_000;

/// `?after=KEY&limit=N`, both as one likes.
#[derive(Debug, Deserialize)]
pub struct Asked<K> {
    after: Option<K>,
    limit: Option<usize>,
}

/// Which rows of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<K> {
    /// Those behind this one; from the beginning without it.
    pub after: Option<K>,
    /// No more than so many.
    pub limit: usize,
}

/// A page of rows.
#[derive(Debug)]
pub struct Rows<T, K> {
    /// What is on it.
    pub rows: Vec<T>,
    /// Behind which the next one begins, if there is one.
    pub next: Option<K>,
}

impl<K> Asked<K> {
    /// What is asked for, of at most `most` rows.
    pub fn page(self, most: usize) -> Page<K> {
        Page {
            after: self.after,
            limit: self.limit.unwrap_or(most).clamp(1, most),
        }
    }
}

impl<T, K: Clone> Rows<T, K> {
    /// The first rows of what comes behind [`Page::after`], whose keys `key` tells.
    pub fn of<V>(
        page: &Page<K>,
        mut behind: impl Iterator<Item = V>,
        mut row: impl FnMut(V) -> (K, T),
    ) -> Self {
        let rows = behind.by_ref().take(page.limit).map(&mut row);
        let (keys, rows): (Vec<K>, Vec<T>) = rows.unzip();
        let next = behind.next().and_then(|_| keys.last().cloned());
        Self { rows, next }
    }
}

impl<T: Serialize, K: Display> Rows<T, K> {
    /// The answer to whoever asked for this page of `resource`.
    pub fn answer(self, resource: &str, limit: usize) -> Response {
        let next = self.next.and_then(|key| {
            let link = format!("<{resource}?after={key}&limit={limit}>; rel=\"next\"");
            HeaderValue::try_from(link).ok()
        });
        let mut answer = Json(self.rows).into_response();
        if let Some(next) = next {
            answer.headers_mut().insert(header::LINK, next);
        }
        answer
    }
}

/// The resource that a `Link` header of [`Rows::answer`] names.
pub fn next(link: &str) -> Option<&str> {
    let (resource, relation) = link.strip_prefix('<')?.split_once('>')?;
    (relation == "; rel=\"next\"").then_some(resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_every_row_once() {
        for (rows, limit) in [(0_u32, 3), (1, 3), (3, 3), (4, 3), (10, 3), (9, 1)] {
            let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
            loop {
                let page = Page { after, limit };
                let behind = (0..rows).filter(|row| after.is_none_or(|after| *row > after));
                let found = Rows::of(&page, behind, |row| (row, row));
                assert!(found.rows.len() <= limit);
                seen.extend(found.rows);
                pages += 1;
                after = found.next;
                if after.is_none() {
                    break;
                }
            }
            assert!(seen.iter().copied().eq(0..rows), "{seen:?}");
            assert_eq!(pages, (rows as usize).div_ceil(limit).max(1));
        }
    }

    #[test]
    fn whoever_reads_an_answer_finds_the_next_page() {
        #[track_caller]
        fn check(next_key: Option<&str>, expect: Option<&str>) {
            let rows = Rows {
                rows: vec![1],
                next: next_key,
            };
            let answer = rows.answer("/v1/pinholes", 7);
            let link = answer.headers().get(header::LINK);
            let link = link.map(|link| link.to_str().expect("text"));
            assert_eq!(link.and_then(next), expect);
        }
        check(None, None);
        check(Some("17"), Some("/v1/pinholes?after=17&limit=7"));
        let six = "[2001:db8::7]:4000";
        check(
            Some(six),
            Some("/v1/pinholes?after=[2001:db8::7]:4000&limit=7"),
        );
        assert_eq!(next("</v1/calls>; rel=\"prev\""), None);
        assert_eq!(next("nonsense"), None);
    }

    #[test]
    fn nobody_gets_more_than_a_page() {
        for (limit, expect) in [(None, 100), (Some(0), 1), (Some(7), 7), (Some(101), 100)] {
            let asked = Asked {
                after: Some(1),
                limit,
            };
            assert_eq!(asked.page(100).limit, expect);
        }
    }
}

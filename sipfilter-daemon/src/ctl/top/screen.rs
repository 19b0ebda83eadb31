//! What is drawn, and what keys do: one table at a time, sorted by one of its columns.
//!
//! Nothing is told by colour: what stands out is reversed, bold or marked by a character.

use std::cmp::Ordering;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout},
    style::Modifier,
    text::{Line, Text},
    widgets::{Row, Table},
};

use super::tables::{self, Tab};
use crate::{ctl::output::plain, view::Top};

/// The way out comes first, so that a narrow terminal still shows it.
const KEYS: &str = "q quit  1 2 3 Tab table  s sort by  r reverse  ↑↓ PgUp PgDn Home End scroll";
const PAGE: usize = 10;

/// What a key leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Leave,
}

/// How one table is sorted.
#[derive(Debug, Clone, Copy)]
struct Order {
    column: usize,
    is_reversed: bool,
}

/// What the reader has chosen.
#[derive(Debug)]
pub(super) struct Screen {
    tab: Tab,
    orders: [Order; 3],
    scroll: usize,
    /// The columns that there was room for, which are those to sort by.
    shown: Vec<usize>,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            tab: Tab::default(),
            orders: Tab::ALL.map(|tab| Order {
                column: tab.first_column(),
                is_reversed: false,
            }),
            scroll: 0,
            shown: Vec::new(),
        }
    }
}

impl Screen {
    /// Takes a key.
    pub(super) fn handle(&mut self, key: KeyEvent) -> Next {
        let at = self.tab.number();
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Next::Leave,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Next::Leave;
            }
            KeyCode::Char('1') => self.show(Tab::Calls),
            KeyCode::Char('2') => self.show(Tab::Pinholes),
            KeyCode::Char('3') => self.show(Tab::Reasons),
            KeyCode::Tab => self.show(Tab::ALL[(at + 1) % Tab::ALL.len()]),
            KeyCode::BackTab => self.show(Tab::ALL[(at + 2) % Tab::ALL.len()]),
            KeyCode::Char('s') => self.orders[at].column = self.next_column(),
            KeyCode::Char('r') => self.orders[at].is_reversed = !self.orders[at].is_reversed,
            KeyCode::Down => self.scroll = self.scroll.saturating_add(1),
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(PAGE),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            KeyCode::Home => self.scroll = 0,
            // Drawing brings the last row into sight.
            KeyCode::End => self.scroll = usize::MAX,
            _ => {}
        }
        Next::Stay
    }

    fn show(&mut self, tab: Tab) {
        self.tab = tab;
        self.scroll = 0;
    }

    fn order(&self) -> Order {
        self.orders[self.tab.number()]
    }

    /// The next one to the right of what is shown, and then the first.
    fn next_column(&self) -> usize {
        let now = self.order().column;
        let next = self.shown.iter().find(|&&column| column > now);
        next.or(self.shown.first()).copied().unwrap_or(now)
    }

    /// Draws it all. Where there are few lines, the table's come before the keys.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, top: &Top) {
        let area = frame.area();
        let line_if = |is_there: bool| Constraint::Length(is_there.into());
        let [head, error, tabs, body, keys] = Layout::vertical([
            line_if(true),
            line_if(!top.errors.is_empty()),
            line_if(area.height >= 5),
            Constraint::Min(0),
            line_if(area.height >= 7),
        ])
        .areas(area);
        frame.render_widget(Line::from(tables::summary(top)).style(Modifier::BOLD), head);
        if let Some(text) = top.errors.first() {
            frame.render_widget(Line::from(format!("! {}", plain(text))), error);
        }
        frame.render_widget(Line::from(self.tabs(top)), tabs);
        let table = self.table(top, body.width, body.height);
        frame.render_widget(table, body);
        frame.render_widget(Line::from(KEYS), keys);
    }

    fn table(&mut self, top: &Top, width: u16, height: u16) -> Table<'static> {
        let mut rows = self.tab.rows(top);
        let Order {
            column,
            is_reversed,
        } = self.order();
        rows.sort_by(|one, two| {
            let order = match (one.get(column), two.get(column)) {
                (Some(one), Some(two)) => one.compare(two),
                _ => Ordering::Equal,
            };
            if is_reversed { order.reverse() } else { order }
        });
        // One line is the head. The last row stays in sight.
        let lines = usize::from(height.saturating_sub(1)).max(1);
        self.scroll = self.scroll.min(rows.len().saturating_sub(lines));
        let shown = self.tab.fitting(&rows, width);
        self.shown = shown.iter().map(|&(at, _)| at).collect();
        let aligned = |at: usize, text: String| {
            let is_number = self
                .tab
                .columns()
                .get(at)
                .is_some_and(|known| known.is_number);
            Text::from(text).alignment(match is_number {
                true => Alignment::Right,
                false => Alignment::Left,
            })
        };
        let titles = self.tab.columns().iter().enumerate();
        let titles = titles
            .filter(|(at, _)| self.shown.contains(at))
            .map(|(at, known)| {
                let mark = match (at == column, is_reversed) {
                    (false, _) => "",
                    (true, false) => "▼",
                    (true, true) => "▲",
                };
                aligned(at, format!("{}{mark}", known.title))
            });
        let rows = rows
            .into_iter()
            .skip(self.scroll)
            .take(lines)
            .map(|fields| {
                let fields = fields.into_iter().enumerate();
                let fields = fields.filter(|(at, _)| self.shown.contains(at));
                Row::new(fields.map(|(at, field)| aligned(at, field.text)))
            });
        let widths = shown.iter().map(|&(_, width)| Constraint::Length(width));
        let head = Row::new(titles).style(Modifier::REVERSED);
        Table::new(rows, widths).header(head)
    }

    /// Which tables there are, the one that is shown in brackets.
    fn tabs(&self, top: &Top) -> String {
        let names = Tab::ALL.map(|tab| {
            let name = format!("{} {} ({})", tab.number() + 1, tab.name(), tab.rows_in(top));
            match tab == self.tab {
                true => format!("[{name}]"),
                false => format!(" {name} "),
            }
        });
        names.concat()
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend, style::Color};

    use super::*;
    use crate::view::{Call, Counter, TopCall, TopReason};

    fn call(number: u64, call_id: &str, rate: f64) -> TopCall {
        TopCall {
            call: Call {
                number,
                call_id: call_id.to_owned(),
                provider_call_id: None,
                provider: "lab".to_owned(),
                direction: "inbound".to_owned(),
                state: "confirmed".to_owned(),
                hold: false,
                age_seconds: 5.0,
                local_media: vec![],
                remote_media: vec![],
                pinholes: vec![],
                finding: (rate == 0.0).then(|| "silent_provider".to_owned()),
            },
            ingress_per_second: rate,
            egress_per_second: 50.0,
        }
    }

    fn top() -> Top {
        Top {
            calls: vec![call(2, "b@x", 50.0), call(10, "a\u{1b}@x", 0.0)],
            reasons: vec![TopReason {
                counter: Counter {
                    name: "unknown_source".to_owned(),
                    kind: "drop".to_owned(),
                    packets: 7,
                    bytes: 700,
                },
                packets_per_second: 3.0,
                bytes_per_second: 300.0,
            }],
            ..Top::default()
        }
    }

    /// The lines of the screen at a size.
    fn drawn(screen: &mut Screen, top: &Top, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal
            .draw(|frame| screen.draw(frame, top))
            .expect("it is drawn");
        let buffer = terminal.backend().buffer();
        (0..height)
            .map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect())
            .collect()
    }

    fn press(screen: &mut Screen, key: char) -> Next {
        screen.handle(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE))
    }

    #[test]
    fn calls_are_sorted_by_the_chosen_column_and_a_peers_text_moves_no_cursor() {
        let mut screen = Screen::default();
        let lines = drawn(&mut screen, &top(), (110, 10));
        assert!(
            lines[1].starts_with("[1 calls (2)] 2 pinholes"),
            "{lines:#?}"
        );
        assert!(lines[2].starts_with("CALL▼"), "{lines:#?}");
        assert!(
            lines[3].starts_with("   10 ") && lines[4].starts_with("    2 "),
            "{lines:#?}"
        );
        assert!(lines[3].contains("silent provider") && lines[3].contains("a\u{fffd}@x"));
        assert!(lines[9].starts_with("q quit"));
        assert_eq!(press(&mut screen, 'r'), Next::Stay);
        let lines = drawn(&mut screen, &top(), (110, 10));
        assert!(
            lines[2].starts_with("CALL▲") && lines[3].starts_with("    2 "),
            "{lines:#?}"
        );
    }

    #[test]
    fn a_narrow_terminal_shows_the_columns_that_matter_most_and_sorts_by_those_alone() {
        let mut screen = Screen::default();
        let check = |screen: &mut Screen, width: u16, expect: &[&str]| {
            let lines = drawn(screen, &top(), (width, 24));
            let head: Vec<&str> = lines[2].split_whitespace().collect();
            assert_eq!(head, expect, "{lines:#?}");
        };
        let wide = [
            "CALL▼",
            "PROVIDER",
            "DIRECTION",
            "STATE",
            "AGE",
            "IN/s",
            "OUT/s",
            "PROBLEM",
            "CALL-ID",
        ];
        check(&mut screen, 120, &wide);
        check(&mut screen, 80, &wide);
        check(
            &mut screen,
            60,
            &[
                "CALL▼", "PROVIDER", "STATE", "AGE", "IN/s", "OUT/s", "PROBLEM",
            ],
        );
        check(&mut screen, 40, &["CALL▼", "IN/s", "OUT/s", "PROBLEM"]);
        for _ in 0..3 {
            press(&mut screen, 's');
        }
        check(&mut screen, 40, &["CALL", "IN/s", "OUT/s", "PROBLEM▼"]);
        press(&mut screen, 's');
        check(&mut screen, 40, &["CALL▼", "IN/s", "OUT/s", "PROBLEM"]);
        check(&mut screen, 10, &["CALL▼"]);
    }

    #[test]
    fn whatever_the_height_the_summary_stays_and_the_end_can_be_reached() {
        let many = Top {
            calls: (1..=100).map(|number| call(number, "a@x", 1.0)).collect(),
            ..top()
        };
        for (height, tabs, keys) in [
            (1, false, false),
            (4, false, false),
            (5, true, false),
            (7, true, true),
            (24, true, true),
        ] {
            let mut screen = Screen::default();
            screen.handle(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
            let lines = drawn(&mut screen, &many, (80, height));
            assert!(
                lines[0].starts_with("sipfilterd does not answer"),
                "{lines:#?}"
            );
            let has = |what: &str| lines.iter().any(|line| line.contains(what));
            assert_eq!(has("2 pinholes"), tabs, "{lines:#?}");
            assert_eq!(has("q quit"), keys, "{lines:#?}");
            // The last row is the last line but for the keys.
            let last = lines.len() - 1 - usize::from(keys);
            assert!(
                height < 3 || lines[last].starts_with("    1 "),
                "{lines:#?}"
            );
        }
    }

    #[test]
    fn every_table_is_drawn_at_every_size() {
        for key in ['1', '2', '3'] {
            for size in [(1, 1), (10, 3), (80, 24), (300, 80)] {
                let mut screen = Screen::default();
                press(&mut screen, key);
                drawn(&mut screen, &top(), size);
                screen.handle(KeyEvent::new(KeyCode::PageDown, KeyModifiers::NONE));
                drawn(&mut screen, &Top::default(), size);
            }
        }
        let mut screen = Screen::default();
        press(&mut screen, '3');
        let lines = drawn(&mut screen, &top(), (80, 8));
        assert!(
            lines[3].contains("unknown_source") && lines[3].contains("2400"),
            "{lines:#?}"
        );
    }

    #[test]
    fn nothing_is_told_by_colour() {
        let mut screen = Screen::default();
        let failed = Top {
            errors: vec!["gone".to_owned()],
            ..top()
        };
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        terminal
            .draw(|frame| screen.draw(frame, &failed))
            .expect("it is drawn");
        for cell in terminal.backend().buffer().content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{cell:?}");
        }
    }

    #[test]
    fn an_error_has_a_line_of_its_own() {
        let mut screen = Screen::default();
        let top = Top {
            errors: vec!["go\u{7}ne".to_owned()],
            ..Top::default()
        };
        let lines = drawn(&mut screen, &top, (80, 6));
        assert!(
            lines[0].contains("does not answer") && lines[1].starts_with("! go\u{fffd}ne"),
            "{lines:#?}"
        );
    }

    #[test]
    fn q_escape_and_control_c_leave() {
        let mut screen = Screen::default();
        assert_eq!(press(&mut screen, 'x'), Next::Stay);
        for key in [
            KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE),
            KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE),
            KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(screen.handle(key), Next::Leave, "{key:?}");
        }
    }
}

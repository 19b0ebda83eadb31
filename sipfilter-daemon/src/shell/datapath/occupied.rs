//! Whose XDP program is on an interface where ours does not fit, and how it is taken off.
//!
//! It only looks. The program's number is for everybody to see; its name and the link that holds it only for who may list all of
//! the kernel's programs (CAP_SYS_ADMIN), which the service may not.

use std::fmt;

use aya::programs::{links::LinkType, loaded_links, loaded_programs};

use crate::shell::{
    interface::Index,
    rtnetlink::{self, XdpProgram},
};

/// Another XDP program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "interface {interface:?} has another XDP program already: {self}; only one fits: stop whoever it belongs to, or take it off: {way_out}",
    self = .program, way_out = .way_out
)]
pub struct Occupied {
    interface: String,
    program: Program,
    /// What takes it off, for a shell.
    pub way_out: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    id: u32,
    name: Option<String>,
    holder: Holder,
}

/// What keeps a program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// A link, by its number: a process, or a file in a BPF file system.
    Link(u32),
    /// The interface itself.
    Interface,
    /// That cannot be seen from here.
    Unknown,
}

impl Occupied {
    /// Looks who is there; `None` where nobody is, or the kernel does not say.
    pub fn look(interface: &str, index: Index) -> Option<Self> {
        let XdpProgram { id, place } = rtnetlink::xdp_program(index).ok()??;
        let mut programs = loaded_programs().flatten();
        let name = programs
            .find(|program| program.id() == id)
            .and_then(|program| program.name_as_str().map(str::to_owned));
        let mut links = loaded_links().flatten().filter(|link| {
            link.program_id() == id && matches!(link.link_type(), Ok(LinkType::Xdp))
        });
        let holder = match (links.next(), links.next(), &name) {
            (Some(link), None, _) => Holder::Link(link.id()),
            // Whoever sees the program sees all links.
            (None, _, Some(_)) => Holder::Interface,
            _ => Holder::Unknown,
        };
        Some(Self::new(interface, place, Program { id, name, holder }))
    }

    fn new(interface: &str, place: &str, program: Program) -> Self {
        let off = format!("`ip link set dev {interface} {place} off`");
        let way_out = match program.holder {
            Holder::Link(link) => format!("`bpftool link detach id {link}`"),
            Holder::Interface => off,
            Holder::Unknown => format!(
                "{off}, or, where a link holds it (`bpftool link show` as root lists the program's), `bpftool link detach id LINK`"
            ),
        };
        Self {
            interface: interface.to_owned(),
            program,
            way_out,
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            // Whoever loaded it has named it.
            Some(name) => write!(f, "\"{}\" (id {}", name.escape_default(), self.id)?,
            None => write!(
                f,
                "id {} (`bpftool prog show id {}` names it",
                self.id, self.id
            )?,
        }
        match self.holder {
            Holder::Link(link) => write!(f, ", held by link {link})"),
            Holder::Interface => write!(f, ", attached without a link)"),
            Holder::Unknown => write!(f, ")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_depends_on_what_holds_the_program() {
        #[track_caller]
        fn check(name: Option<&str>, holder: Holder, expect: &[&str]) {
            let program = Program {
                id: 7,
                name: name.map(str::to_owned),
                holder,
            };
            let said = Occupied::new("eth0", "xdpgeneric", program).to_string();
            for words in expect {
                assert!(said.contains(words), "no `{words}` in {said}");
            }
        }
        let off = "`ip link set dev eth0 xdpgeneric off`";
        check(
            Some("lb"),
            Holder::Link(3),
            &[
                "\"eth0\"",
                "\"lb\" (id 7, held by link 3)",
                "`bpftool link detach id 3`",
            ],
        );
        check(
            Some("lb\u{1b}"),
            Holder::Interface,
            &["lb\\u{1b}", "attached without a link", off],
        );
        check(
            None,
            Holder::Unknown,
            &["id 7", "bpftool prog show id 7", off, "bpftool link detach"],
        );
    }
}

//! The parts of the lab, from the ground up: namespaces, the topology built of them, the agents that live there, and the scoreboard.
//!
//! Each file owns one idea. `scoreboard` is the only one that knows them all.

pub mod address;
pub mod attack;
pub mod baresip;
pub mod call;
pub mod capture;
pub mod chaos;
pub mod cleanup;
pub mod conversation;
pub mod daemon;
pub mod flood;
pub mod kamailio;
pub mod legs;
pub mod link;
pub mod namespace;
pub mod privilege;
pub mod rehearsal;
pub mod rtp;
pub mod scenario;
pub mod schema;
pub mod scoreboard;
pub mod service;
pub mod sipp;
pub mod sniffer;
pub mod stage;
pub mod tagger;
pub mod terminal;
pub mod topology;
pub mod trace;

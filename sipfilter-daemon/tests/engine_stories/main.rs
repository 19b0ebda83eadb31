//! Stories about calls, told to the engine in packets on a virtual clock: who sends what, and which pinholes stand then.
//!
//! They use the public interface only. Nothing here waits, listens or needs a privilege.

mod chaos;
mod consent;
mod endings;
mod limits;
mod media;
mod offer_answer;
mod record;
mod restart;
mod setup;
mod siege;
mod terms;
mod transports;
mod world;

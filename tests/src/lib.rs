//! What the tests are made of: the lab around a real `sipfilterd`, the packet policy's table of cases, and the benchmarks.
//!
//! In the lab the daemon is only ever used from outside, as its operator would use it: a configuration file, two programs, signals.
//! Nothing in [`lab`] links against it, so what the lab reports is what an edge host would see. It touches no network but the
//! namespaces that it makes. The cases in [`policy`] do link against the daemon's loader: they are its kernel programs' tests;
//! and so does [`mod@bench`], which measures them, and [`many`], which is the daemon's core with more calls than a lab can make.

pub mod bench;
pub mod lab;
pub mod many;
pub mod policy;

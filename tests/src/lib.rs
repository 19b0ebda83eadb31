//! The lab: network namespaces with real SIP agents, real RTP and real attackers around a real `sipfilterd`.
//!
//! The daemon is only ever used from outside, as its operator would use it: a configuration file, two programs, signals. Nothing here
//! links against it, so what the lab reports is what an edge host would see. It touches no network but the namespaces that it makes.

pub mod lab;

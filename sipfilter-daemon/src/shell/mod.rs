//! The shell around the engine: kernel programs, maps, ring buffer, clock, control socket and signals.

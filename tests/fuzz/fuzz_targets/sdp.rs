//! One SDP body: see `sipfilter_fuzz::sdp`. Without cargo-fuzz it replays the files and directories that it is given.
#![cfg_attr(fuzzing, no_main)]

sipfilter_fuzz::target!(sdp);

//! SIP over TCP in segments, in any order: see `sipfilter_fuzz::segments`. Without cargo-fuzz it replays the files and directories that it is given.
#![cfg_attr(fuzzing, no_main)]

sipfilter_fuzz::target!(segments);

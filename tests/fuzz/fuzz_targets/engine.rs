//! Packets, commands and time through the whole engine: see `sipfilter_fuzz::engine`. Without cargo-fuzz it replays the files and directories that it is given.
#![cfg_attr(fuzzing, no_main)]

sipfilter_fuzz::target!(engine);

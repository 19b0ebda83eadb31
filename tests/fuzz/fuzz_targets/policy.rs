//! One frame through the packet policy: see `sipfilter_fuzz::policy`. Without cargo-fuzz it replays the files and directories that it is given.
#![cfg_attr(fuzzing, no_main)]

sipfilter_fuzz::target!(policy);

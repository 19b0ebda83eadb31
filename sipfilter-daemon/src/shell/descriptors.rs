//! Whether the system has refused for want of file descriptors, which says nothing about what was asked for.

use std::io;

use rustix::io::Errno;

/// Of this process, or of all.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

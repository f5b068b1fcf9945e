//! CPU time of a process, from Linux's `/proc`.

use std::fs;
use std::time::Duration;

/// CPU time of all threads of a process so far, to the nanosecond. `None` without such a file.
pub fn time_of(pid: u32) -> Option<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end between the two reads.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        nanos += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}

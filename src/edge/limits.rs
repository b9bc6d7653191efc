//! Whether this process may open as many files as the configured number of calls needs.
//!
//! Invariant: a node that would run out of descriptors in the middle of a busy evening does not
//! start; it says how many it needs and where to set that.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors one call takes at most: RTP and RTCP towards each of two trunks.
const FILES_PER_CALL: u64 = 4;
/// Database, logs, listeners, control socket, recordings, and a WebSocket or two for every desk.
const FILES_BESIDE_CALLS: u64 = 256;

/// Fewer descriptors than needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may open {allowed} files, but {calls} calls need {needed}: set LimitNOFILE={needed} in the \
     systemd unit, or run `ulimit -n {needed}` before starting, or lower limits.calls"
)]
pub struct TooFewFiles {
    /// Calls configured.
    pub calls: u64,
    /// Descriptors they need.
    pub needed: u64,
    /// The hard limit.
    pub allowed: u64,
}

/// Descriptors that `calls` calls at once need.
pub fn files_needed(calls: u64) -> u64 {
    calls.saturating_mul(FILES_PER_CALL).saturating_add(FILES_BESIDE_CALLS)
}

/// Makes room for `calls` calls: raises the soft limit to the hard one where that is needed.
/// Returns what the process may open from now on.
///
/// # Errors
/// [`TooFewFiles`] when even the hard limit is too low; only an administrator can raise it.
pub fn make_room(calls: u64) -> Result<u64, TooFewFiles> {
    let needed = files_needed(calls);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let soft = current.unwrap_or(u64::MAX);
    if soft >= needed {
        return Ok(soft);
    }
    let hard = maximum.unwrap_or(u64::MAX);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    if raised && hard >= needed {
        return Ok(hard);
    }
    Err(TooFewFiles { calls, needed, allowed: if raised { hard } else { soft } })
}

/// Descriptors open now; 0 where the system does not say.
pub fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_thousand_calls_need_their_sockets_and_the_rest() {
        assert_eq!(files_needed(1_000), 4_256);
        assert_eq!(files_needed(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_small_number_of_calls_fits_and_an_absurd_one_is_refused_in_words() {
        assert!(make_room(1).unwrap() >= files_needed(1));
        let hard = getrlimit(Resource::Nofile).maximum;
        if let Some(hard) = hard {
            let refused = make_room(hard).unwrap_err().to_string();
            assert!(refused.contains("LimitNOFILE=") && refused.contains("ulimit -n"), "{refused}");
        }
    }

    #[test]
    fn open_files_are_counted() {
        let before = open_files();
        let _file = std::fs::File::open("/dev/null").unwrap();
        assert!(open_files() > 0 && before > 0);
    }
}

//! What is written only to be read gives way to what addresses depend on.
//!
//! Events and status objects are as many as Services, and an API server that is busy serves all who ask alike: with
//! thousands of Services at once they would take most of what it can do. Who writes them therefore pauses in proportion to
//! how long the API server took, and so asks little of one that is slow and loses little time with one that is not.

use std::time::Duration;

/// The pause is so many times as long as the request.
const TIMES: u32 = 3;
/// The longest pause: what is to be read should not be hours late where the API server is slow for good.
const LONGEST: Duration = Duration::from_millis(500);

/// How long to pause after a request that took so long: up to 500 ms.
pub fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(TIMES).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_server_is_asked_more_rarely() {
        let ms = Duration::from_millis;
        assert_eq!(pause_after(ms(4)), ms(12));
        assert_eq!(pause_after(ms(100)), ms(300));
        assert_eq!(pause_after(Duration::MAX), LONGEST);
    }
}

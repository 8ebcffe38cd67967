//! The time of day as messages have it (RFC 9110 §5.6.7).

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs `use_it` on the time of now. Written anew once a second.
pub fn with_now<T>(use_it: impl FnOnce(&[u8]) -> T) -> T {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    WRITTEN.with_borrow_mut(|(written, text)| {
        if *written != second {
            (*written, *text) = (second, httpdate::fmt_http_date(now));
        }
        use_it(text.as_bytes())
    })
}

thread_local! {
    static WRITTEN: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

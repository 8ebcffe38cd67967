//! What a command wrote and how it ended, as its caller is told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// What happens while a command runs; the last one is [`Event::End`], unless weir itself stops.
#[derive(Debug)]
pub enum Event {
    Output(Stream, Vec<u8>),
    End(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum End {
    Exit {
        code: i32,
    },
    Signal {
        signal: i32,
    },
    /// It ran for longer than it might, and was killed.
    Timeout {
        timeout_ms: u64,
    },
    /// It wrote more than `cli.max_output`, and was killed.
    OutputLimit {
        max_output: u64,
    },
    /// The kernel would not tell.
    Unknown {
        error: String,
    },
}

/// Output in JSON: as text where it is UTF-8, else in base64.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Text {
    pub data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<&'static str>,
}

impl Text {
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(data) => Self { data, encoding: None },
            Err(error) => Self { data: STANDARD.encode(error.as_bytes()), encoding: Some("base64") },
        }
    }
}

/// Keeps back a character that a read has cut in two, so that it does not look like something other than text.
#[derive(Debug, Default)]
pub struct Unfinished(Vec<u8>);

impl Unfinished {
    /// What can be told now, of what was kept back and `bytes`.
    pub fn join(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(bytes);
        if let Err(error) = str::from_utf8(&all)
            && error.error_len().is_none()
        {
            self.0 = all.split_off(error.valid_up_to());
        }
        all
    }

    /// What was kept back in vain.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_is_cut_in_two_is_told_whole() {
        let mut unfinished = Unfinished::default();
        let text = "aé€𝄞".as_bytes();
        let mut told = Vec::new();
        for byte in text {
            let part = unfinished.join(&[*byte]);
            assert!(str::from_utf8(&part).is_ok(), "{part:?}");
            told.extend(part);
        }
        assert_eq!((told, unfinished.rest()), (text.to_vec(), Vec::new()));
    }

    #[test]
    fn what_is_no_text_is_told_at_once_and_whole() {
        let mut unfinished = Unfinished::default();
        assert_eq!(unfinished.join(b"\xff\xfe"), b"\xff\xfe");
        assert_eq!(unfinished.join(b"x\xe2\x82"), b"x");
        assert_eq!(unfinished.rest(), b"\xe2\x82");
        assert_eq!(Text::of(b"\xff\xfe".to_vec()), Text { data: "//4=".into(), encoding: Some("base64") });
        assert_eq!(Text::of(b"x".to_vec()), Text { data: "x".into(), encoding: None });
    }
}

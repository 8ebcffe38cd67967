//! Files of lines: some lines replaced or added, and taken back out of a file that somebody else has changed since.

use super::backend::LineChange;

/// A line that is wanted, and those that it takes the place of.
pub(super) struct Wish<'a> {
    pub(super) replaces: Box<dyn Fn(&str) -> bool + 'a>,
    pub(super) line: String,
}

/// The content with these lines, within `section` (a line of its own) if there is one, and what was changed for that.
pub(super) fn set(content: &str, section: Option<&str>, wishes: &[Wish<'_>]) -> (String, Vec<LineChange>) {
    let mut lines: Vec<String> = content.lines().map(str::to_owned).collect();
    let mut changes = Vec::new();
    for wish in wishes {
        let (first, end) = range(&lines, section);
        let mut is_there = false;
        for line in &mut lines[first..end] {
            if (wish.replaces)(line) {
                let before = Some(std::mem::replace(line, wish.line.clone()));
                changes.push(LineChange { ours: wish.line.clone(), before });
                is_there = true;
            }
        }
        if !is_there {
            if let Some(section) = section
                && first == lines.len()
                && !lines.iter().any(|line| line == section)
            {
                lines.push(section.to_owned());
            }
            let at = if section.is_some() { last_used(&lines, range(&lines, section)) } else { lines.len() };
            lines.insert(at, wish.line.clone());
            changes.push(LineChange { ours: wish.line.clone(), before: None });
        }
    }
    let mut content = lines.join("\n");
    content.push('\n');
    (content, changes)
}

/// The content without those lines, and with what they have replaced. What is not there any more is somebody else's
/// matter; all other bytes stay.
pub(super) fn undo(content: &[u8], changes: &[LineChange]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> =
        content.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for change in changes {
        let is_ours = |line: &Vec<u8>| line.strip_suffix(b"\n").unwrap_or(line) == change.ours.as_bytes();
        let Some(at) = lines.iter().position(is_ours) else { continue };
        match &change.before {
            Some(before) => lines[at] = [before.as_bytes(), b"\n"].concat(),
            None => drop(lines.remove(at)),
        }
    }
    lines.concat()
}

/// The lines of the section, without its own; all of them if there is none.
fn range(lines: &[String], section: Option<&str>) -> (usize, usize) {
    let Some(section) = section else { return (0, lines.len()) };
    let Some(begin) = lines.iter().position(|line| line.trim() == section) else {
        return (lines.len(), lines.len());
    };
    let length = lines[begin + 1..].iter().take_while(|line| !line.trim_start().starts_with('[')).count();
    (begin + 1, begin + 1 + length)
}

/// Behind the last line of the range that is not empty.
fn last_used(lines: &[String], (first, end): (usize, usize)) -> usize {
    (first..end).rev().find(|at| !lines[*at].trim().is_empty()).map_or(first, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(key: &'static str, value: &str) -> Wish<'static> {
        Wish {
            replaces: Box::new(move |line| line.split('=').next() == Some(key)),
            line: format!("{key}={value}"),
        }
    }

    #[track_caller]
    fn check(content: &str, section: Option<&str>, expected: &str) {
        let (made, changes) = set(content, section, &[wish("a", "1"), wish("b", "2")]);
        assert_eq!(made, expected);
        assert!(String::from_utf8(undo(made.as_bytes(), &changes)).unwrap().starts_with(content.trim_end()));
        // And with lines of somebody else around them.
        let edited = format!("x=7\n{made}y=8\n");
        let undone = String::from_utf8(undo(edited.as_bytes(), &changes)).unwrap();
        assert!(undone.starts_with("x=7\n") && undone.ends_with("y=8\n"), "{undone}");
        assert!(!undone.contains("a=1") && !undone.contains("b=2"), "{undone}");
    }

    #[test]
    fn lines_come_and_go() {
        check("", None, "a=1\nb=2\n");
        check("c=3", None, "c=3\na=1\nb=2\n");
        check("a=9\nc=3\na=8\n", None, "a=1\nc=3\na=1\nb=2\n");
        check("", Some("[S]"), "[S]\na=1\nb=2\n");
        check("[R]\na=0\n\n[S]\nb=5\n\n[T]\n", Some("[S]"), "[R]\na=0\n\n[S]\nb=2\na=1\n\n[T]\n");
    }
}

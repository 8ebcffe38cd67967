//! The text files of the workspace, Rust ones as tokens.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::Finding;

pub(super) struct Tree {
    pub(super) files: Vec<SourceFile>,
}

pub(super) struct SourceFile {
    /// Relative to the workspace, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// Without comments; none where this is no Rust, or broken Rust.
    pub(super) tokens: Vec<Token>,
    broken: bool,
}

#[derive(Debug)]
pub(super) struct Token {
    pub(super) text: String,
    /// Counted from 1.
    pub(super) line: usize,
}

impl Tree {
    /// Every file that git knows or would add.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let output = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("can't run git, which lists the files to check; install git")?;
        ensure!(
            output.status.success(),
            "git ls-files failed in {}: {}",
            root.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let paths = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
        // Deleted files are listed until the deletion is staged; binary ones are no text to check.
        let files = paths
            .split_terminator('\0')
            .filter_map(|path| Some(SourceFile::new(path, std::fs::read_to_string(root.join(path)).ok()?)))
            .collect();
        Ok(Self { files })
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self { files: files.iter().map(|(path, text)| SourceFile::new(path, (*text).to_owned())).collect() }
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

impl SourceFile {
    fn new(path: &str, text: String) -> Self {
        let mut tokens = Vec::new();
        let mut broken = false;
        if path.ends_with(".rs") {
            match text.parse::<TokenStream>() {
                Ok(stream) => flatten(stream, &mut tokens),
                Err(_) => broken = true,
            }
        }
        Self { path: path.to_owned(), text, tokens, broken }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(super) fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, message: message.into() }
    }

    /// The places where these tokens follow one another.
    pub(super) fn find<'a>(&'a self, pattern: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
        self.tokens
            .windows(pattern.len())
            .enumerate()
            .filter(move |(_, window)| window.iter().zip(pattern).all(|(token, text)| token.text == *text))
            .map(|(index, _)| index)
    }
}

pub(super) fn unreadable(tree: &Tree) -> Vec<Finding> {
    let broken = tree.rust().filter(|file| file.broken);
    broken.map(|file| file.finding(0, "does not lex as Rust")).collect()
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        let TokenTree::Group(group) = tree else {
            tokens.push(Token { text: tree.to_string(), line });
            continue;
        };
        let (open, close) = match group.delimiter() {
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::Parenthesis | Delimiter::None => ("(", ")"),
        };
        tokens.push(Token { text: open.to_owned(), line });
        flatten(group.stream(), tokens);
        tokens.push(Token { text: close.to_owned(), line: group.span_close().start().line });
    }
}

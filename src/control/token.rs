//! The secret that lets somebody in over TCP: read from its file at the start, or made there. Owns what counts as one;
//! never tells it, neither in an answer nor in the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;

use crate::privileges::User;

/// Characters at least. As hexadecimal digits, the leanest way to write it, these are 128 bits.
const CHARS: usize = 32;

/// Different characters at least: twelve of 32 random hexadecimal digits differ all but always, of a word typed over
/// and over they do not.
const DIFFERENT: usize = 8;

/// A token that is made here has 256 bits.
const MADE_BYTES: usize = 32;

/// No token's file is longer.
const FILE_BYTES: u64 = 4096;

/// Others may not read it; nobody but its owner may write it.
const FORBIDDEN_MODE: u32 = 0o027;

/// Why a file is not used as a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(
        "the token's file {path} cannot be made ({error}): make its folder, or set `control.token_file` to a path that this user may write"
    )]
    Make { path: PathBuf, error: io::Error },
    #[error("the token's file {path} cannot be read ({error}): give this user the right to read it")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is no file: set `control.token_file` to one, or to a path where it can be made")]
    NotAFile { path: PathBuf },
    #[error("{path} is open to others (mode {mode:o}): chmod 600 {path}")]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "{path} belongs to user {owner}: it is to be root's or that of the user who runs this: chown {me} {path}"
    )]
    Foreign { path: PathBuf, owner: u32, me: u32 },
    #[error(
        "{path} holds no token: one line of at least {CHARS} random letters and digits, as `openssl rand -hex 32` prints; or \
         remove it, and one is made"
    )]
    Weak { path: PathBuf },
}

/// The token. It has no `Debug` that could show it.
pub(super) struct Token(Vec<u8>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads the file, or makes it where there is none. It is this process's, or that of the user whom it will become.
    pub(super) fn of(path: &Path, user: Option<&User>) -> Result<Self, TokenError> {
        match Self::read(path, user) {
            Err(TokenError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                make(path, user)?;
                Self::read(path, user)
            }
            read => read,
        }
    }

    /// Reads the file.
    fn read(path: &Path, user: Option<&User>) -> Result<Self, TokenError> {
        let path_buf = || path.to_owned();
        let failed = |error| TokenError::Read { path: path_buf(), error };
        // A pipe would have the start wait for its writer.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(TokenError::NotAFile { path: path_buf() });
        }
        if found.mode() & FORBIDDEN_MODE != 0 {
            return Err(TokenError::Open { path: path_buf(), mode: found.mode() & 0o7777 });
        }
        let me = user.map_or_else(|| rustix::process::geteuid().as_raw(), User::uid);
        if found.uid() != 0 && found.uid() != me {
            return Err(TokenError::Foreign { path: path_buf(), owner: found.uid(), me });
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        let token = text.trim_ascii();
        if text.len() as u64 > FILE_BYTES || !is_strong(token) {
            return Err(TokenError::Weak { path: path_buf() });
        }
        Ok(Self(token.to_vec()))
    }

    /// Whether `given` is the token. How long that takes tells at most how long the token is.
    pub(super) fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

/// Whether the file can be used as a token, by this process or by the user whom it will become.
pub fn check_token(path: &Path, user: Option<&User>) -> Result<(), TokenError> {
    Token::read(path, user).map(drop)
}

/// Long enough, and of what a header can carry.
fn is_strong(token: &[u8]) -> bool {
    let mut seen = [false; 256];
    token.iter().for_each(|&byte| seen[usize::from(byte)] = true);
    token.len() >= CHARS
        && token.iter().all(u8::is_ascii_graphic)
        && seen.iter().filter(|&&seen| seen).count() >= DIFFERENT
}

fn make(path: &Path, user: Option<&User>) -> Result<(), TokenError> {
    let failed = |error| TokenError::Make { path: path.to_owned(), error };
    let mut bytes = [0; MADE_BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| failed(error.into()))?;
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    let mut file: File =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    // Made just now and by nobody else, so that no link has led here.
    user.map_or(Ok(()), |user| user.own_open(&file)).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    tracing::info!(file = %path.display(), "a token was made");
    Ok(())
}

#[cfg(test)]
impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    const GOOD: &str = "0123456789abcdef0123456789abcdef\n";

    #[test]
    fn a_token_that_is_missing_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let made = Token::of(&path, None).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.trim().len(), std::fs::metadata(&path).unwrap().mode() & 0o777), (64, 0o600));
        assert!(
            made.is(text.trim().as_bytes()) && Token::of(&path, None).unwrap().is(text.trim().as_bytes())
        );
        let other = folder.path().join("other");
        Token::of(&other, None).unwrap();
        assert_ne!(std::fs::read_to_string(other).unwrap(), text);
    }

    #[test]
    fn what_is_nearly_the_token_is_not() {
        let (_folder, path) = file(GOOD, 0o640);
        let token = Token::of(&path, None).unwrap();
        assert!(token.is(GOOD.trim().as_bytes()));
        for wrong in ["", "0123456789abcdef0123456789abcdeF", "0123456789abcdef0123456789abcde", GOOD] {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn files_that_others_may_read_or_write_are_refused() {
        for mode in [0o604, 0o660, 0o644, 0o666, 0o602] {
            let (_folder, path) = file(GOOD, mode);
            assert!(matches!(Token::of(&path, None), Err(TokenError::Open { .. })), "{mode:o}");
        }
    }

    #[test]
    fn what_can_be_guessed_is_no_token() {
        for weak in ["", "secret\n", &"ab".repeat(40), "0123456789abcdef 0123456789abcdef", &"x".repeat(5000)]
        {
            let (_folder, path) = file(weak, 0o600);
            assert!(matches!(Token::of(&path, None), Err(TokenError::Weak { .. })), "{weak:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Token::of(folder.path(), None), Err(TokenError::NotAFile { .. })));
        let nowhere = folder.path().join("no/such");
        assert!(matches!(Token::of(&nowhere, None), Err(TokenError::Make { .. })));
    }
}

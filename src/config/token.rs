//! The bearer token of the HTTP side: where it is, and whether it can be one.

use std::fs;
use std::io::Read;

use secrecy::SecretString;

use super::fault::{ConfigError, Fault, Place};
use super::load::Loaded;

/// Shorter ones can be guessed.
const MIN_CHARS: usize = 16;
/// Longer than any token, shorter than any mistake, in bytes.
const MAX_BYTES: usize = 4096;

impl Loaded {
    /// The token as it is now, if any is configured: `token_file` is read at each call, because a rotated secret arrives
    /// by the file changing.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token. What it holds is never part of the error.
    pub(crate) fn ops_token(&self) -> Result<Option<SecretString>, ConfigError> {
        let ops = &self.config.ops;
        let Some(path) = &ops.token_file else { return Ok(ops.token.clone()) };
        let mut text = String::new();
        let most = MAX_BYTES as u64 + 2;
        if let Err(error) = fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)) {
            let named = format!("ops.token_file = \"{}\"", path.display());
            let remedy = "name a readable file that holds the token and nothing else";
            let place = self.place(&["ops", "token_file"]);
            return Err(Fault::new(place, named, format!("cannot be read: {error}"), remedy).into());
        }
        let token = text.trim();
        match fault(token, "the token", Place::File(path.clone())) {
            Some(fault) => Err(fault.into()),
            None => Ok(Some(SecretString::from(token))),
        }
    }
}

/// Why a text is no token, if it is none. Its length is told, and nothing else of it.
pub(super) fn fault(token: &str, named: &str, place: Place) -> Option<Fault> {
    let chars = token.chars().count();
    let problem = if chars < MIN_CHARS {
        format!("has {chars} characters, fewer than {MIN_CHARS}: it could be guessed")
    } else if token.len() > MAX_BYTES {
        format!("has {} bytes, more than {MAX_BYTES}: no header carries it", token.len())
    } else if !token.chars().all(|char| char.is_ascii_graphic()) {
        "holds what no header carries: spaces, or letters beyond ASCII".to_owned()
    } else {
        return None;
    };
    Some(Fault::new(place, named, problem, "take what `openssl rand -hex 24` prints"))
}

#[cfg(test)]
mod tests {
    use super::{Place, fault};

    #[test]
    fn a_token_is_long_and_fits_a_header() {
        for (token, is_one) in [
            ("0123456789abcdef", true),
            ("Ab+/=.-_~0123456789", true),
            ("", false),
            ("short", false),
            ("0123456789 abcdef", false),
            ("0123456789abcdéf", false),
            ("0123456789abcdef\n", false),
        ] {
            let found = fault(token, "ops.token", Place::Default);
            assert_eq!(found.is_none(), is_one, "{token}");
            assert!(token.is_empty() || found.is_none_or(|fault| !fault.to_string().contains(token)));
        }
        assert!(fault(&"x".repeat(5000), "ops.token", Place::Default).is_some());
    }
}

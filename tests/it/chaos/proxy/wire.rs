//! As much of PostgreSQL's protocol as it takes to see a commit pass by.
//!
//! A frontend's message is a letter, a length that counts itself, and the rest; only the first one has no
//! letter. A statement that is not in a transaction commits with the Sync behind its Execute; a transaction
//! with the Query that says so. Only what changes something counts: appends, and the calls of compiled
//! projections.

use std::collections::HashMap;

/// The requests for encryption that a client may begin with.
const REQUESTS: [u32; 2] = [80_877_103, 80_877_104];

/// What a client has said so far.
#[derive(Debug, Default)]
pub(super) struct Frontend {
    rest: Vec<u8>,
    is_open: bool,
    /// Prepared statements, and whether each changes something.
    prepared: HashMap<Vec<u8>, bool>,
    is_bound: bool,
    is_executed: bool,
    in_transaction: bool,
    has_changed: bool,
}

impl Frontend {
    /// Takes what the client says next. Returns whether with that it has asked for a commit.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> bool {
        self.rest.extend_from_slice(bytes);
        let mut commits = false;
        while let Some((letter, body)) = self.next() {
            commits |= self.understand(letter, &body);
        }
        commits
    }

    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = usize::from(self.is_open);
        let length = length_at(&self.rest, head)?;
        let end = head + length.max(4);
        if self.rest.len() < end {
            return None;
        }
        let message: Vec<u8> = self.rest.drain(..end).collect();
        let body = message.get(head + 4..).unwrap_or_default().to_vec();
        if !self.is_open {
            let code = body.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            self.is_open = !code.is_some_and(|code| REQUESTS.contains(&code));
            return Some((0, body));
        }
        Some((message[0], body))
    }

    fn understand(&mut self, letter: u8, body: &[u8]) -> bool {
        let mut words = body.split(|byte| *byte == 0);
        let mut word = || words.next().unwrap_or_default();
        match letter {
            b'P' => {
                let (name, sql) = (word(), word());
                self.prepared.insert(name.to_vec(), changes(sql));
                false
            }
            b'B' => {
                let (_portal, statement) = (word(), word());
                self.is_bound = self.prepared.get(statement).copied().unwrap_or_default();
                false
            }
            b'E' => {
                self.is_executed |= self.is_bound;
                false
            }
            b'S' => {
                let is_executed = std::mem::take(&mut self.is_executed);
                self.has_changed |= is_executed && self.in_transaction;
                is_executed && !self.in_transaction
            }
            b'Q' => self.query(word()),
            _ => false,
        }
    }

    fn query(&mut self, sql: &[u8]) -> bool {
        let sql = String::from_utf8_lossy(sql).trim_matches([' ', '\n', ';']).to_ascii_lowercase();
        let was_changed = self.has_changed || changes(sql.as_bytes());
        let (begins, commits) = (sql.starts_with("begin"), sql.ends_with("commit"));
        if commits || sql.starts_with("rollback") {
            (self.in_transaction, self.has_changed) = (false, false);
            return commits && was_changed;
        }
        self.in_transaction |= begins;
        self.has_changed = was_changed && self.in_transaction;
        was_changed && !self.in_transaction
    }
}

/// Whether a statement appends, inserts, or folds.
fn changes(sql: &[u8]) -> bool {
    [&b"es_append"[..], b"insert into", b"update ", b"from foldd."]
        .iter()
        .any(|word| sql.windows(word.len()).any(|there| there.eq_ignore_ascii_case(word)))
}

/// The process id that the server gives the session, once it is among what it has said from the beginning on.
pub(super) fn process_id(said: &[u8]) -> Option<i32> {
    let mut at = 0;
    while let Some(letter) = said.get(at) {
        let length = length_at(said, at + 1)?;
        if *letter == b'K' {
            let bytes = said.get(at + 5..)?.first_chunk()?;
            return Some(i32::from_be_bytes(*bytes));
        }
        at += 1 + length.max(4);
    }
    None
}

fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(letter: &str, body: &str) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [letter.as_bytes(), &length, body.as_bytes()].concat()
    }

    fn opened() -> Frontend {
        let mut frontend = Frontend::default();
        assert!(!frontend.hear(&[&8_u32.to_be_bytes()[..], &REQUESTS[0].to_be_bytes()].concat()));
        assert!(!frontend.hear(&message("", "\0\x03\0\0user\0postgres\0\0")));
        frontend
    }

    #[test]
    fn a_statement_commits_with_its_sync_and_a_transaction_with_its_commit() {
        let mut frontend = opened();
        let prepared = message("P", "s1\0select es_append($1)\0").into_iter().chain(message("S", ""));
        assert!(!frontend.hear(&prepared.collect::<Vec<_>>()));
        let asked = [message("B", "\0s1\0"), message("E", "\0"), message("S", "")].concat();
        // However it is cut into pieces.
        let (first, second) = asked.split_at(asked.len() - 3);
        assert!(!frontend.hear(first));
        assert!(frontend.hear(second));
        assert!(!frontend.hear(&message("Q", "BEGIN\0")));
        assert!(!frontend.hear(&asked));
        assert!(frontend.hear(&message("Q", "COMMIT\0")));
        assert!(frontend.hear(&asked));
    }

    #[test]
    fn what_changes_nothing_is_no_commit() {
        let mut frontend = opened();
        assert!(!frontend.hear(&message("Q", "select 1\0")));
        assert!(!frontend.hear(&message("Q", "begin\0")));
        assert!(!frontend.hear(&message("Q", "commit\0")));
        assert!(!frontend.hear(&message("Q", "begin; select es_append()\0")));
        assert!(!frontend.hear(&message("Q", "ROLLBACK\0")));
        assert!(frontend.hear(&message("Q", "begin; select es_append(); commit\0")));
    }

    #[test]
    fn the_process_id_is_found_once_it_is_there() {
        let said =
            [message("R", "\0\0\0\0"), message("S", "a\0b\0"), message("K", "\0\0\x01\x02abcd")].concat();
        assert_eq!(process_id(&said), Some(258));
        assert_eq!(process_id(&said[..said.len() - 8]), None);
    }
}

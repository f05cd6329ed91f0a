//! Whom the server runs as: PostgreSQL refuses to run as root, so root starts it as somebody else.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use super::error::{EmbeddedError, Result, io_error};

/// Whom root starts the server as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// `None` where the server runs as ourselves. A cluster keeps its owner, whichever account a new one would get.
    pub(super) fn for_server(ourselves: Account, cluster: Option<&Path>) -> Result<Option<Account>> {
        if ourselves.uid != 0 {
            return Ok(None);
        }
        if let Some(owner) = cluster.map(Account::owner_of).transpose()?.filter(|owner| owner.uid != 0) {
            return Ok(Some(owner));
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let account = Account::named(&passwd, "postgres").or_else(|| Account::named(&passwd, "nobody"));
        account.map(Some).ok_or(EmbeddedError::NoAccount)
    }

    pub(super) fn owner_of(path: &Path) -> Result<Account> {
        let meta = fs::metadata(path).map_err(io_error("read", path))?;
        Ok(Account { uid: meta.uid(), gid: meta.gid() })
    }

    fn named(passwd: &str, name: &str) -> Option<Account> {
        let mut fields = passwd
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut line| (line.next() == Some(name)).then_some(line))?;
        Some(Account { uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }

    /// Whether it can enter the folders above the path, as far as they exist.
    pub(super) fn reaches(self, path: &Path) -> Result<()> {
        let closed = |folder: &&Path| {
            fs::metadata(folder).is_ok_and(|meta| {
                let shift = if meta.uid() == self.uid {
                    6
                } else if meta.gid() == self.gid {
                    3
                } else {
                    0
                };
                meta.mode() >> shift & 1 == 0
            })
        };
        match path.ancestors().skip(1).find(closed) {
            Some(folder) => Err(EmbeddedError::Barred(folder.to_path_buf(), self.uid)),
            None => Ok(()),
        }
    }
}

/// Makes the account the owner of a folder, which it must be able to get to.
pub(super) fn hand_over(folder: &Path, account: Option<Account>) -> Result<()> {
    let Some(account) = account else {
        return Ok(());
    };
    account.reaches(folder)?;
    chown(folder, Some(account.uid), Some(account.gid)).map_err(io_error("hand over", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nnobody2:x:7:8::/:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\n";
        assert_eq!(Account::named(passwd, "nobody"), Some(Account { uid: 65534, gid: 65533 }));
        assert_eq!(Account::named(passwd, "postgres"), None);
        assert_eq!(Account::named("nobody:*:-2:-2::/:/bin/false", "nobody"), None);
    }
}

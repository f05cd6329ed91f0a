//! The database URL: where it is, whether it is one, how it is shown, and how it is connected to.

use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::fault::{ConfigError, Fault, Place};
use super::load::Loaded;

/// Longer than any URL, shorter than any mistake.
const MAX_URL_BYTES: u64 = 64 << 10;

const REMEDY: &str = "write postgres://user:password@host:5432/database, \
                      with special characters in the password percent-encoded (@ is %40)";

impl Loaded {
    /// Whether any source names a database.
    pub(crate) fn has_database(&self) -> bool {
        self.config.database.url.is_some() || self.config.database.url_file.is_some()
    }

    /// The database URL as it is now: `url_file` is read at each call, because a rotated secret
    /// arrives by the file changing.
    ///
    /// # Errors
    /// None is given, or the file cannot be read, or it holds no URL.
    pub(crate) fn database_url(&self) -> Result<SecretString, ConfigError> {
        let database = &self.config.database;
        if let Some(url) = &database.url {
            return Ok(url.clone());
        }
        let Some(path) = &database.url_file else {
            let remedy = "set DATABASE_URL, or url or url_file under [database] in foldd.toml; \
                          `foldd run --embedded` brings a PostgreSQL of its own";
            return Err(Fault::new(Place::Default, "database.url", "no database is given", remedy).into());
        };
        let place = self.place(&["database", "url_file"]);
        let named = format!("database.url_file = \"{}\"", path.display());
        let mut text = String::new();
        fs::File::open(path).and_then(|file| file.take(MAX_URL_BYTES).read_to_string(&mut text)).map_err(
            |error| {
                let problem = format!("cannot be read: {error}");
                Fault::new(
                    place.clone(),
                    named,
                    problem,
                    "name a readable file that holds the URL and nothing else",
                )
            },
        )?;
        let url = text.trim();
        match url_fault(url, Place::File(path.clone())) {
            Some(fault) => Err(fault.into()),
            None => Ok(SecretString::from(url)),
        }
    }
}

/// What sqlx needs to connect. Unlike sqlx, whose `prefer` falls back to plain text in silence:
/// anything but a socket or a loopback address is verified unless the URL spells `sslmode` out.
///
/// No startup parameter beyond the application's name is sent: transaction poolers refuse them.
///
/// # Errors
/// The URL is not one. The password is never part of the error.
pub(crate) fn connect_options(url: &SecretString) -> Result<PgConnectOptions, ConfigError> {
    let text = url.expose_secret();
    let place = Place::Variable("database URL".to_owned());
    if let Some(fault) = url_fault(text, place.clone()) {
        return Err(fault.into());
    }
    let mut options = parsed(text, &place)?.extra_float_digits(None);
    // The URL writes IPv6 addresses in brackets, the resolver wants them without.
    let host = options.get_host().trim_matches(['[', ']']).to_owned();
    options = options.host(&host);
    if options.get_application_name().is_none() {
        options = options.application_name("foldd");
    }
    let local = options.get_socket().is_some() || is_local(&host);
    Ok(match (spells_sslmode(text), local) {
        (true, _) => options,
        (false, true) => options.ssl_mode(PgSslMode::Prefer),
        (false, false) => options.ssl_mode(PgSslMode::VerifyFull),
    })
}

/// The URL with its password masked; user, host and database stay.
///
/// Errs on the side of masking: an unescaped `@`, `/` or `?` in a password is what a URL that does
/// not parse most often suffers from, so the password ends at the last `@` of all.
pub(crate) fn masked_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let user = match user {
        Some(user) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:***@"),
            None => format!("{user}@"),
        },
        None => String::new(),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, Some(query)),
        None => (rest, None),
    };
    let rest = if user.is_empty() { masked_port(rest) } else { rest.to_owned() };
    let query = query.map_or_else(String::new, |query| {
        let pairs: Vec<_> = query.split('&').map(masked_pair).collect();
        format!("?{}", pairs.join("&"))
    });
    format!("{scheme}://{user}{rest}{query}")
}

/// Why `url` cannot be connected to, if it cannot.
pub(super) fn url_fault(url: &str, place: Place) -> Option<Fault> {
    let fault = |problem: &str| Some(Fault::new(place.clone(), masked_url(url), problem, REMEDY));
    if url.trim().is_empty() {
        return Some(Fault::new(place, "an empty text", "not a database URL", REMEDY));
    }
    match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => parsed(url, &place).err(),
        Some(_) => fault("the scheme is not postgres"),
        None => fault("not a database URL"),
    }
}

fn parsed(url: &str, place: &Place) -> Result<PgConnectOptions, Fault> {
    PgConnectOptions::from_str(url).map_err(|error| {
        // The reason is in the source; the URL is in neither.
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        let problem = format!("not a database URL: {reason}");
        Fault::new(place.clone(), masked_url(url), problem, REMEDY)
    })
}

/// `host:port` without a user: what looks like a port and is none is the password of a URL that
/// lost its `@`.
fn masked_port(rest: &str) -> String {
    let host_end = rest.find('/').unwrap_or(rest.len());
    let name_end = rest.find(']').unwrap_or(0);
    let colon = rest[name_end..].find(':').map(|at| at + name_end);
    match colon {
        Some(at) if at >= host_end || rest[at + 1..host_end].chars().all(|c| c.is_ascii_digit()) => {
            rest.to_owned()
        }
        Some(at) => format!("{}:***", &rest[..at]),
        None => rest.to_owned(),
    }
}

fn masked_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((key, _)) if key.to_lowercase().contains("password") => format!("{key}=***"),
        Some(_) | None => pair.to_owned(),
    }
}

fn spells_sslmode(url: &str) -> bool {
    let query = url.rsplit_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair.starts_with("sslmode=") || pair.starts_with("ssl-mode="))
}

/// Whether the bytes stay on this machine.
fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use sqlx::postgres::PgSslMode;

    use super::{connect_options, masked_url};

    #[test]
    fn urls_are_masked_even_when_they_are_broken() {
        let cases = [
            ("postgres://u:p@h:5432/d?sslmode=require", "postgres://u:***@h:5432/d?sslmode=require"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h:5432/d", "postgres://h:5432/d"),
            ("postgres://[::1]:5432/d", "postgres://[::1]:5432/d"),
            ("postgres:///d?host=/run&user=u&password=p", "postgres:///d?host=/run&user=u&password=***"),
            ("postgres://u:p@s/s?w#x@h/d", "postgres://u:***@h/d"),
            ("postgres://u:secret", "postgres://u:***"),
            ("postgres://u:sec/ret", "postgres://u:***"),
            ("host=h password=p", "***"),
            ("", "***"),
        ];
        for (url, masked) in cases {
            assert_eq!(masked_url(url), masked);
        }
    }

    #[test]
    fn connections_that_leave_the_machine_are_verified_unless_the_url_says_otherwise() {
        let cases = [
            ("postgres://u@db.example/d", PgSslMode::VerifyFull),
            ("postgres://u@10.0.0.1/d", PgSslMode::VerifyFull),
            ("postgres://u@db.example/d?sslmode=disable", PgSslMode::Disable),
            ("postgres://u@db.example/d?x=1&sslmode=prefer", PgSslMode::Prefer),
            ("postgres://u@127.0.0.2/d", PgSslMode::Prefer),
            ("postgres://u@[::1]/d", PgSslMode::Prefer),
            ("postgres://u@localhost/d", PgSslMode::Prefer),
            ("postgres://u@%2Frun%2Fpostgresql/d", PgSslMode::Prefer),
            ("postgres:///d?host=/run/postgresql", PgSslMode::Prefer),
            ("postgres:///d?host=db.example", PgSslMode::VerifyFull),
        ];
        for (url, mode) in cases {
            let options = connect_options(&SecretString::from(url)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(format!("{:?}", options.get_ssl_mode()), format!("{mode:?}"), "{url}");
            assert_eq!(options.get_application_name(), Some("foldd"));
        }
        for url in ["postgres://u:hunter2@h:99999/d", "postgres://u:hunter2@h/d?sslmode=maybe", "u:hunter2@h"]
        {
            let error = connect_options(&SecretString::from(url)).expect_err(url).to_string();
            assert!(!error.contains("hunter2") && error.contains("percent-encoded"), "{error}");
        }
    }
}

//! What goes in and what comes out; what is said about mistakes is in `mistakes`.

mod mistakes;
mod reference;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret;

pub(crate) use reference::holds_or_writes;

use super::{Config, ConfigError, Loaded, Place, load};

/// A working folder of its own for each test, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("foldd-config-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        for (name, text) in files {
            folder.put(name, text.as_bytes());
        }
        folder
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }

    fn load(&self, paths: &[&str], variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        load::load(&self.0, &paths, &variables.iter().copied().collect())
    }

    /// The configuration, which has to be good.
    fn good(&self, paths: &[&str], variables: &[(&str, &str)]) -> Loaded {
        self.load(paths, variables).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What is said about a bad configuration, with paths relative to this folder.
    fn said(&self, paths: &[&str], variables: &[(&str, &str)]) -> String {
        let error = self.load(paths, variables).err().expect("a bad configuration");
        self.text(&error)
    }

    fn text(&self, error: &ConfigError) -> String {
        for fault in &error.faults {
            assert!(
                !fault.value.is_empty() && !fault.problem.is_empty() && !fault.remedy.is_empty(),
                "{fault:?}"
            );
            assert!(fault.to_string().chars().count() < 600, "{fault}");
        }
        error.to_string().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn later_sources_win_and_are_remembered() {
    let folder = Folder::with(&[
        ("foldd.toml", "[daemon]\nworkers = 1"),
        ("a.toml", "projection_dirs = [\"p\"]\n[daemon]\nworkers = 2\nlease = \"20s\""),
        ("more/2.toml", "[daemon]\nworkers = 4\n[projections.fines]\nversion = 2"),
        ("more/1.toml", "[daemon]\nworkers = 3\nlease = \"30s\""),
        ("more/.hidden.toml", "nonsense"),
        ("more/readme.md", "nonsense"),
    ]);
    assert_eq!(folder.good(&[], &[]).config.daemon.workers, 1);
    let variables = [
        ("FOLDD__PROJECTIONS__FINES__VERSION", "3"),
        ("FOLDD_PORT", "tcp://10.0.0.1:1"),
        ("FOLDD_SERVICE_HOST", "x"),
    ];
    let loaded = folder.good(&["a.toml", "more"], &variables);
    assert_eq!((loaded.config.daemon.workers, loaded.config.daemon.lease), (4, Duration::from_secs(30)));
    assert_eq!(loaded.config.projections["fines"].settings().version, Some(3));
    assert_eq!(loaded.config.projection_dirs, [folder.0.join("p")]);
    let place = |key: &[&str]| loaded.place(key);
    assert_eq!(place(&["daemon", "workers"]), Place::Line(folder.0.join("more/2.toml"), 2, 11));
    assert_eq!(place(&["daemon", "lease"]), Place::Line(folder.0.join("more/1.toml"), 3, 9));
    assert_eq!(place(&["daemon", "live_batch"]), Place::Default);
    let variable = Place::Variable("FOLDD__PROJECTIONS__FINES__VERSION".to_owned());
    assert_eq!(place(&["projections", "fines", "version"]), variable);
}

#[test]
fn without_files_the_second_place_then_the_defaults_are_used() {
    let folder = Folder::new();
    assert_eq!(folder.good(&[], &[]).config.daemon.workers, 4);
    folder.put(
        "config/foldd.toml",
        b"\xef\xbb\xbfprojection_dirs = [\"projections\"]\r\n[daemon]\r\nworkers = 2\r\n",
    );
    let config = folder.good(&[], &[]).config;
    assert_eq!(config.daemon.workers, 2);
    assert_eq!(config.projection_dirs, [folder.0.join("config/projections")]);
}

#[test]
fn variables_may_be_lists_texts_and_directives() {
    let variables = [
        ("FOLDD__PROJECTION_DIRS", "[\"a\", b]"),
        ("FOLDD__LOG__LEVEL", "info,sqlx=debug"),
        ("FOLDD__OPS__LISTEN", "[::1]:80"),
        ("FOLDD__DATABASE__URL_FILE", "123"),
        ("FOLDD__EMBEDDED__DATA_DIR", "true"),
    ];
    let folder = Folder::new();
    let config = folder.good(&[], &variables).config;
    assert_eq!(config.projection_dirs, [folder.0.join("a"), folder.0.join("b")]);
    assert_eq!(config.log.level, "info,sqlx=debug");
    assert_eq!(config.ops.listen.to_string(), "[::1]:80");
    assert_eq!(config.database.url_file, Some(folder.0.join("123")));
    assert_eq!(config.embedded.data_dir, Some(folder.0.join("true")));
}

#[test]
fn the_database_url_is_the_one_said_last_and_the_environment_only_fills_in() {
    let folder = Folder::with(&[
        ("url.toml", "database.url = \"postgres:///file\""),
        ("url_file.toml", "database.url_file = \"secret\""),
        ("none.toml", ""),
        ("both.toml", "[database]\nurl = \"postgres:///file\"\nurl_file = \"secret\""),
        ("secret", "\n  postgres:///secret\n"),
    ]);
    let fallback = ("DATABASE_URL", "postgres:///fallback");
    let ours = ("FOLDD__DATABASE__URL", "postgres:///ours");
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 8] = [
        (&["none.toml"], &[fallback], "postgres:///fallback"),
        (&["url.toml"], &[fallback], "postgres:///file"),
        (&["url_file.toml"], &[fallback], "postgres:///secret"),
        (&["none.toml"], &[fallback, ours], "postgres:///ours"),
        (&["url_file.toml"], &[ours], "postgres:///ours"),
        (&["url.toml", "url_file.toml"], &[], "postgres:///secret"),
        (&["url_file.toml", "url.toml"], &[], "postgres:///file"),
        (&["url.toml"], &[("FOLDD__DATABASE__URL_FILE", "secret")], "postgres:///secret"),
    ];
    for (paths, variables, expected) in cases {
        let loaded = folder.good(paths, variables);
        assert!(loaded.has_database());
        let url = loaded.database_url().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(url.expose_secret(), expected, "{paths:?} {variables:?}");
    }
    let said = folder.said(&["both.toml"], &[]);
    assert!(said.starts_with("both.toml:2:7: database.url and database.url_file: both are given"), "{said}");
    let said = folder.said(&["none.toml"], &[ours, ("FOLDD__DATABASE__URL_FILE", "secret")]);
    assert!(said.contains("both are given"), "{said}");
}

#[test]
fn the_token_is_the_one_said_last_and_its_file_is_read_again() {
    let folder = Folder::with(&[
        ("foldd.toml", "ops.token_file = \"secret\""),
        ("token.toml", "ops.token = \"0123456789abcdef\""),
        ("secret", " fedcba9876543210\n"),
        ("short.toml", "ops.token = \"hunter2\""),
    ]);
    let token =
        |loaded: &Loaded| loaded.ops_token().map(|token| token.map(|token| token.expose_secret().to_owned()));
    assert!(
        matches!(token(&folder.good(&["token.toml"], &[])), Ok(Some(token)) if token == "0123456789abcdef")
    );
    assert!(
        matches!(token(&folder.good(&["token.toml", "foldd.toml"], &[])), Ok(Some(token)) if token.starts_with("fed"))
    );
    let variable = ("FOLDD__OPS__TOKEN", "1234567890123456");
    assert!(
        matches!(token(&folder.good(&["foldd.toml"], &[variable])), Ok(Some(token)) if token.starts_with("1234"))
    );
    let said = folder.said(&["short.toml"], &[]);
    assert!(
        said.starts_with("short.toml:1:13: ops.token: has 7 characters") && !said.contains("hunter2"),
        "{said}"
    );

    let loaded = folder.good(&["foldd.toml"], &[]);
    folder.put("secret", b"a whole other one");
    let said = folder.text(&loaded.ops_token().expect_err("spaces"));
    assert!(said.starts_with("secret: the token: holds what no header carries"), "{said}");
    folder.put("secret", b"aaaaaaaaaaaaaaaaa");
    assert!(matches!(token(&loaded), Ok(Some(token)) if token.starts_with("aaa")));
    let shown = folder.good(&["token.toml"], &[]).show_toml();
    assert!(shown.contains("token = \"***\"") && !shown.contains("0123456789abcdef"), "{shown}");
}

#[test]
fn a_url_file_is_read_again_and_its_faults_are_told() {
    let folder = Folder::with(&[("foldd.toml", "database.url_file = \"secret\"")]);
    let loaded = folder.good(&[], &[]);
    let said = |loaded: &Loaded| folder.text(&loaded.database_url().expect_err("bad"));
    assert!(
        said(&loaded).contains("foldd.toml:1:21: database.url_file = \"secret\": cannot be read"),
        "{}",
        said(&loaded)
    );
    folder.put("secret", b" ");
    assert!(said(&loaded).starts_with("secret: an empty text: not a database URL"), "{}", said(&loaded));
    folder.put("secret", b"postgres:///one");
    assert_eq!(loaded.database_url().expect("good").expose_secret(), "postgres:///one");
    folder.put("secret", b"postgres:///two\r\n");
    assert_eq!(loaded.database_url().expect("good").expose_secret(), "postgres:///two");
    let none = Folder::new().good(&[], &[("DATABASE_URL", "")]);
    assert!(!none.has_database());
    let said = said(&none);
    assert!(
        said.contains("no database is given") && said.contains("DATABASE_URL") && said.contains("--embedded"),
        "{said}"
    );
}

#[test]
fn projection_files_are_found_as_in_a_mounted_config_map() {
    let folder = Folder::with(&[
        ("foldd.toml", "projection_dirs = [\"p\", \"q\"]"),
        ("p/..2024_01/fines.sql", ""),
        ("p/folder.sql/x", ""),
        ("p/notes.md", ""),
        ("q/accounts.sql", ""),
    ]);
    std::os::unix::fs::symlink("..2024_01", folder.0.join("p/..data")).expect("a link");
    std::os::unix::fs::symlink("..data/fines.sql", folder.0.join("p/fines.sql")).expect("a link");
    let loaded = folder.good(&[], &[]);
    let paths = loaded.projection_paths().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(paths, [folder.0.join("q/accounts.sql"), folder.0.join("p/fines.sql")]);

    folder.put("q/fines.sql", b"");
    let said = folder.text(&loaded.projection_paths().expect_err("twice"));
    let expected = "the projection fines is already in p/fines.sql";
    assert!(said.starts_with("foldd.toml:1:25: ") && said.contains(expected), "{said}");

    let folder = Folder::with(&[("foldd.toml", "projection_dirs = [\"gone\"]")]);
    let said = folder.text(&folder.good(&[], &[]).projection_paths().expect_err("missing"));
    assert!(
        said.starts_with("foldd.toml:1:20: projection_dirs: ") && said.contains("cannot be read"),
        "{said}"
    );
}

#[test]
fn overrides_of_nothing_are_told() {
    let folder = Folder::with(&[(
        "foldd.toml",
        "[projections.fine]\nversion = 2\n[projections.own]\nhandler = \"rust\"",
    )]);
    let loaded = folder.good(&[], &[]);
    assert!(loaded.check_overrides(&["fine"]).is_ok());
    let said = folder.text(&loaded.check_overrides(&["fines"]).expect_err("nobody's"));
    assert!(
        said.starts_with("foldd.toml:1:14: projections.fine: no projection")
            && said.contains("did you mean fines?"),
        "{said}"
    );
    let said = folder.text(&loaded.check_overrides(&[]).expect_err("nobody's"));
    assert!(said.contains("add fine.sql"), "{said}");
}

#[test]
fn what_is_shown_has_no_password_and_can_be_loaded_again() {
    let text = "[database]\nurl = \"postgres://u:hunter2@h/d\"\n[projections.a]\nkeep_previous = \"1day\"\ncategories = [\"x\"]\n";
    let folder = Folder::with(&[("foldd.toml", text)]);
    let loaded = folder.good(&[], &[("FOLDD__DAEMON__WORKERS", "8")]);
    let (toml, json) = (loaded.show_toml(), loaded.show_json());
    assert!(!toml.contains("hunter2") && !json.to_string().contains("hunter2"));
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    assert_eq!(json["database"]["url"], "postgres://u:***@h/d");
    assert_eq!(json["daemon"]["workers"], 8);
    assert!(toml.contains("workers = 8  # FOLDD__DAEMON__WORKERS"), "{toml}");
    assert!(toml.contains("lease = \"10s\"  # default"), "{toml}");
    let again = Folder::with(&[("foldd.toml", &toml)]);
    assert_eq!(again.good(&[], &[]).show_json(), json);
}

#[test]
fn the_schema_describes_every_key() {
    let schema = Config::schema();
    assert_eq!(schema["additionalProperties"], false);
    for (section, keys) in [("Daemon", 12), ("Database", 2), ("Ops", 3), ("ProjectionOverride", 13)] {
        let properties = schema["$defs"][section]["properties"].as_object().expect(section);
        assert_eq!(properties.len(), keys, "{section}");
        for (key, property) in properties {
            assert!(property["description"].is_string(), "{section}.{key}");
        }
    }
}

#[test]
fn errors_are_small() {
    assert!(size_of::<ConfigError>() <= 128);
    assert!(Path::new("").join("foldd.toml") == Path::new("foldd.toml"));
}

use super::*;

fn categories(names: &[&str]) -> Settings {
    Settings {
        categories: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..Settings::default()
    }
}

#[test]
fn an_override_replaces_key_by_key() {
    let file = Settings { version: Some(1), on_error: Some(OnError::SkipEvent), ..categories(&["fine"]) };
    let config = Settings { version: Some(2), ..Settings::default() };
    let both = file.overridden_by(&config);
    assert_eq!(both, Settings { version: Some(2), ..file });
}

#[test]
fn choosing_all_takes_the_categories_back_and_the_other_way_round() {
    let all = Settings { all: Some(true), ..Settings::default() };
    assert_eq!(categories(&["fine"]).overridden_by(&all), all);
    assert_eq!(all.overridden_by(&categories(&["fine"])), categories(&["fine"]));
    let not_all = Settings { all: Some(false), ..Settings::default() };
    assert_eq!(categories(&["fine"]).overridden_by(&not_all).categories, categories(&["fine"]).categories);
}

#[test]
fn wrong_values_are_named_with_their_key() {
    let cases = [
        (Settings { version: Some(0), ..Settings::default() }, "`version` is 0; "),
        (Settings { version: Some(u32::MAX), ..Settings::default() }, "`version` is 4294967295; "),
        (Settings { partitions: Some(0), ..Settings::default() }, "`partitions` is 0; "),
        (Settings { events_per_second: Some(0), ..Settings::default() }, "`events_per_second` is 0; "),
        (
            Settings { max_quarantined_streams: Some(0), ..Settings::default() },
            "`max_quarantined_streams` is 0; ",
        ),
        (Settings { keep_previous: Some(Duration::MAX), ..Settings::default() }, "`keep_previous` is "),
        (categories(&[]), "`categories` is []; "),
        (categories(&["fine", " "]), "`categories` is a list with an empty name, \" \"; "),
        (categories(&["fine", "fine"]), "`categories` is a list with twice the same name, \"fine\"; "),
        (categories(&["a\0"]), "`categories` is a list with a name with a NUL character"),
        (Settings { all: Some(true), ..categories(&["fine"]) }, "`all` is true beside a list"),
    ];
    for (settings, expected) in cases {
        let faults = settings.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        let message = faults[0].to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    assert_eq!(categories(&["fine", "a-b", "Ärger 5"]).faults(), []);
}

#[test]
fn every_key_says_what_it_takes_and_is_known_to_serde() {
    for key in Settings::KEYS {
        assert!(Settings::takes(key).is_some(), "{key}");
        let error = toml::from_str::<Settings>(&format!("{key} = 1979-05-27")).expect_err(key);
        assert!(!error.message().contains("unknown field"), "{key}: {error}");
    }
    let error = toml::from_str::<Settings>("verison = 1").expect_err("unknown key");
    for key in Settings::KEYS {
        assert!(error.message().contains(key), "{key}");
    }
}

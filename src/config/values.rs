//! How single values are read and written.

use secrecy::{ExposeSecret, SecretString};
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::connect::masked_url;

/// Durations as people write them: `10s`, `1min 30s`, `200ms`.
///
/// Not `humantime_serde`, whose errors drop the reason (no unit, too large).
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("not a duration: {error}")))
    }

    pub(in crate::config) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        humantime::format_duration(*value).to_string().serialize(to)
    }
}

/// The same for a duration that may be left out.
pub(super) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serialize, Serializer};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(from).map(Some)
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|value| humantime::format_duration(value).to_string()).serialize(to)
    }
}

/// One word out of an enumeration. figment would also take a number for the variant's index.
pub(super) fn word<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(String::deserialize(from)?.into_deserializer())
}

/// The same for a word that may be left out.
pub(super) fn optional_word<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    word(from).map(Some)
}

/// A URL with its password masked: the only way one is ever written out.
pub(super) fn masked<S: Serializer>(url: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(|url| masked_url(url.expose_secret())).serialize(to)
}

/// A secret of which nothing is shown.
pub(super) fn hidden<S: Serializer>(secret: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "***").serialize(to)
}

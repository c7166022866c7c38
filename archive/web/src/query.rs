//! Query strings and UIDs of paths: text becomes a type here.

use crate::status::Problem;
use archive_model::Uid;
use archive_service::Selection;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

/// Parameters of one request; real ones have ten.
const PARAMETERS_MAX: usize = 1000;

/// The decoded parameters of a query string, in order.
pub(crate) fn parameters(query: Option<&str>) -> Result<Vec<(String, String)>, Problem> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        let decoded = percent_decode_str(&text).decode_utf8().map(|text| text.into_owned());
        decoded.map_err(|_| Problem::bad("a query parameter is not UTF-8: percent-encode it as UTF-8"))
    };
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut parameters = Vec::new();
    for pair in pairs {
        if parameters.len() == PARAMETERS_MAX {
            return Err(Problem::bad("more than 1000 query parameters: ask for less"));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.push((decode(name)?, decode(value)?));
    }
    Ok(parameters)
}

/// UIDs of a path, outermost first.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Target {
    #[serde(default)]
    study: Option<String>,
    #[serde(default)]
    series: Option<String>,
    #[serde(default)]
    instance: Option<String>,
}

impl Target {
    /// An instance.
    pub(crate) fn of_instance(study: String, series: String, instance: String) -> Self {
        Self { study: Some(study), series: Some(series), instance: Some(instance) }
    }

    /// The study, if the path has one.
    pub(crate) fn study(&self) -> Result<Option<Uid>, Problem> {
        uid(self.study.as_deref(), "study")
    }

    /// The series, if the path has one.
    pub(crate) fn series(&self) -> Result<Option<Uid>, Problem> {
        uid(self.series.as_deref(), "series")
    }

    /// What the path names.
    pub(crate) fn selection(&self) -> Result<Selection, Problem> {
        Ok(Selection {
            patient: None,
            studies: self.study()?.into_iter().collect(),
            series: self.series()?.into_iter().collect(),
            instances: uid(self.instance.as_deref(), "instance")?.into_iter().collect(),
        })
    }

    /// What a DELETE of the path deletes.
    pub(crate) fn to_delete(&self) -> Result<archive_service::Target, Problem> {
        let study = self.study()?.ok_or_else(|| Problem::bad("the path names no study"))?;
        let instance = uid(self.instance.as_deref(), "instance")?;
        Ok(archive_service::Target { study, series: self.series()?, instance })
    }

    /// What the path names, as a word.
    pub(crate) fn what(&self) -> &'static str {
        match (&self.series, &self.instance) {
            (_, Some(_)) => "the instance",
            (Some(_), None) => "the series",
            (None, None) => "the study",
        }
    }
}

fn uid(text: Option<&str>, what: &str) -> Result<Option<Uid>, Problem> {
    text.map(|text| uid_of(text, what)).transpose()
}

/// The UID of a study, series or instance.
pub(crate) fn uid_of(text: &str, what: &str) -> Result<Uid, Problem> {
    Uid::parse(text).map_err(|error| Problem::bad(format!("the UID of the {what} is malformed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once() {
        let read = parameters(Some("a=1%252&b&&c=x+y%3D=z"));
        let expected = [("a", "1%2"), ("b", ""), ("c", "x y==z")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(read, Ok(expected.to_vec()));
        assert!(parameters(Some("a=%FF")).is_err());
        assert!(parameters(Some(&"a&".repeat(1001))).is_err());
    }
}

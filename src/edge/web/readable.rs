//! What is wrong with a request's JSON or question, in words for the person who wrote it.
//!
//! The reader of JSON explains itself to those who know its types; they need to know which field, and
//! what to write there.
//! Invariant: whatever the reader says, a whole sentence comes out that says what to do next.

/// What the reader says before and after what matters.
const BEFORE: [&str; 3] = [
    "Failed to deserialize the JSON body into the target type: ",
    "Failed to parse the request body as JSON: ",
    "Failed to deserialize query string: ",
];

/// A rejection of a body or a question.
pub(super) fn sentence(said: &str) -> String {
    let (is_syntax, text) = core(said);
    if is_syntax {
        let place = said.rsplit_once(" at ").map(|(_, place)| format!(" at {place}")).unwrap_or_default();
        return format!("This is no JSON{place}: check its quotes, commas and braces.");
    }
    let (place, text) = place(text);
    let what = missing(text)
        .or_else(|| unknown(text, "unknown field ", "There is no field"))
        .or_else(|| unknown(text, "unknown variant ", "Nothing here is called"))
        .or_else(|| {
            text.starts_with("invalid length ")
                .then(|| "A list does not fit here: write an object in braces.".to_owned())
        })
        .or_else(|| wrong_type(text))
        .unwrap_or_else(|| {
            "A value does not fit: see /api/v1/openapi.json for what belongs there.".to_owned()
        });
    place.map_or_else(|| what.clone(), |place| format!("In \"{place}\": {what}"))
}

/// Whether it is not even JSON, and what is said without the frame.
fn core(said: &str) -> (bool, &str) {
    let [_, syntax, _] = BEFORE;
    let bare = BEFORE.iter().find_map(|before| said.strip_prefix(before)).unwrap_or(said);
    let bare = bare.rsplit_once(" at line ").map_or(bare, |(text, _)| text);
    (said.starts_with(syntax), bare)
}

/// `fields.pickup: …` begins with where it is; the whole is `.`.
fn place(text: &str) -> (Option<&str>, &str) {
    let is_path = |path: &&str| path.chars().all(|c| c.is_ascii_alphanumeric() || "_.[]?".contains(c));
    match text.split_once(": ").filter(|(path, _)| is_path(path)) {
        Some((path, rest)) => (Some(path).filter(|path| path.chars().any(char::is_alphanumeric)), rest),
        None => (None, text),
    }
}

fn missing(text: &str) -> Option<String> {
    let name = ticked(text.strip_prefix("missing field ")?).next()?;
    Some(format!("The field \"{name}\" is missing: add it."))
}

fn unknown(text: &str, begins: &str, words: &str) -> Option<String> {
    let mut names = ticked(text.strip_prefix(begins)?);
    let wrong = names.next()?;
    let right: Vec<&str> = names.collect();
    let next = match right.as_slice() {
        [] => "leave it out".to_owned(),
        [one] => format!("write {one}"),
        several => format!("write one of {}", several.join(", ")),
    };
    Some(format!("{words} \"{wrong}\": {next}."))
}

/// `invalid type: integer `5`, expected a string`.
fn wrong_type(text: &str) -> Option<String> {
    let (found, expected) = text.split_once(", expected ")?;
    let found = found.strip_prefix("invalid type: ").or_else(|| found.strip_prefix("invalid value: "))?;
    let found = found.replace('`', "");
    let wanted = match expected {
        "a string" => "a text in quotes",
        "a boolean" => "true or false",
        "a map" => "an object in braces, such as {\"pickup\": \"Main st. 1\"}",
        _ if expected.starts_with("struct ") => "an object in braces",
        _ if expected.starts_with(['i', 'u']) && expected.len() <= 5 => "a whole number",
        other => other,
    };
    Some(format!("{found} does not fit here: write {wanted}."))
}

/// The names between backticks.
fn ticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use axum::extract::{FromRequest as _, Query, Request};
    use axum::http::{Uri, header};
    use axum::{Json, body::Body};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Sent {
        to: String,
        state: Option<State>,
        on: Option<bool>,
        page: Option<u32>,
        fields: Option<std::collections::BTreeMap<String, String>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum State {
        Available,
        Paused,
    }

    async fn of_body(body: &'static str) -> String {
        let request = Request::builder().header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(body)).unwrap();
        sentence(&Json::<Sent>::from_request(request, &()).await.unwrap_err().body_text())
    }

    #[tokio::test]
    async fn a_body_that_does_not_fit_is_explained_without_the_words_of_the_program() {
        let table = [
            ("{\"to\": ", "This is no JSON at line 1 column 7: check its quotes, commas and braces."),
            ("{}", "The field \"to\" is missing: add it."),
            ("[]", "A list does not fit here: write an object in braces."),
            ("7", "integer 7 does not fit here: write an object in braces."),
            ("{\"to\": 5}", "In \"to\": integer 5 does not fit here: write a text in quotes."),
            (
                "{\"to\": \"1\", \"on\": \"yes\"}",
                "In \"on\": string \"yes\" does not fit here: write true or false.",
            ),
            (
                "{\"to\": \"1\", \"page\": -1}",
                "In \"page\": integer -1 does not fit here: write a whole number.",
            ),
            (
                "{\"to\": \"1\", \"state\": \"asleep\"}",
                "In \"state\": Nothing here is called \"asleep\": write one of available, paused.",
            ),
            (
                "{\"too\": \"1\"}",
                "In \"too\": There is no field \"too\": write one of to, state, on, page, fields.",
            ),
            (
                "{\"to\": \"1\", \"fields\": \"x\"}",
                "In \"fields\": string \"x\" does not fit here: write an object in braces, such as {\"pickup\": \"Main st. 1\"}.",
            ),
        ];
        for (body, wanted) in table {
            let said = of_body(body).await;
            assert_eq!(said, wanted, "{body}");
            assert!(!said.contains("deserialize") && !said.contains('`'), "{said}");
        }
    }

    #[test]
    fn a_question_that_does_not_fit_is_explained_too() {
        let uri: Uri = "http://t/?to=1&page=two".parse().unwrap();
        let said = sentence(&Query::<Sent>::try_from_uri(&uri).unwrap_err().body_text());
        assert!(
            said.starts_with("In \"page\": ") && said.ends_with('.') && !said.contains("deserialize"),
            "{said}"
        );
    }
}

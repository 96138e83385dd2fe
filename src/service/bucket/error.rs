//! What an object store says, in our words.

use crate::service::Error;

/// How much of an answer is repeated in an error, in characters: some stores answer with pages, or with what was signed.
const TEXT_LEN_MAX: usize = 400;

/// An operation that failed. That an object is absent or there already is for the caller to tell.
pub(super) fn refused(endpoint: &str, error: object_store::Error) -> Error {
    use object_store::Error as Said;

    let hint = match &error {
        Said::PermissionDenied { .. } => {
            " (S3 says so of absent objects, too, unless s3:ListBucket is allowed)"
        }
        Said::Unauthenticated { .. } => " (see the credentials in the environment)",
        _ => "",
    };
    let mut text: String = with_causes(&error).chars().take(TEXT_LEN_MAX).collect();
    text.push_str(hint);
    Error::unavailable(endpoint, text)
}

/// The error with its causes, each once, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_fails_makes_something_absent_and_long_answers_are_cut() {
        let said = object_store::Error::PermissionDenied {
            path: "a/b".to_owned(),
            source: "<html>\n".repeat(1000).into(),
        };
        let error = refused("objectstore+s3://bucket", said);
        let text = error.to_string();
        assert!(matches!(error, Error::Unavailable { .. }), "{text}");
        assert!(text.contains("a/b") && text.contains("s3:ListBucket"), "{text}");
        assert!(text.len() < 600 && !text.contains('\n'), "{text}");
    }
}

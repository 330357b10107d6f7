//! JSON of a request as a type, or an error that names the field.

use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Reads a request; fields that the type does not know are left alone, as vLLM does.
///
/// # Errors
/// What is no UTF-8, no JSON, nested deeper than 128 in a known field, or a field of another type.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::invalid(
            "",
            "invalid_utf8",
            format!("the body is no UTF-8 at byte {at}; send JSON in UTF-8"),
        )
    })?;
    // serde would take a list for the fields in order.
    if text.trim_start().starts_with('[') {
        return Err(ApiError::invalid(
            "",
            "invalid_type",
            "the body is a list, expected an object",
        ));
    }
    let reader = &mut serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut *reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let path = if path == "." { String::new() } else { path };
            // serde names lines and columns, which a program that made the body cannot use.
            let words = inner.to_string();
            let words = words.split(" at line ").next().unwrap_or_default().to_owned();
            return ApiError::invalid(path, "invalid_type", words);
        }
        ApiError::invalid("", "invalid_json", format!("the body is no JSON: {inner}"))
    })?;
    reader.end().map_err(|error| {
        ApiError::invalid("", "invalid_json", format!("something follows the JSON: {error}"))
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Request {
        #[serde(default)]
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    struct Item {
        count: Option<u32>,
    }

    #[test]
    fn errors_name_the_field_and_nothing_unknown_is_one() {
        let read = |body: &[u8]| json::<Request>(body);
        assert_eq!(
            read(br#"{"items": [{"count": 3, "new": {}}], "other": 1}"#).unwrap().items[0].count,
            Some(3)
        );
        let error = read(br#"{"items": [{}, {"count": "3"}]}"#).unwrap_err();
        assert_eq!((error.param.as_deref(), error.code), (Some("items[1].count"), "invalid_type"));
        assert!(
            error.message.contains("expected u32") && !error.message.contains("line"),
            "{error}"
        );
        assert_eq!(read(b"{\"items\": [").unwrap_err().code, "invalid_json");
        assert_eq!(read(b"{} x").unwrap_err().code, "invalid_json");
        assert_eq!(read(b"[1]").unwrap_err().status, 400);
        assert_eq!(read(b"{\"a\": \"\xff\"}").unwrap_err().code, "invalid_utf8");
        let deep = format!("{{\"x\": {}1{}}}", "[".repeat(500), "]".repeat(500));
        assert!(read(deep.as_bytes()).is_ok(), "what is unknown is skipped, however deep");
    }
}

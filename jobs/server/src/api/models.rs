//! `/v1/models`.

use axum::Json;
use serde_json::{Value, json};

use super::error::ApiError;
use crate::service::{Service, seconds};

pub fn list(service: &Service) -> Json<Value> {
    let all: Vec<Value> = service.names.iter().map(|name| entry(service, name)).collect();
    Json(json!({"object": "list", "data": all}))
}

/// # Errors
/// 404.
pub fn one(service: &Service, name: &str) -> Result<Json<Value>, ApiError> {
    service.check_name(Some(name))?;
    Ok(Json(entry(service, name)))
}

fn entry(service: &Service, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": seconds(service.started),
        "owned_by": "ff2",
        "root": service.names[0],
        "max_model_len": service.context,
    })
}

//! The OpenAPI document, made from the tables that the router is made from.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::looks::{LettersQuery, LogQuery, WaitQuery};
use super::problem::Problem;
use super::routes::{Answer, ROUTES};
use super::verbs::{Order, VERBS};
use crate::ledger::dead_letters::{Letter, Opened};
use crate::ledger::deeds::Entry;
use crate::ledger::status::Status;

/// The whole document.
pub(super) fn document() -> Value {
    let mut schemas = SchemaSettings::openapi3().into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let mut parameters = path_parameters(route.path);
        match route.path {
            "/api/projections/{name}/wait" => query::<WaitQuery>(&mut schemas, &mut parameters),
            "/api/dead-letters" => query::<LettersQuery>(&mut schemas, &mut parameters),
            "/api/log" => query::<LogQuery>(&mut schemas, &mut parameters),
            _ => {}
        }
        let content = match route.answer {
            Answer::Text => json!({ "text/plain": {} }),
            Answer::Html => json!({ "text/html": {} }),
            Answer::Stream => json!({ "text/event-stream": {} }),
            Answer::Json => json!({ "application/json": { "schema": schema_of(route.path, &mut schemas) } }),
        };
        let get = json!({
            "summary": route.does, "parameters": parameters,
            "responses": { "200": { "description": "done", "content": content }, "default": { "$ref": "#/components/responses/Problem" } },
        });
        paths.insert(route.path.to_owned(), json!({ "get": get }));
    }
    let order = schemas.subschema_for::<Order>().to_value();
    for verb in VERBS {
        let post = json!({
            "summary": verb.does, "parameters": path_parameters("{name}"), "security": [{ "token": [] }],
            "requestBody": { "required": verb.selects, "content": { "application/json": { "schema": order } } },
            "responses": {
                "200": { "description": "it is in force, and stands in the log of operators", "content": { "application/json": {
                    "schema": { "type": "object", "required": ["projection", "revision"], "properties": {
                        "projection": { "type": "string" }, "revision": { "type": "integer" } } } } } },
                "default": { "$ref": "#/components/responses/Problem" },
            },
        });
        paths.insert(format!("/api/projections/{{name}}/{}", verb.name), json!({ "post": post }));
    }
    let codes: Vec<_> = Problem::CODES
        .iter()
        .map(|(status, code, when)| format!("- `{code}` ({}): {when}", status.as_u16()))
        .collect();
    let known: Vec<_> = Problem::CODES.iter().map(|(_, code, _)| *code).collect();
    json!({
        "openapi": "3.0.3",
        "info": { "title": "foldd", "version": env!("CARGO_PKG_VERSION"),
                  "description": format!("What every projection does, and verbs to act on them.\n\nError codes:\n\n{}", codes.join("\n")) },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer",
                "description": "what ops.token or ops.token_file holds; reading needs it only where the port is open beyond the machine" } },
            "responses": { "Problem": { "description": "anything else", "content": { "application/json": { "schema": {
                "type": "object", "required": ["error"], "properties": { "error": {
                    "type": "object", "required": ["code", "message", "remedy"], "properties": {
                        "code": { "type": "string", "enum": known },
                        "message": { "type": "string" }, "remedy": { "type": "string" } } } } } } } } },
        },
    })
}

/// What an answer in JSON looks like; where it is not said, any object.
fn schema_of(path: &str, schemas: &mut SchemaGenerator) -> Value {
    match path {
        "/api/status" => schemas.subschema_for::<Status>().to_value(),
        "/api/log" => schemas.subschema_for::<Vec<Entry>>().to_value(),
        "/api/projections/{name}/dead-letters/{position}" => schemas.subschema_for::<Opened>().to_value(),
        "/api/dead-letters" => json!({
            "type": "object", "required": ["there_are", "letters"], "properties": {
                "there_are": { "type": "integer" }, "letters": schemas.subschema_for::<Vec<Letter>>() },
        }),
        "/api/projections/{name}/wait" => json!({
            "type": "object", "required": ["reached", "cursor", "waited_seconds"], "properties": {
                "reached": { "type": "boolean" }, "cursor": { "type": "string" }, "waited_seconds": { "type": "number" } },
        }),
        _ => json!({ "type": "object" }),
    }
}

fn path_parameters(path: &str) -> Vec<Value> {
    path.split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .map(|name| {
            let kind = if name == "position" { "integer" } else { "string" };
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
        })
        .collect()
}

/// The fields of a query, as parameters.
fn query<Q: JsonSchema>(schemas: &mut SchemaGenerator, parameters: &mut Vec<Value>) {
    let schema = Q::json_schema(schemas).to_value();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        parameters.push(json!({
            "name": name, "in": "query", "required": false, "description": field["description"], "schema": field,
        }));
    }
}

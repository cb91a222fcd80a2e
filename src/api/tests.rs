//! The shipped definitions: structural, bounded, free of drift, and every CEL rule with a case on either side.

// One table for both tiers, so that no rule is tested here and not against the API server.
#[path = "../../tests/cluster/cases.rs"]
mod cases;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::cases::{Case, Change, Naming, cases, changes, namings};
use super::schema::{Definition, FILES, definitions};

fn definition(kind: &str) -> Definition {
    definitions().into_iter().find(|definition| definition.kind == kind).unwrap()
}

/// Visits every schema below this one, with its path.
fn walk<'a>(schema: &'a Value, path: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{path}[]"), visit);
    }
    if let Some(values) = schema.get("additionalProperties") {
        walk(values, &format!("{path}{{}}"), visit);
    }
}

fn each_schema(mut visit: impl FnMut(&str, &Value)) {
    for definition in definitions() {
        walk(definition.schema(), &definition.kind, &mut |path, schema| visit(path, schema));
    }
}

#[test]
fn every_schema_is_structural() {
    let keywords = BTreeSet::from([
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ]);
    let formats = BTreeSet::from(["int32", "int64", "date-time"]);
    each_schema(|path, schema| {
        for keyword in schema.as_object().unwrap().keys() {
            assert!(keywords.contains(keyword.as_str()), "{path}: {keyword}");
        }
        let either = schema["x-kubernetes-int-or-string"] == json!(true);
        assert!(schema["type"].is_string() != either, "{path}: exactly one of type and int-or-string");
        assert!(schema["format"].is_null() || formats.contains(schema["format"].as_str().unwrap()), "{path}");
        assert!(
            schema.get("properties").is_none() || schema.get("additionalProperties").is_none(),
            "{path}: properties and additionalProperties exclude each other"
        );
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(schema["properties"].get(required.as_str().unwrap()).is_some(), "{path}: {required}");
        }
    });
}

#[test]
fn every_string_list_and_map_is_bounded_and_every_list_states_its_type() {
    each_schema(|path, schema| match schema["type"].as_str() {
        Some("string") if schema.get("enum").is_none() && schema.get("format").is_none() => {
            assert!(schema["maxLength"].is_u64(), "{path}");
        }
        Some("array") => {
            assert!(schema["maxItems"].is_u64(), "{path}");
            let list = schema["x-kubernetes-list-type"].as_str().unwrap_or_else(|| panic!("{path}: no list type"));
            if list == "map" {
                for key in schema["x-kubernetes-list-map-keys"].as_array().unwrap() {
                    assert!(schema["items"]["required"].as_array().unwrap().contains(key), "{path}: key {key}");
                }
            }
            if list == "set" {
                assert_eq!(schema["items"]["type"], "string", "{path}: a set holds scalars");
            }
        }
        Some("object") if schema.get("additionalProperties").is_some() => {
            assert!(schema["maxProperties"].is_u64(), "{path}");
        }
        _ => {}
    });
}

#[test]
fn every_field_is_documented() {
    for definition in definitions() {
        walk(definition.schema(), &definition.kind, &mut |path, schema| {
            let item = path.ends_with(']') || path.ends_with('}');
            assert!(item || schema["description"].as_str().is_some_and(|text| text.len() > 10), "{path}");
        });
    }
}

/// The documentation of an enum takes the place of that of an optional field: it must serve both.
#[test]
fn every_value_of_an_enum_is_explained() {
    each_schema(|path, schema| {
        // Days and the status of a condition need no words.
        for value in schema["enum"].as_array().into_iter().flatten().filter(|_| !path.contains(".days")) {
            let text = schema["description"].as_str().unwrap_or_default();
            assert!(text.contains(&format!("`{}`", value.as_str().unwrap())), "{path}: {value}");
        }
    });
}

#[test]
fn enums_are_in_pascal_case() {
    each_schema(|path, schema| {
        for value in schema["enum"].as_array().into_iter().flatten() {
            let value = value.as_str().unwrap();
            let pascal =
                value.starts_with(|c: char| c.is_ascii_uppercase()) && value.chars().all(char::is_alphanumeric);
            assert!(pascal, "{path}: {value}");
        }
    });
}

#[test]
fn names_and_sizes_follow_the_conventions() {
    let mut short = Vec::new();
    for definition in definitions() {
        let size = definition.crd.to_string().len();
        assert!(size < 200_000, "{}: {size} bytes", definition.kind);
        let spec = &definition.crd["spec"];
        assert_eq!(spec["group"], super::GROUP);
        assert_eq!(spec["scope"], "Namespaced");
        assert_eq!(spec["names"]["categories"], json!(["mcp"]));
        assert_eq!(spec["versions"][0]["name"], super::VERSION);
        short.push(spec["names"]["shortNames"][0].as_str().unwrap().to_owned());
    }
    assert_eq!(short, ["mcpg", "mcpr", "mcps", "mcpt"]);
}

/// What the rules of a kind say about an object that was another before.
fn failures(kind: &str, name: &str, new: &Value, old: Option<&Value>) -> Vec<String> {
    let object = |spec: &Value| json!({"metadata": {"name": name}, "spec": spec});
    let validator = kube_cel::Validator::new();
    match validator.validate(definition(kind).schema(), &object(new), old.map(object).as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|error| error.message.clone()).collect(),
    }
}

/// For that one reason and no other: an object that is wrong twice shows nothing about a rule.
fn is_refused(kind: &str, name: &str, new: &Value, old: Option<&Value>, message: &str) {
    let failed = failures(kind, name, new, old);
    assert!(failed.len() == 1 && failed[0].contains(message), "{kind} {name} {new}: {failed:?}");
}

#[test]
fn every_rule_holds_and_breaks_where_it_should() {
    for Case { kind, message, holds, breaks } in cases() {
        assert_eq!(failures(kind, "a", &holds, None), Vec::<String>::new(), "{kind}: {holds}");
        is_refused(kind, "a", &breaks, None, message);
    }
}

#[test]
fn every_rule_about_a_change_holds_and_breaks_where_it_should() {
    for Change { kind, message, before, holds, breaks } in changes() {
        assert_eq!(failures(kind, "a", &holds, Some(&before)), Vec::<String>::new(), "{kind}: {holds}");
        is_refused(kind, "a", &breaks, Some(&before), message);
    }
}

#[test]
fn every_rule_about_names_holds_and_breaks_where_it_should() {
    for Naming { kind, message, spec, holds, breaks } in namings() {
        for name in holds {
            assert_eq!(failures(kind, &name, &spec, None), Vec::<String>::new(), "{kind}: {name}");
        }
        for name in breaks {
            is_refused(kind, &name, &spec, None, message);
        }
    }
}

/// A rule without a case would be unseen by the tests above, and by those that ask the API server.
#[test]
fn no_rule_is_without_a_case() {
    let tested: Vec<(&str, &str)> = cases()
        .iter()
        .map(|case| (case.kind, case.message))
        .chain(changes().iter().map(|change| (change.kind, change.message)))
        .chain(namings().iter().map(|naming| (naming.kind, naming.message)))
        .collect();
    let mut rules = 0;
    each_schema(|path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().unwrap_or_else(|| panic!("{path}: a rule without a message"));
            let kind = path.split('.').next().unwrap();
            assert!(tested.iter().any(|(of, part)| *of == kind && message.contains(part)), "{path}: {message}");
            rules += 1;
        }
    });
    assert!(rules > 0, "the definitions have no rule");
}

/// Every definition as the text of its file.
fn rendered() -> impl Iterator<Item = (String, String)> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    definitions().into_iter().map(move |definition| {
        let yaml = serde_saphyr::to_string_with_options(&definition.crd, options.clone()).unwrap();
        (format!("toolgate.dev_{}.yaml", definition.plural), format!("# Written by `make crds`.\n{yaml}"))
    })
}

/// With `WRITE_CRDS` in the environment it writes them: that is what `make crds` does.
#[test]
fn the_definitions_in_the_repository_are_those_of_the_types() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    if std::env::var_os("WRITE_CRDS").is_some() {
        rendered().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        return;
    }
    let mut files: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, FILES.map(|(name, _)| name));
    assert_eq!(files, rendered().map(|(name, _)| name).collect::<Vec<_>>());
    for ((name, text), (_, shipped)) in rendered().zip(FILES) {
        assert!(shipped == text, "crds/{name} differs from the types: run `make crds`");
    }
}

#[test]
fn the_yaml_says_the_same_as_the_definition() {
    for ((_, text), definition) in FILES.into_iter().zip(definitions()) {
        let read: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(read, definition.crd);
    }
}

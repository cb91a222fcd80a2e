//! PURE. The catalogue ConfigMap: all that a server offers, for people and for `toolgate adopt`.
//!
//! A status holds the first 64 undeclared tools; this holds every tool, up to a bound that a ConfigMap can bear.

use serde_json::{Value, json};

use crate::policyserver::fleet::Offer;

/// Most bytes of the text; a ConfigMap holds 1 MiB.
const BYTES: usize = 900 << 10;
/// Most bytes of a name or digest that are shown: longer ones are no names that policy can match.
const NAME: usize = 256;

/// The catalogue as JSON, one tool a line.
pub(super) fn text(offer: &Offer) -> String {
    let head = json!({
        "name": shortened(&offer.name),
        "version": shortened(&offer.version),
        "prompts": offer.prompts,
        "resources": offer.resources,
        "error": offer.error.as_deref().map(shortened),
        "offered": offer.tools.len(),
    });
    let mut text = format!("{{\"server\":{head},\n\"tools\":[");
    let mut shown = 0;
    for tool in offer.tools.iter().filter(|tool| tool.name.len() <= NAME) {
        let line = json!({"name": tool.name, "definitionDigest": shortened(&tool.digest)}).to_string();
        if text.len() + line.len() > BYTES {
            break;
        }
        text.push_str(if shown == 0 { "\n" } else { ",\n" });
        text.push_str(&line);
        shown += 1;
    }
    text.push_str("],\n\"isComplete\":");
    text.push_str(&Value::Bool(shown == offer.tools.len() && offer.error.is_none()).to_string());
    text.push_str("}\n");
    text
}

fn shortened(text: &str) -> &str {
    let end = (0..=NAME.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policyserver::fleet::OfferedTool;

    fn offer(names: impl IntoIterator<Item = String>) -> Offer {
        let tools = names.into_iter().map(|name| OfferedTool { name, digest: format!("sha256:{}", "0".repeat(64)) });
        Offer { tools: tools.collect(), ..Offer::default() }
    }

    #[test]
    fn every_tool_of_a_large_server_is_shown() {
        let text = text(&offer((0..5000).map(|index| format!("tool_{index:04}"))));

        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["tools"].as_array().unwrap().len(), 5000);
        assert_eq!((&read["isComplete"], &read["server"]["offered"]), (&json!(true), &json!(5000)));
        assert!(text.len() <= BYTES + 64);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_that_is_said() {
        let text = text(&offer((0..20_000).map(|index| format!("{index:0100}"))));

        let read: Value = serde_json::from_str(&text).unwrap();
        assert!(text.len() <= BYTES + 64, "{}", text.len());
        assert_eq!((&read["isComplete"], &read["server"]["offered"]), (&json!(false), &json!(20_000)));
        let long: Value = serde_json::from_str(&super::text(&offer(["x".repeat(300)]))).unwrap();
        assert_eq!((&long["isComplete"], long["tools"].as_array().unwrap().len()), (&json!(false), 0));
    }
}

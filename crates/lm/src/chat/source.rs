//! A template's source before it is compiled.

/// The template that counts: of a JSON list of named ones that with the name `default`, or else the text itself.
pub(super) fn default_of(source: &str) -> Result<String, String> {
    if !source.trim_start().starts_with('[') {
        return Ok(source.into());
    }
    // A template may itself begin with a bracket, as in "[INST]".
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(source) else { return Ok(source.into()) };
    let text = |entry: &serde_json::Value, key: &str| entry.get(key)?.as_str().map(String::from);
    let found = list.iter().find(|entry| text(entry, "name").as_deref() == Some("default"));
    found.and_then(|entry| text(entry, "template")).ok_or_else(|| {
        let names: Vec<String> = list.iter().filter_map(|entry| text(entry, "name")).collect();
        format!("none of its {} templates is named \"default\": {}", list.len(), names.join(", "))
    })
}

/// The source with the tags `generation` and `endgeneration` changed to a condition that is always true. They mark
/// the model's own text for training. What they strip around them stays stripped.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut changed = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        changed.push_str(before);
        rest = tag;
        let Some(end) = tag.find("%}") else { break };
        let body = &tag[..end];
        let word = body.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let plain = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => continue,
        };
        changed.push_str(&body.replacen(word, plain, 1));
        rest = &tag[end..];
    }
    changed.push_str(rest);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_conditions() {
        let source = "a {%- generation -%} b {% endgeneration %}{% if generation %}{% endif %}{{ '{%' }}";
        let expected = "a {%- if true -%} b {% endif %}{% if generation %}{% endif %}{{ '{%' }}";
        assert_eq!(without_generation_tags(source), expected);
        assert_eq!(without_generation_tags("{% generation"), "{% generation");
    }

    #[test]
    fn the_default_of_a_list_counts() {
        let list = r#" [{"name":"tool","template":"t"},{"name":"default","template":"d"}]"#;
        assert_eq!(default_of(list).unwrap(), "d");
        assert_eq!(default_of("[INST] x").unwrap(), "[INST] x");
        let none = default_of(r#"[{"name":"tool_use","template":"t"}]"#).unwrap_err();
        assert!(none.contains("tool_use"), "{none}");
    }
}

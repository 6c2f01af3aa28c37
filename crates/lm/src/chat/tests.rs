//! Templates in the manner of the families that are in use, and hostile ones.

use super::*;

fn names() -> BTreeMap<String, String> {
    let pairs = [("bos_token", "<s>"), ("eos_token", "</s>")];
    pairs.into_iter().map(|(name, token)| (name.into(), token.into())).collect()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, names()).unwrap()
}

fn chat(messages: &[(&'static str, &str)]) -> Vec<Message> {
    messages.iter().map(|(role, content)| Message::new(role, *content)).collect()
}

/// A conversation with a system prompt and two prompts.
fn whole() -> Vec<Message> {
    chat(&[("system", "Be brief."), ("user", " Hi "), ("assistant", "Yes?"), ("user", "Bye")])
}

fn rendered(source: &str, messages: &[(&'static str, &str)]) -> String {
    template(source).render(&chat(messages), true).unwrap()
}

/// The text of a template without messages.
fn plain(source: &str) -> String {
    rendered(source, &[])
}

fn refusal(source: &str) -> String {
    let refused = ChatTemplate::new(source, names()).and_then(|t| t.render(&chat(&[("user", "hi")]), true));
    match refused {
        Err(error) => error.to_string(),
        Ok(text) => panic!("not refused: {} bytes", text.len()),
    }
}

#[test]
fn marked_lines() {
    let source = "{% for m in messages %}\n    {% if loop.first and m.role != 'system' %}\n<|im_start|>system\nHelp.<|im_end|>\n    {% endif %}\n<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\n{% if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}";
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(template(source).render(&whole(), true).unwrap(), expected);
    let without = expected.strip_suffix("<|im_start|>assistant\n").unwrap();
    assert_eq!(template(source).render(&whole(), false).unwrap(), without);
    let lone = rendered(source, &[("user", "x")]);
    assert!(lone.starts_with("<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\nx"), "{lone}");
}

#[test]
fn bracketed_instructions() {
    let source = "{%- if messages[0]['role'] == 'system' -%}{%- set rest = messages[1:] -%}{%- set head = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}{%- else -%}{%- set rest = messages -%}{%- set head = '' -%}{%- endif -%}{%- for m in rest -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('Roles must alternate') }}{%- endif -%}{%- if m['role'] == 'user' -%}{{ bos_token + '[INST] ' + (head if loop.first else '') + m['content'].strip() + ' [/INST]' }}{%- else -%}{{ ' ' ~ m['content'] ~ ' ' ~ eos_token }}{%- endif -%}{%- endfor -%}";
    let expected = "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] Bye [/INST]";
    assert_eq!(template(source).render(&whole(), true).unwrap(), expected);
    let twice = template(source).render(&chat(&[("user", "a"), ("user", "b")]), true).unwrap_err();
    assert_eq!(twice.to_string(), "chat template, line 1: Roles must alternate");
}

#[test]
fn headers_with_a_date() {
    let source = "{{- bos_token }}\n{%- if strftime_now is defined %}\n    {%- set date = strftime_now('%d %b %Y') %}\n{%- else %}\n    {%- set date = 'never' %}\n{%- endif %}\n{%- if not tools is defined %}{%- set tools = none %}{%- endif %}\n{%- for m in messages %}\n    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}\n    {%- if loop.first %}{{- 'Today: ' + date + '\\n' }}{%- endif %}\n    {{- m['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n{%- if add_generation_prompt and tools is none %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n";
    let at = template(source).at(1_709_210_096);
    let expected = "<s><|start_header_id|>user<|end_header_id|>\n\nToday: 29 Feb 2024\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(at.render(&chat(&[("user", " Hi\n")]), true).unwrap(), expected);
}

#[test]
fn plain_markers() {
    let source = "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'system' %}\n{{ '<|system|>\\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + m['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";
    let expected = "<|system|>\nBe brief.</s>\n<|user|>\n Hi </s>\n<|assistant|>\nYes?</s>\n<|user|>\nBye</s>\n<|assistant|>\n";
    assert_eq!(template(source).render(&whole(), true).unwrap(), expected);
}

#[test]
fn the_system_prompt_in_the_last_prompt() {
    let source = "{%- if messages[0].role == \"system\" %}{%- set system = messages[0].content %}{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}{%- set ns = namespace(last=0) %}{%- for m in turns %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{{- bos_token }}{%- for m in turns %}{%- if m.role == 'user' %}{%- if system is defined and loop.index0 == ns.last %}{{- '[INST]' + system + '\\n\\n' + m.content + '[/INST]' }}{%- else %}{{- '[INST]' + m.content + '[/INST]' }}{%- endif %}{%- else %}{{- m.content + eos_token }}{%- endif %}{%- endfor %}";
    let expected = "<s>[INST] Hi [/INST]Yes?</s>[INST]Be brief.\n\nBye[/INST]";
    assert_eq!(template(source).render(&whole(), true).unwrap(), expected);
}

#[test]
fn no_system_role() {
    let source = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system \\x1b role') }}{% endif %}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}{{ '<start_of_turn>' + role + '\\n' + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}";
    let messages = [("user", " a "), ("assistant", "b"), ("user", "c")];
    let expected = "<s><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n<start_of_turn>user\nc<end_of_turn>\n<start_of_turn>model\n";
    assert_eq!(rendered(source, &messages), expected);
    let refused = template(source).render(&whole(), true).unwrap_err().to_string();
    assert_eq!(refused, r"chat template, line 1: No system \u{1b} role");
}

#[test]
fn short_ends() {
    let source = "{% for m in messages %}{% if m['role'] == 'system' and m['content'] %}{{ '<|system|>\\n' + m['content'] + '<|end|>\\n' }}{% elif m['role'] == 'user' %}{{ '<|user|>\\n' + m['content'] + '<|end|>\\n' }}{% elif m['role'] == 'assistant' %}{% generation %}{{ '<|assistant|>\\n' + m['content'] + '<|end|>\\n' }}{% endgeneration %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}";
    let expected = "<|system|>\nBe brief.<|end|>\n<|user|>\n Hi <|end|>\n<|assistant|>\nYes?<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n";
    assert_eq!(template(source).render(&whole(), true).unwrap(), expected);
}

#[test]
fn thoughts_are_stripped() {
    let source = "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(system='') %}{%- for m in messages %}{%- if m['role'] == 'system' %}{% set ns.system = m['content'] %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}{%- for m in messages %}{%- if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{%- endif %}{%- if m['role'] == 'assistant' and m['content'] is not none %}{% set content = m['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ '<｜Assistant｜>' + content + '<｜end｜>' }}{%- endif %}{%- endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}";
    let messages = [("user", "a"), ("assistant", "<think>x</think>\n\nb"), ("user", "c")];
    let expected = "<s><｜User｜>a<｜Assistant｜>b<｜end｜><｜User｜>c<｜Assistant｜><think>\n";
    assert_eq!(rendered(source, &messages), expected);
}

#[test]
fn loops_have_controls_and_mappings_their_order() {
    let source = "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}";
    assert_eq!(plain(source), "0134");
    let source = "{% set d = {'z': 1, 'a': [true, none], 'm': {}} %}{{ d | tojson }}|{{ d | tojson(indent=2) }}|{% for k, v in d.items() %}{{ k }}{% endfor %}{{ d.keys() | list | join('-') }}{{ d.get('q', 'x') }}{{ d.get('q') }}";
    let expected = "{\"z\": 1, \"a\": [true, null], \"m\": {}}|{\n  \"z\": 1,\n  \"a\": [\n    true,\n    null\n  ],\n  \"m\": {}\n}|zamz-a-mxNone";
    assert_eq!(plain(source), expected);
    assert_eq!(plain("{{ 'é<\\'\"' | tojson }}{{ 1.5 | tojson }}"), "\"é<'\\\"\"1.5");
}

#[test]
fn texts_have_pythons_methods() {
    let cases = [
        ("' a '.strip() + '|' + 'xxa'.lstrip('x') + 'ab\\n'.rstrip()", "a|aab"),
        ("'ab'.startswith('a') and 'ab'.endswith(('b', 'c'))", "True"),
        ("'a,b,c'.split(',')", "['a', 'b', 'c']"),
        ("'a,b,c'.split(',', 1)[-1]", "b,c"),
        ("'aXa'.replace('a', 'b').upper() ~ 'AB'.lower() ~ 'ab cd'.title()", "BXBabAb Cd"),
        ("'abcdef'[1:-1] ~ 'abcdef'[::-2] ~ 'abc'[-1]", "bcdefdbc"),
        ("[1, 2, 3][::-1] + [0]", "[3, 2, 1, 0]"),
        ("'ab' * 2 ~ 3 * 1.5 ~ (2 + true)", "abab4.53"),
        ("'{}-{}'.format('a', 1) ~ '%s' | format('x')", "a-1x"),
        ("('a' in 'cat') ~ ('a' in ['b']) ~ ('k' in {'k': 1}) ~ (1 not in [2])", "TrueFalseTrueTrue"),
        ("(none is iterable) ~ ('s' is sequence) ~ ([] is iterable)", "FalseTrueTrue"),
        ("[{'r': 1}, {'r': 2}] | selectattr('r', 'equalto', 2) | list | length", "1"),
        ("messages is defined and tools is none and documents is none and nothing is not defined", "True"),
        ("none ~ undefined_name ~ [none, 'a\\'']", "None[None, \"a'\"]"),
    ];
    for (expression, expected) in cases {
        assert_eq!(plain(&format!("{{{{ {expression} }}}}")), expected, "{expression}");
    }
}

#[test]
fn contents_are_never_read_as_a_template() {
    for content in ["{{ 7 * 7 }}", "{% raw %}", "{# x #}", "\u{0}\u{fdd0}\u{fdd1}", "", "\"'\\", "  "] {
        assert_eq!(rendered("{{ messages[0].content }}.", &[("user", content)]), format!("{content}."));
    }
}

#[test]
fn a_mistake_has_its_line() {
    let refused = refusal("a\nb {% if %}\n");
    assert!(refused.starts_with("chat template, line 2: "), "{refused}");
    let template = ChatTemplate::new("a\n\n{{ messages[0].x.y }}", names()).unwrap();
    let refused = template.from_file(Path::new("m/t.jinja")).render(&whole(), true).unwrap_err().to_string();
    assert!(refused.starts_with("m/t.jinja: chat template, line 3: "), "{refused}");
    assert!(refusal("{% include 'x' %}").contains("line 1"));
    assert!(refusal("{{ raise_exception(3) }}").contains("it refuses with a number"));
}

#[test]
fn a_source_has_a_limit() {
    let refused = refusal(&"x".repeat(SOURCE_BYTES_MAX + 1));
    assert!(refused.contains("more than 131072"), "{refused}");
}

/// Each of these would take the whole machine's time, memory or stack.
#[test]
fn hostile_templates_are_refused() {
    let nest = "{% set ns = namespace(x=[]) %}{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    let double =
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x OP %}{% endfor %}";
    let cases: [(&str, &str); 23] = [
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "instructions"),
        ("{% for a in range(999999999) %}{% endfor %}", "more than 10000 elements"),
        ("{{ range(0, 9223372036854775807, 1) }}", "more than 10000 elements"),
        ("{{ 'a' * 99999999999 }}", "too much text"),
        ("{{ 99999999 * 'ab' }}", "too much text"),
        ("{{ ([1] * 9223372036854775807) | length }}", "too much text"),
        (&"{{ 'a' * 99999999 }}".repeat(999), "too much text"),
        (&double.replace("OP", "~ ns.x"), "too much text"),
        (&double.replace("OP", "+ ns.x"), "too much text"),
        (&double.replace("ns.x OP", "ns.x.replace('a', ns.x)"), "too much text"),
        (&double.replace("ns.x OP", "ns.x | replace('b', ns.x)"), "too much text"),
        (&double.replace("ns.x OP", "ns.x.join([ns.x, ns.x, ns.x])"), "too much text"),
        (&double.replace("ns.x OP", "[ns.x, ns.x]"), "nested more than 64 deep|more than 10000 elements"),
        (nest, "nested more than 64 deep"),
        (
            "{% set a = namespace() %}{% set b = namespace() %}{% set a.x = b %}{% set b.x = a %}{{ a == b }}",
            "nested more than|more than 10000",
        ),
        ("{% set a = namespace() %}{% set a.x = a %}{{ a }}{{ a | tojson }}", "nested more than"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion|stack"),
        ("{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}", "recursion|stack"),
        ("{{ '%999999999d' | format(1) }}", "digits"),
        ("{{ '{:>999999999}'.format(1) }}", "digits"),
        ("{{ 'a' | indent(99999999999) }}{{ 'a\\nb' | indent(99999999999) }}", "too much text"),
        ("{% set x %}{% for i in range(9000) %}{{ 'a' * 99999 }}{% endfor %}{% endset %}", "too much text"),
        ("{{ 'a' * 9999999 }}", "more than 4194304"),
    ];
    for (source, expected) in cases {
        let refused = refusal(source);
        assert!(expected.split('|').any(|part| refused.contains(part)), "{source}: {refused}");
    }
    let raw = format!("{{% for i in range(9000) %}}{}{{% endfor %}}", "x".repeat(100_000));
    assert!(refusal(&raw).contains("instructions"));
}

/// The compiler calls itself for each part of an expression.
#[test]
fn long_and_deep_expressions_end() {
    for part in
        ["(", "[", "-", "not ", "{'a':", "a~", "1+", "a*", "x.a.", "a[0]", "a|d", "a if ", "a(", "a==", "[]+"]
    {
        let count = (SOURCE_BYTES_MAX - 100) / part.len();
        for end in ["", "a", "1"] {
            let source = format!("{{{{ {}{end} }}}}", part.repeat(count));
            let made = ChatTemplate::new(&source, names()).and_then(|t| t.render(&whole(), true));
            assert!(made.is_ok() || made.unwrap_err().to_string().contains("chat template"), "{part}");
        }
    }
}

/// A value that nobody compares or writes may be nested as deep as there are instructions.
#[test]
fn deep_values_are_freed() {
    let nest = "{% set ns = namespace() %}{% for i in range(4000) %}{% set ns.x = WRAP %}{% endfor %}.";
    for wrap in
        ["namespace(x=ns.x)", "dict(x=ns.x)", "cycle(ns.x) if cycle is defined else namespace(x=[ns])"]
    {
        let made = ChatTemplate::new(&nest.replace("WRAP", wrap), names()).unwrap().render(&[], true);
        assert!(made.is_ok() || made.unwrap_err().to_string().contains("nested more than"), "{wrap}");
    }
}

/// Any cut of a template is refused or rendered.
#[test]
fn no_text_panics() {
    let source = "{%- for m in messages -%}{{ m['content'][1:2] | tojson(indent=3) ~ {'a': [1, -2.5]} }}{% endfor %}{# é #}";
    for (at, _) in source.char_indices() {
        for part in [&source[..at], &source[at..]] {
            let made = ChatTemplate::new(part, names()).and_then(|t| t.render(&whole(), true));
            assert!(made.is_ok() || made.unwrap_err().to_string().contains("chat template"));
        }
    }
}

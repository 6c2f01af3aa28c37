"""Chat templates: the ids of our rendering must be those of transformers' `apply_chat_template`, or both must refuse
the conversation.

    templates.py --ids PROGRAM --sources FOLDER --work FOLDER [--break] [--only WORD]

The families have the tokenizer that their models have or one of the same kind, with the control tokens that the
template writes. The other templates of the source package are tried with one tokenizer for all.
"""

import argparse
import ast
import json
import re
import sys
from collections import Counter
from pathlib import Path

import ours
from jinja2.exceptions import TemplateError
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

# Llama 2's form, of which the sources have no template: blanks inside of the brackets, the end before the next turn.
LLAMA_2 = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set system = '<<SYS>>\\n' + messages[0]['content'] | trim + '\\n<</SYS>>\\n\\n' -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set system = '' -%}{%- set turns = messages -%}{%- endif -%}
{%- for message in turns -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('roles must alternate') }}{%- endif -%}
{%- if message['role'] == 'user' -%}
{{- bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' -}}
{%- else -%}{{- ' ' + message['content'].strip() + ' ' + eos_token -}}{%- endif -%}
{%- endfor -%}
"""

# Family, tokenizer, template: a file, a constant of llama_chat_format.py, or None for the tokenizer's own.
FAMILIES = [
    ("Llama 2", "llama2", LLAMA_2),
    ("Mistral 7B", "llama2", "MISTRAL_INSTRUCT_CHAT_TEMPLATE"),
    ("Mistral Nemo", "gpt4o", "mistralai-Mistral-Nemo-Instruct-2407.jinja"),
    ("Mistral Small 3.2", "gpt4o", "Mistral-Small-3.2-24B-Instruct-2506.jinja"),
    ("Llama 3.1", "llama3_1", "meta-llama-Llama-3.1-8B-Instruct.jinja"),
    ("Llama 3.2", "llama3_1", "meta-llama-Llama-3.2-3B-Instruct.jinja"),
    ("Hermes 3", "llama3_1", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja"),
    ("SmolLM 3", "llama3_1", "HuggingFaceTB-SmolLM3-3B.jinja"),
    ("Qwen 2.5", "qwen3", "Qwen-Qwen2.5-7B-Instruct.jinja"),
    ("Qwen 3", "qwen3", None),
    ("Phi 3.5", "llama2", "microsoft-Phi-3.5-mini-instruct.jinja"),
    ("Gemma 2", "gemini", "google-gemma-2-2b-it.jinja"),
    ("Gemma 3", "gemma3", None),
    ("GPT-OSS", "gptoss", "openai-gpt-oss-120b.jinja"),
    ("DeepSeek V3", "deepseek_v3", None),
    ("Granite 3.3", "gpt4o", "ibm-granite-granite-3.3-2B-Instruct.jinja"),
    ("Command R+", "gpt4o", "CohereForAI-c4ai-command-r-plus-tool_use.jinja"),
]
# Fewest conversations that a family's template must write; some take no system prompt.
WRITTEN_MIN = 6
# Tokenizer for the other templates.
OTHERS = "llama3_1"

SYSTEM = "You are terse. Answer in one line."
# HTML without the spelling of a control token, which stays text for us and doesn't for transformers.
CODE = "fn main() {\n\tprintln!(\"{{ not }} {% a %} {# template #}\");\n}\n\\n 'quoted' \"twice\" <b>&amp;</b>\n"
CONVERSATIONS = {
    "a line": [("user", "Hello")],
    "a system prompt": [("system", SYSTEM), ("user", "Which is the largest ocean?")],
    "a second turn": [("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "Count to 3.")],
    "four turns": [
        ("system", SYSTEM),
        ("user", "1 + 1?"),
        ("assistant", "2"),
        ("user", "And doubled?"),
        ("assistant", "4"),
        ("user", "Again."),
        ("assistant", "8"),
        ("user", "Stop?"),
    ],
    "other scripts": [("user", "Grüße, 你好 мир — שלום 🦆👩‍🚀 e\u0301 ﬁ ½ \u200b\u00a0 １２")],
    "blanks": [("user", "  two before, two after  "), ("assistant", "\n\n a \n"), ("user", "\tb\r\n\r\n c\n\n\n")],
    "code": [("user", CODE), ("assistant", CODE), ("user", "Shorter: " + CODE)],
    "digits and long words": [("user", "3.14159 1000000 2²" + " ab" * 200 + "x" * 300)],
}
assert len(CONVERSATIONS) == 8

CONTROL = re.compile(r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>\s]{1,40}｜>|\[/?[A-Z_]{3,24}\]|</?(?:start|end)_of_[a-z]+>|<\|?[A-Z]+_[A-Z_]+\|?>")


def template_text(sources, name, tokenizer):
    if name is None:
        config = json.loads((sources / tokenizer / "tokenizer_config.json").read_text())
        return config["chat_template"]
    if name.endswith(".jinja"):
        return (sources / "llama.cpp/models/templates" / name).read_text()
    if not name.endswith("_TEMPLATE"):
        return name
    tree = ast.parse((sources / "llama.cpp/llama_cpp/llama_chat_format.py").read_text())
    constants = [node for node in tree.body if isinstance(node, ast.Assign)]
    return next(node.value.value for node in constants if node.targets[0].id == name)


class Model:
    """A folder with tokenizer and template, and transformers' tokenizer of it."""

    def __init__(self, sources, work, name, base, template):
        self.name = name
        self.folder = work / re.sub(r"\W+", "-", name.lower())
        self.folder.mkdir(parents=True, exist_ok=True)
        config = json.loads((sources / base / "tokenizer_config.json").read_text())
        text = template_text(sources, template, base)
        made = Tokenizer.from_file(str(sources / base / "tokenizer.json"))
        known = made.get_vocab()
        control = sorted(token for token in set(CONTROL.findall(text)) if token not in known)
        made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
        named = {key: spelling(config.get(key)) for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
        named = {key: token for key, token in named.items() if token}
        made.save(str(self.folder / "tokenizer.json"))
        (self.folder / "tokenizer_config.json").write_text(json.dumps(named))
        (self.folder / "chat_template.jinja").write_text(text)
        self.theirs = PreTrainedTokenizerFast(tokenizer_object=made, chat_template=text, **named)

    def expected(self, messages):
        """The ids and the text of transformers, or none for a conversation that the template refuses."""
        try:
            return self.applied(messages, None)
        except TypeError:
            # A template for tools goes through a list of them, and fails in Python if there is none.
            return self.applied(messages, [])
        except TemplateError as error:
            return None, str(error)

    def applied(self, messages, tools):
        given = {"add_generation_prompt": True, "tools": tools}
        text = self.theirs.apply_chat_template(messages, tokenize=False, **given)
        return self.theirs.apply_chat_template(messages, return_dict=False, **given), text


def spelling(token):
    return token["content"] if isinstance(token, dict) else token


def messages_of(conversation):
    return [{"role": role, "content": content} for role, content in conversation]


def difference(one, other):
    place = next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    start = max(0, place - 40)
    return f"at {place}: theirs {one[start:place + 60]!r}, ours {other[start:place + 60]!r}"


def compare(model, conversation, answer, damaged):
    """Kind of result, and words for it."""
    ids, text = model.expected(messages_of(conversation))
    if ids is not None and damaged:
        ids = [*ids[:-1], ids[-1] + 1]
    if ids is None:
        return ("refused by both", answer["error"]) if "error" in answer else ("different", f"transformers refuses it: {text}")
    if "error" in answer:
        return "refused", answer["error"]
    if answer["ids"] == ids:
        return "equal", ""
    if answer["text"] != text:
        return "different", f"text differs {difference(text, answer['text'])}"
    return "different", f"ids differ {difference(ids, answer['ids'])}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ids", type=Path, required=True)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--break", dest="damaged", action="store_true", help="change one id: everything must differ")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    sources, work = arguments.sources.resolve(), arguments.work.resolve()
    used = {template for _, _, template in FAMILIES}
    files = sorted(path.name for path in (sources / "llama.cpp/models/templates").glob("*.jinja"))
    others = [(name.removesuffix(".jinja"), OTHERS, name) for name in files if name not in used]
    done = failed = 0
    for group, must in ((FAMILIES, True), (others, False)):
        for family in group:
            if arguments.only.lower() not in family[0].lower():
                continue
            model = Model(sources, work, *family)
            requests = [{"model": str(model.folder), "messages": messages_of(c)} for c in CONVERSATIONS.values()]
            results = [
                (name, *compare(model, conversation, answer, arguments.damaged))
                for (name, conversation), answer in zip(CONVERSATIONS.items(), ours.answers(arguments.ids, requests))
            ]
            done += 1
            counts = Counter(kind for _, kind, _ in results)
            # A family must be written, not only refused by both.
            failed += bool(counts["different"] or (must and (counts["refused"] or counts["equal"] < WRITTEN_MIN)))
            print(f"{model.name}: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()), flush=True)
            for name, kind, words in results:
                if kind != "equal":
                    print(f"    {name}: {kind}, {words[:400]}", flush=True)
    print(f"{done - failed} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

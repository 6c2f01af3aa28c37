"""The tokenizer and chat template of a model folder."""

from pathlib import Path

import jinja2
from tokenizers import Tokenizer

STOP = 2  # <|im_end|>


class Chat:
    def __init__(self, folder):
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.template = jinja2.Template((Path(folder) / "chat_template.jinja").read_text())

    def ids(self, prompt):
        """One user turn → the ids up to the reply."""
        messages = [{"role": "user", "content": prompt}]
        text = self.template.render(messages=messages, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def opening(self):
        """The ids up to the first word of a user turn."""
        text = self.template.render(messages=[{"role": "user", "content": "\x00"}], add_generation_prompt=False)
        return self.tokenizer.encode(text.split("\x00")[0], add_special_tokens=False).ids

    def text(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)

"""Completion in bash, which takes `zoo.train=8` for three words."""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import BashComplete, CompletionItem, split_arg_string


class BashWithEquals(BashComplete):
    """Words around `=` are joined again; completions leave out what stands before it."""

    answered = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        words, position = split_arg_string(os.environ["COMP_WORDS"]), int(os.environ["COMP_CWORD"])
        joined: list[str] = []
        for word in words[: position + 1]:
            if joined and (word == "=" or joined[-1].endswith("=")):
                joined[-1] += word
            else:
                joined.append(word)
        last_is_typed = len(words) > position or joined[-1].endswith("=")  # an empty last word is not among them
        last_word = joined.pop() if last_is_typed else ""
        if last_is_typed and "=" not in (words[position] if len(words) > position else "").strip("="):
            self.answered = last_word[: last_word.rfind("=") + 1]
        return joined[1:], last_word

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A completion, as bash reads it."""
        return f"{item.type},{item.value.removeprefix(self.answered)}"

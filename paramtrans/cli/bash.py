"""Completion in bash, which takes `zoo.train=8` for three words."""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import BashComplete, CompletionItem, split_arg_string


class BashWithEquals(BashComplete):
    """Words around `=` are put together again; what stands before it is not answered a second time."""

    answered = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, place = split_arg_string(os.environ["COMP_WORDS"]), int(os.environ["COMP_CWORD"])
        joined: list[str] = []
        for word in words[: place + 1]:
            if joined and (word == "=" or joined[-1].endswith("=")):
                joined[-1] += word
            else:
                joined.append(word)
        at_hand = len(words) > place or joined[-1].endswith("=")  # an empty last word is not among them
        last = joined.pop() if at_hand else ""
        if at_hand and "=" not in (words[place] if len(words) > place else "").strip("="):
            self.answered = last[: last.rfind("=") + 1]
        return joined[1:], last

    def format_completion(self, item: CompletionItem[Any]) -> str:
        return f"{item.type},{item.value.removeprefix(self.answered)}"

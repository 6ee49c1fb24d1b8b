"""Numbers of things in messages: one block, two blocks."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number with what is counted, in the singular where it is one.

    Args:
        number: How many there are.
        noun: What one of them is called, with what stands before it ("report host"), or behind ("group of units").

    >>> counted(1, "block"), counted(1200, "test image"), counted(2, "group of units")
    ('1 block', '1,200 test images', '2 groups of units')
    """
    head, joint, rest = noun.partition(" of ")
    return f"{number:,} {head}{'' if number == 1 else 's'}{joint}{rest}"

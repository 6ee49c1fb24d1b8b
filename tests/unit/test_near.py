"""Near names: what is said of a name that there is not."""

from __future__ import annotations

import pytest

from paramtrans.errors import UnknownName
from paramtrans.plugins.manager import components
from paramtrans.utils.near import did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "otherwise", "said"),
    [
        ("mixr", "", '; did you mean "mixer"?'),
        ("mixr", "known: mixer", '; did you mean "mixer"?'),
        ("zzz", "known: mixer", "; known: mixer"),
        ("zzz", "", ""),
    ],
)
def test_the_nearest_name_is_asked_for_or_what_else_there_is_to_say(name: str, otherwise: str, said: str) -> None:
    assert did_you_mean(name, {"mixer", "mlp"}, otherwise) == said


def test_nothing_is_near_among_none() -> None:
    assert nearest("mixer", ()) is None


def test_one_of_your_own_is_had_on_the_command_line_and_in_python() -> None:
    with pytest.raises(UnknownName, match=r"name its file \(--plugin FILE; in Python registry=\)"):
        components().load("block_adapter", "quite_another")

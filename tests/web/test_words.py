"""What the pages say: whatever can stand in a ledger has words in each language, and numbers are as one writes them."""

from __future__ import annotations

import pytest

from auditor.core.gaps import GapReason
from auditor.core.hops import Reason, State
from auditor.web.words import Words

EN, RU = Words("en"), Words("ru")


def test_each_state_and_each_reason_has_words() -> None:
    assert [state for state in State if RU.state(state) == state] == []
    assert [reason for reason in Reason if RU.reason(reason) == reason or not RU.advice(reason)] == []
    assert [reason for reason in GapReason if RU.gap(reason) == reason] == []


@pytest.mark.parametrize(
    ("seconds", "english", "russian"),
    [
        (None, "–", "–"),
        (0.0042, "4.2 ms", "4,2 мс"),
        (0.42, "420 ms", "420 мс"),
        (42, "42.0 s", "42,0 с"),
        (66, "1 min 6 s", "1 мин 6 с"),
        (660, "11 min", "11 мин"),
        (3 * 3600, "3 h", "3 ч"),
        (100 * 3600 + 600, "4 d 4 h", "4 д 4 ч"),
        (-66, "−1 min 6 s", "−1 мин 6 с"),
    ],
)
def test_a_length_of_time_has_two_units_at_most(seconds: float | None, english: str, russian: str) -> None:
    assert [w.span(seconds).replace("\u00a0", " ") for w in (EN, RU)] == [english, russian]


def test_all_is_only_said_of_all() -> None:
    assert [EN.share(share) for share in (1.0, 0.999999, 0.5)] == ["100%", "99.99%", "50.00%"]
    assert RU.share(0.999999).replace("\u00a0", " ") == "99,99 %"

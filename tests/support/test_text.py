"""Numbers as text."""

import math

import pytest

from support import text


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        (text.percent(0.9426), "94.3\u00a0%"),
        (text.percent(None), "–"),
        (text.percent(math.nan), "–"),
        (text.decimal(0.98765), "0.988"),
        (text.points(-0.0253), "−2.5"),
        (text.points(0.0004), "0.0"),
        (text.points(0.021), "+2.1"),
        (text.points(None), "–"),
        (text.thousands(1234.5), "1,234"),
        (text.interval(None), "–"),
        (text.interval([0.9, 0.9876]), "0.900–0.988"),
        (text.interval((0.928, 0.956), text.percent), "92.8–95.6\u00a0%"),
        (text.estimate(0.5, None, text.percent), "50.0\u00a0%"),
        (
            text.estimate(0.5, (0.4, 0.6), text.percent),
            "50.0\u00a0% (40.0–60.0\u00a0%)",
        ),
        (text.duration(3725), "1\u00a0h 2\u00a0min"),
        (text.duration(61.6), "1\u00a0min 2\u00a0s"),
        (text.option(False), "false"),
        (text.option((0.5, "a")), "0.5,a"),
        (text.option(""), "–"),
    ],
)
def test_numbers_as_text(formatted, expected):
    assert formatted == expected

"""How much work fits into a given time."""

import dataclasses
import math
import re
from collections.abc import Sequence

from support.errors import usage_error

_UNITS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
#: More rounds than these tell little; a shorter turn is mostly its start and end.
_MOST_ROUNDS, _LEAST_TURN = 5, 0.3


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the time is shared.

    Attributes:
      rounds: measured ones; in each, every case has one turn.
      turn_seconds: length of a turn; a case that cannot do less takes longer.
      fits: whether all of it is expected to end in time.
    """

    rounds: int
    turn_seconds: float
    fits: bool


def parse_duration(text: str, flag: str) -> float:
    """Seconds of "60s", "5m" or "1h"; a number alone is seconds.

    Raises:
      UserError: it is no duration above 0 (exit 2).
    """
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not seconds > 0:
        raise usage_error(
            f"--{flag}={text} is no duration above 0.",
            f"Write it like --{flag}=60s or --{flag}=5m.",
        )
    return seconds


def plan(costs: Sequence[float], seconds: float) -> Plan:
    """Shares what is left of the time: turns of one length, as many rounds as fit.

    Args:
      costs: of each case, the seconds that the least it can do takes.
      seconds: what is left, for all rounds together.
    """
    for rounds in range(_MOST_ROUNDS, 0, -1):
        turn = _turn(costs, seconds / rounds)
        if turn >= _LEAST_TURN:
            return Plan(rounds, turn, True)
    fits = sum(max(cost, _LEAST_TURN) for cost in costs) <= seconds
    return Plan(1, max(_turn(costs, seconds), _LEAST_TURN), fits)


def _turn(costs: Sequence[float], seconds: float) -> float:
    """The length t for which the sum of max(t, cost) is `seconds`; below 0: none."""
    longer = sorted(costs, reverse=True)
    turn = math.inf
    for taken, cost in enumerate(longer):
        turn = (seconds - sum(longer[:taken])) / (len(longer) - taken)
        if turn >= cost:
            return turn
    return min(turn, 0.0)

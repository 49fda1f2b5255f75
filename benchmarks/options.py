"""Options of every benchmark and what is refused."""

import dataclasses
import math
from collections.abc import Sequence

from support import command
from support.errors import did_you_mean, usage_error

#: Ranges of options, see `Options`.
POSITIVE, SECONDS = (1, math.inf), (0.01, math.inf)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every benchmark. Refuses numbers outside their ranges (exit 2)."""

    rounds: int = command.option(5, "Measured rounds; one more warms up.", POSITIVE)
    write: bool = command.option(False, "Write the result to benchmarks/results.")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            low, high = field.metadata["within"] or (-math.inf, math.inf)
            values = getattr(self, field.name)
            values = values if isinstance(values, tuple) else (values,)
            if field.metadata["within"] and not (
                values and all(low <= value <= high for value in values)
            ):
                raise usage_error(
                    f"--{field.name}={','.join(map(str, values))} is out of range.",
                    f"Choose {low} or more."
                    if high == math.inf
                    else f"Choose from {low}..{high}.",
                )


def check_choices(flag: str, values: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError (exit 2) unless there are values and all of them are known."""
    for value in values or ("",):
        if value not in known:
            raise usage_error(
                f"--{flag}={value} is none of {', '.join(known)}.",
                did_you_mean(value, known),
            )

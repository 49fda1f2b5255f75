"""The table of `make faults`: one row for each kind of fault."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of fault.

    Attributes:
      fault: in words.
      tried: how often it was caused.
      lost: a sentence on each time that a user would have lost something.
      user_sees: what the program says or does, in words.
    """

    fault: str
    tried: int
    lost: list[str]
    user_sees: str

    def __str__(self) -> str:
        return f"| {self.fault} | {self.tried} | {len(self.lost)} | {self.user_sees} |"

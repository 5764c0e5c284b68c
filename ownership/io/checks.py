"""The result of a verification: the checks that passed, in order, as data and as lines of text."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 13
"""Column at which the details start; the longest name of a check is shorter."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check that passed.

    Attributes:
        name: What was checked, in one or two words ("signature"). Code and tests compare this.
        detail: The finding, in words for people.
    """

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name:<{WIDTH}}{self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A verification in which every check passed; a check that fails raises an exception instead.

    Attributes:
        checks: The checks, in the order in which they were made.
    """

    checks: tuple[Check, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the name of every check, in order; a name may occur more than once."""
        return tuple(check.name for check in self.checks)

    def details(self, name: str) -> tuple[str, ...]:
        """Return the details of the checks that are called `name`, in order."""
        return tuple(check.detail for check in self.checks if check.name == name)

    def lines(self) -> list[str]:
        """Return one line of text per check: its name, padded with spaces, and its detail."""
        return [str(check) for check in self.checks]

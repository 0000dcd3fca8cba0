"""Ranges of the numbers in settings: outside of them, and for what is no number, one message names the range."""

from dataclasses import dataclass
from operator import index
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, core_schema

from kdcache.errors import InvalidInputError

SEED_MAX = 2**63 - 1  # of settings and view plans
WORD_MAX = 2**64 - 1  # the largest seed that torch takes, and that a key is made of; numpy takes it as two words
EPOCHS_MAX = 1_000_000
ROWS_OF_BATCH_MAX = 2**31 - 1
PROCESSES_MAX = 1024
LARGE = 1_000_000.0  # above any number that makes sense here


@dataclass(frozen=True)
class Range:
    """A range of an int or a float: `Annotated[int, Range(0, 10)]`. Both bounds are allowed; `low` is not where it is
    `above`, `high` is not where it is `below`. inf, NaN, true and false lie in no range. None passes where it may, and
    so do `words`."""

    low: float
    high: float
    above: bool = False
    below: bool = False
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{'above' if self.above else 'from'} {self.low:,} {'and below' if self.below else 'to'} {self.high:,}"
        return " or ".join([text.replace(",", "_"), *self.words])

    def __contains__(self, number: float) -> bool:
        is_above = number > self.low if self.above else number >= self.low
        return is_above and (number < self.high if self.below else number <= self.high)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        kind = "a whole number" if "int" in str(source) else "a number"

        def check(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
            try:
                if isinstance(value, bool):
                    raise ValueError(value)
                number = parse(value)
            except (ValidationError, ValueError, OverflowError):
                raise ValueError(f"give {kind} {self}") from None
            if number is not None and number not in self.words and number not in self:
                raise ValueError(f"give {kind} {self}")
            return number

        return core_schema.no_info_wrap_validator_function(check, handler(source))


def require_seed(seed: Any, high: int = WORD_MAX) -> None:
    """Raises InvalidInputError for a seed that is no whole number from 0 to `high`."""
    try:
        is_seed = not isinstance(seed, bool) and 0 <= index(seed) <= high
    except TypeError:
        is_seed = False
    if not is_seed:
        raise InvalidInputError(f"seed is {seed!r}; give a whole number {Range(0, high)}")

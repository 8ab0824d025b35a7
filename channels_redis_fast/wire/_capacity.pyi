import re
from collections.abc import Iterable
from typing import final

@final
class CapacityTable:
    def __new__(
        cls, default: int, rules: Iterable[tuple[str | re.Pattern[str], int]]
    ) -> CapacityTable: ...
    @property
    def default(self) -> int: ...
    def lookup(self, channel: str) -> int: ...

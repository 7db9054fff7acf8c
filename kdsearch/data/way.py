"""How the images and masks of a study are read."""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.config.data import ClassNumbers, DataConfig
from kdsearch.data.frame import Frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the images of a study are read."""

    frame: Frame
    channels: int
    numbers: ClassNumbers | None
    """What the values of masks mean; None if they have two values."""

    @classmethod
    def of(cls, config: DataConfig) -> Way:
        return cls(frame=Frame.of(config), channels=config.channels, numbers=config.class_numbers)

    def identity(self) -> list[object]:
        """Returns what identifies how images and masks are read, without defaults, so older digests stay."""
        found: list[object] = []
        numbers = self.numbers
        if numbers is not None and numbers.by_value and not numbers.colors:
            by_ground = [[value for value, number in numbers.values.items() if bool(number) == fore] for fore in (1, 0)]
            found += [*map(sorted, by_ground), numbers.others == "background"]
        if numbers is not None and (len(numbers.names) > 2 or numbers.colors or numbers.others == "ignore"):
            found.append(("classes", sorted(numbers.values.items()), sorted(numbers.names.items()), numbers.others))
        if numbers is not None and numbers.ignored is not None:
            found.append(("ignore", numbers.ignored))
        if self.channels != 1:
            found.append(("channels", self.channels))
        if self.frame.pads:
            found.append(("fit", "pad"))
        return found

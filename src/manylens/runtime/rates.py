"""What running costs: money and energy of machine time, at rates that the user gives and that stay on the machine."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from manylens.errors import UserError
from manylens.runtime import paths

_FILE = "rates.json"


@dataclass(frozen=True)
class Rates:
    """Rates of this machine; 0 for what is not known or not counted.

    Args:
        hour: Money for an hour of the machine.
        watts: Power that it draws while it works.
        kwh: Money for a kilowatt-hour.
        co2: Kilograms of CO2 for a kilowatt-hour.
        currency: Of the money, such as ``EUR``.
    """

    hour: float = 0.0
    watts: float = 0.0
    kwh: float = 0.0
    co2: float = 0.0
    currency: str = ""

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if part.name != "currency" and not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise UserError(f"rate {part.name} {value!r}: not a number of 0 or more", "give a number such as 0.5")

    @property
    def cost_money(self) -> bool:
        """Whether time costs anything at these rates."""
        return self.hour > 0 or (self.watts > 0 and self.kwh > 0)

    def energy(self, seconds: float) -> float:
        """Kilowatt-hours of so many seconds."""
        return seconds * self.watts / 3.6e6

    def money(self, seconds: float) -> float:
        """Money for so many seconds: the machine's hours and its energy."""
        return seconds * self.hour / 3600 + self.energy(seconds) * self.kwh

    def said(self, money: float) -> str:
        """An amount for people."""
        return f"{money:.2f} {self.currency}".strip() if money >= 1 else f"{money:.4g} {self.currency}".strip()

    def save(self, home: Path | None = None) -> Path:
        """Keep the rates for this user, in the home folder of manylens."""
        path = (home or paths.home()) / _FILE
        with paths.replacing(path) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())
        return path

    @staticmethod
    def load(home: Path | None = None) -> Rates:
        """The rates that were kept; zeros where there are none.

        Raises:
            UserError: The file was changed by hand and cannot be read.
        """
        path = (home or paths.home()) / _FILE
        try:
            return Rates(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Rates()
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: not rates ({error})", "give the rates again with --save-rates") from error

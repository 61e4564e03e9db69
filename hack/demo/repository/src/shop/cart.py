"""What a customer wants to buy."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Line:
    """One article: its price in cents, and how many of it."""

    name: str
    price: int
    quantity: int = 1


@dataclass
class Cart:
    """The lines, in the order in which they were added."""

    lines: list[Line] = field(default_factory=list)

    def add(self, name: str, price: int, quantity: int = 1) -> None:
        """Add an article; a price is in cents."""
        if price < 0 or quantity < 1:
            raise ValueError(f"{name}: a price is at least 0 and a quantity at least 1")
        self.lines.append(Line(name, price, quantity))

    @property
    def subtotal(self) -> int:
        """All lines together, in cents."""
        return sum(line.price * line.quantity for line in self.lines)

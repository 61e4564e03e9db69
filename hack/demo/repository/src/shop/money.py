"""Amounts of money: whole cents, so that nothing is lost between a price and a total."""


def percent(amount: int, rate: int) -> int:
    """Return `rate` percent of `amount` cents, rounded half up."""
    return (amount * rate + 50) // 100


def euros(amount: int) -> str:
    """Return an amount of cents as a customer reads it: 12.50 €."""
    return f"{amount // 100}.{amount % 100:02} €"

"""From a cart to what the customer pays."""

from dataclasses import dataclass

from shop.cart import Cart

SHIPPING = 490
FREE_SHIPPING_FROM = 5000


class CheckoutError(Exception):
    """Something a customer asked for is not possible; the message is for the customer."""


@dataclass(frozen=True)
class Total:
    """What is paid, in cents, and of what it is made."""

    subtotal: int
    shipping: int
    total: int


class Checkout:
    """The checkout of one cart."""

    def __init__(self, cart: Cart) -> None:
        self.cart = cart

    def total(self) -> Total:
        """Return the total; an empty cart cannot be paid."""
        if not self.cart.lines:
            raise CheckoutError("Your cart is empty.")
        subtotal = self.cart.subtotal
        shipping = 0 if subtotal >= FREE_SHIPPING_FROM else SHIPPING
        return Total(subtotal, shipping, subtotal + shipping)

"""What the shop's owner will try first: written before the feature, red until it is there."""

import unittest

from shop.cart import Cart
from shop.checkout import Checkout, CheckoutError


def checkout(price=2000):
    cart = Cart()
    cart.add("pot", price)
    return Checkout(cart)


class DiscountTest(unittest.TestCase):
    def test_a_code_takes_its_percentage_off_the_subtotal(self):
        order = checkout(2000)
        order.apply_code("WELCOME10")
        total = order.total()
        self.assertEqual(total.discount, 200)
        self.assertEqual(total.total, 2000 - 200 + 490)

    def test_without_a_code_nothing_changes(self):
        self.assertEqual(checkout(2000).total().discount, 0)

    def test_a_discount_is_rounded_half_up_to_whole_cents(self):
        order = checkout(1005)
        order.apply_code("WELCOME10")
        self.assertEqual(order.total().discount, 101)

    def test_an_unknown_code_is_refused_by_name_as_plain_text(self):
        for code in ("NOPE", "$(reboot)", '"quotes"'):
            with self.subTest(code=code), self.assertRaises(CheckoutError) as refused:
                checkout().apply_code(code)
            self.assertIn(code, str(refused.exception))

    def test_a_second_code_is_refused(self):
        order = checkout()
        order.apply_code("WELCOME10")
        with self.assertRaises(CheckoutError):
            order.apply_code("SUMMER25")

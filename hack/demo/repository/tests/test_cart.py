"""Carts and totals as they are today."""

import unittest

from shop.cart import Cart
from shop.checkout import Checkout, CheckoutError
from shop.money import euros, percent


class CartTest(unittest.TestCase):
    def test_the_subtotal_counts_quantities(self):
        cart = Cart()
        cart.add("tea", 450, 3)
        cart.add("cup", 1200)
        self.assertEqual(cart.subtotal, 2550)

    def test_an_impossible_line_is_refused(self):
        with self.assertRaises(ValueError):
            Cart().add("tea", 450, 0)


class TotalTest(unittest.TestCase):
    def test_shipping_is_added_to_a_small_order(self):
        cart = Cart()
        cart.add("tea", 450)
        self.assertEqual(Checkout(cart).total().total, 940)

    def test_shipping_is_free_from_fifty_euros(self):
        cart = Cart()
        cart.add("pot", 5000)
        self.assertEqual(Checkout(cart).total().shipping, 0)

    def test_an_empty_cart_cannot_be_paid(self):
        with self.assertRaises(CheckoutError):
            Checkout(Cart()).total()


class MoneyTest(unittest.TestCase):
    def test_half_a_cent_is_rounded_up(self):
        self.assertEqual(percent(1005, 10), 101)

    def test_euros_have_two_decimals(self):
        self.assertEqual(euros(1205), "12.05 €")

"""The checkout of a small shop."""

"""The demo's own failures, each one sentence for the person who runs it: what is wrong, where, what next."""


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""

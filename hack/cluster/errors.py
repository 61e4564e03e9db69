"""The one error of this package.

Whoever meets it wants to know what is wrong, where, and what to do next; a traceback says none of that. So every
failure that a person can act on is a `ClusterError` whose text is that sentence, and the command line prints it and
exits with 1.
"""


class ClusterError(Exception):
    """Something a person can act on; its text says what is wrong, where, and what to do next."""

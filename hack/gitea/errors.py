"""What can go wrong with a Gitea of tests and demo, as one sentence for the person who runs them."""


class GiteaError(Exception):
    """The server refused, or does not run; the message says what was asked and what it answered."""

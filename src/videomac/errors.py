"""The one exception for mistakes a user can mend."""


class UserError(ValueError):
    """Bad input: one sentence that says what is wrong, where, and how to cure it.

    The command line prints the sentence alone and exits with status 2; in Python it is an ordinary `ValueError`.
    """

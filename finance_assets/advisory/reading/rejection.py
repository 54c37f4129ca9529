"""The verdict that nothing of a delivered file may be loaded.

Belongs here: the exception that every step of reading raises for what is wrong with a file.
"""

from __future__ import annotations


class FileRejected(Exception):  # noqa: N818 - it is a verdict on a file, not a fault of the program
    """Nothing of the file may be loaded.

    Parameters
    ----------
    reason
        Short code.
    explanation
        What exactly is wrong and what can be done about it, in words; holds no values of the file. Empty where the
        code says it all.
    """

    def __init__(self, reason: str, explanation: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.explanation = explanation

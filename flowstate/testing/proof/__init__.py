"""Proving the laws of a driver without a test file: what ``flowstate check`` does.

``prove`` runs the conformance suite, and the Hypothesis machine if asked, and gives a ``Verdict``
for each ``Law``. Underneath it is pytest, in this process, with nothing of the directory or the
environment that it is called in: no configuration, no plugins, no files left behind.
"""

from .session import BACKENDS, NoSuchLawError, prove
from .verdicts import Failure, Judgement, Law, Listener, Verdict

__all__ = [
    "BACKENDS",
    "Failure",
    "Judgement",
    "Law",
    "Listener",
    "NoSuchLawError",
    "Verdict",
    "prove",
]

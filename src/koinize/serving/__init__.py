"""Does a server really serve this adapter, and as it was trained?

Servers that load an adapter and change nothing, scale it by another rule or put another prompt
before it raise no error. So a server is asked for the log-probabilities of the token that comes
next after a few prompts, and these are compared with our own: of the base, of the base with the
adapter, and of what is known to go wrong.

`subject` says what should be served and which prompts are drawn, `prompts` how a prompt may reach
the model, `weights` which weights may be at work. `client` is HTTP with its failures in words,
`server` what the servers' APIs have in common, `vocabulary` finds the tokens that they name.
`ours` computes what each explanation predicts, `judge` finds the one that fits, `check` does all
of that in order. `following` lets a running server load a release, and checks it.
"""

from __future__ import annotations

from koinize.serving.check import Request, Verification, check_serving
from koinize.serving.client import Client, address, check_key
from koinize.serving.following import Follower, follower
from koinize.serving.subject import Subject, of_folders, of_project

__all__ = [
    "Client",
    "Follower",
    "Request",
    "Subject",
    "Verification",
    "address",
    "check_key",
    "check_serving",
    "follower",
    "of_folders",
    "of_project",
]

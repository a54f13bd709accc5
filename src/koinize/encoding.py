"""`koinize.model.encoding` under the name that it had in 0.1.0, for scripts that import it."""

from koinize.model.encoding import Encoder, Tokens

__all__ = ["Encoder", "Tokens"]

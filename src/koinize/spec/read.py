"""Reading a `koinize.yaml`: every mistake at once, each with its line, column and remedy."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from koinize.errors import InputError, ManyErrors
from koinize.spec.document import Document, Loc, read_document
from koinize.spec.explain import explain
from koinize.spec.names import disagreements
from koinize.spec.shape import VERSION, Spec

SPEC_FILE = "koinize.yaml"


def load(path: Path) -> Spec:
    """The specification in this file.

    Raises InputError (one mistake) or ManyErrors (several, in the order of the file).
    """
    document = read_document(path)
    _check_version(document)
    found = list(disagreements(document))
    try:
        spec = Spec.model_validate(document.values)
    except ValidationError as error:
        found.extend(explain(document, error.errors(include_url=False)))
    if found:
        raise _in_order(document, found)
    return spec


def _check_version(document: Document) -> None:
    """Refuse newer formats. A file without a version is of format 1, the first.

    What turns an older format into the current one belongs here, on `document.values`, so that
    nothing after it has to know of more than one format.
    """
    version = document.values.get("koinize")
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"koinize: {version} is a newer format than this koinize reads ({VERSION})",
            where=document.where(("koinize",)),
            remedy="upgrade koinize",
        )


def _in_order(document: Document, found: list[tuple[Loc, InputError]]) -> InputError:
    found.sort(key=lambda one: document.places[one[0]])
    unique = list({str(error): error for _, error in found}.values())
    return unique[0] if len(unique) == 1 else ManyErrors(unique)

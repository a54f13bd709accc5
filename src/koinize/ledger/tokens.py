"""Time stamps of RFC 3161: what is asked, what is answered, and who vouches for the answer.

All that knows rfc3161-client (extra `koinize[stamp]`) is in here. It parses, and has OpenSSL check
the token's signature and its chain of certificates as they were at the time in the token; `der`
has what it leaves out. Whether a certificate was revoked is not looked at: there is no network.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from koinize.errors import InputError
from koinize.exchange import kind_of
from koinize.files import LARGEST_TEXT, read_bytes
from koinize.ledger.der import names, sorted_certificates
from koinize.shown import line

SHA256 = "2.16.840.1.101.3.4.2.1"
STATUS = (
    *("granted", "granted with changes", "rejection", "waiting"),
    *("revocation warning", "revocation notification"),
)


class NoTokenError(Exception):
    """An answer that is no time stamp of what was asked: what is wrong with it."""


@dataclass(frozen=True)
class Question:
    """A request for a stamp, as it is sent, and the number by which its answer is known."""

    request: bytes
    nonce: int


@dataclass(frozen=True)
class Token:
    """What an answer says, whoever gave it."""

    at: datetime
    nonce: int | None


@dataclass(frozen=True)
class Voucher:
    """Whose token it is: the name in a certificate, and until when that is valid. Without a name,
    `why` says what was missing.
    """

    by: str = ""
    until: datetime | None = None
    why: str = ""


def require_library() -> None:
    """Raise InputError where rfc3161-client is not installed."""
    if find_spec("rfc3161_client") is None:
        raise InputError(
            "time stamps need the package rfc3161-client, which is not installed",
            remedy="pip install 'koinize[stamp]'",
        )


def question(statement: bytes) -> Question:
    """A request for a stamp on the SHA-256 of this, with a nonce, that asks for the certificate."""
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    made = TimestampRequestBuilder(data=statement, hash_algorithm=HashAlgorithm.SHA256).build()
    nonce = made.nonce
    if nonce is None:
        raise AssertionError("a nonce is what the builder makes unless it is told not to")
    return Question(made.as_bytes(), nonce)


def token(answer: bytes) -> Token:
    """What an answer says. Raises NoTokenError for what is no answer, and for a refusal."""
    found = _parsed(answer)
    with _of_others("its token cannot be read"):
        info = found.tst_info
        return Token(info.gen_time, info.nonce)


def fits(answer: bytes, statement: bytes) -> bool:
    """Whether the stamp is on this statement. Raises NoTokenError."""
    with _of_others("its token cannot be read"):
        imprint = _parsed(answer).tst_info.message_imprint
        found = imprint.hash_algorithm.dotted_string, imprint.message
        return bool(found == (SHA256, hashlib.sha256(statement).digest()))


def certified(answer: bytes) -> bool:
    """Whether a certificate came with it: without one nobody can check it. Raises NoTokenError."""
    with _of_others("its token cannot be read"):
        return bool(_parsed(answer).signed_data.certificates)


def certificates(path: Path) -> list[Any]:
    """Those in a PEM file, as `cryptography` has them. Raises InputError for what holds none."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    expected = "certificates of time stamping authorities in PEM (-----BEGIN CERTIFICATE-----)"
    if not path.is_file():
        raise InputError("there is no such file", where=str(path), expected=expected)
    try:
        with _of_others("its certificates cannot be read"):
            found = list(x509.load_pem_x509_certificates(read_bytes(path, LARGEST_TEXT)))
            store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            for one in found:  # the library panics on what OpenSSL does not read
                store.load_verify_locations(cadata=one.public_bytes(Encoding.DER))
    except NoTokenError:
        raise InputError(
            "holds no certificates, or some that cannot be read", where=str(path), expected=expected
        ) from None
    return found


def vouched(answer: bytes, statement: bytes, named: Sequence[Any]) -> Voucher:
    """Whose stamp on this statement it is, of those that the named certificates lead to.

    The chain has to end at a root among them, and to have been valid at the time of the stamp.
    Raises NoTokenError for an answer that cannot be read.
    """
    from cryptography.hazmat.primitives.serialization import Encoding
    from rfc3161_client import VerificationError, VerifierBuilder

    found = _parsed(answer)
    with _of_others("its token cannot be read"):
        try:
            VerifierBuilder(roots=list(named)).build().verify_message(found, statement)
        except VerificationError as error:
            return Voucher(why=_reason(str(error)))
        signers = _signers(found, named)
        if len(signers) != 1:
            return Voucher(why="it does not say which of several certificates it is by")
        if not names(answer, signers[0].public_bytes(Encoding.DER)):
            return Voucher(why="it does not say that it is by the certificate that it is by")
        return Voucher(line(signers[0].subject.rfc4514_string()), signers[0].not_valid_after_utc)


def _parsed(answer: bytes) -> Any:  # noqa: ANN401 - typed where the extra is installed
    from rfc3161_client import decode_timestamp_response

    try:
        with _of_others(""):
            found = decode_timestamp_response(sorted_certificates(answer))
            status, said = int(found.status), list(found.status_string)
    except NoTokenError:
        kind = kind_of(answer)
        what = "is HTML where" if kind == "HTML" else "is something else, or damaged, where"
        raise NoTokenError(f"{what} a time stamp in DER belongs") from None
    if status:
        name = STATUS[status] if status < len(STATUS) else f"status {status}"
        raise NoTokenError(f"gives no time stamp: {line(': '.join([name, *said]), 400)}")
    return found


def _signers(found: Any, named: Sequence[Any]) -> list[Any]:  # noqa: ANN401 - as above
    """All certificates that may be the one that OpenSSL took for the signature.

    Nothing signs which one that is: of several with one number, some may have been put in to have
    another name told. So all that have the number and may stamp are found, and there has to be one.
    """
    from cryptography import x509

    (signer,) = found.signed_data.signer_infos
    inside = [x509.load_der_x509_certificate(one) for one in found.signed_data.certificates]
    same = {one for one in [*inside, *named] if one.serial_number == signer.serial_number}
    return [one for one in same if _may_stamp(one)]


def _may_stamp(certificate: Any) -> bool:  # noqa: ANN401 - as above
    from cryptography import x509

    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return False
    return x509.ExtendedKeyUsageOID.TIME_STAMPING in usage.value


def _reason(said: str) -> str:
    """What OpenSSL says is wrong, out of what the library makes of it."""
    found = re.search(r'data: "Verify error: ([^"]+)"', said)
    if found:
        return found[1]
    return "its signature does not hold" if "pkcs7" in said else line(said.rstrip("."))


@contextmanager
def _of_others(what: str) -> Iterator[None]:
    """Turn whatever two libraries raise on bytes that others made into NoTokenError(what)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd certificates, which are to be told in words
            yield
    except NoTokenError:
        raise
    except Exception as error:  # they promise no list of errors
        raise NoTokenError(what) from error

"""Time stamping authorities for tests: all that they do, the `openssl` of this machine does.

What koinize makes of their answers can so be compared with what `openssl ts -verify` says.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONFIG = """
[ca]
default_ca = issuing
[issuing]
database = {folder}/index
serial = {folder}/numbers
new_certs_dir = {folder}
default_md = sha256
policy = anything
unique_subject = no
[anything]
commonName = supplied
[tsa]
default_tsa = stamping
[stamping]
serial = {folder}/stamps
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = {digests}
clock_precision_digits = 3
ess_cert_id_alg = {naming}
"""
STAMPING = "extendedKeyUsage=critical,timeStamping"
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
TST_INFO = "1.2.840.113549.1.9.16.1.4"  # of a token's content, RFC 3161, section 2.4.2

Answer = Callable[[bytes], bytes]


def openssl(*arguments: str | Path, folder: Path, check: bool = True) -> bool:
    """Run it in a folder; whether it said that all is well."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr.decode()
    return done.returncode == 0


@dataclass(frozen=True)
class Authority:
    """A root certificate (`root`), and one for stamping that it issued; all in `folder`."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root.pem"

    def issue(self, name: str, subject: str, usage: str = STAMPING, *more: str) -> Path:
        """One more certificate, NAME.pem, for the key of `tsa`."""
        (self.folder / f"{name}.ext").write_text(f"{usage}\n")
        request = ("-new", "-key", "tsa.key", "-subj", f"/CN={subject}", "-out", f"{name}.csr")
        openssl("req", *request, folder=self.folder)
        given = ("-config", "config", "-cert", "root.pem", "-keyfile", "root.key", "-batch")
        dates = more or ("-days", "30")
        files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", f"{name}.ext", "-notext")
        openssl("ca", *given, *dates, *files, folder=self.folder)
        return self.folder / f"{name}.pem"

    def answer(self, request: bytes, signer: str = "tsa", *more: str) -> bytes:
        """The response to a request."""
        (self.folder / "query").write_bytes(request)
        key = ("-signer", f"{signer}.pem", "-inkey", "tsa.key")
        files = ("-queryfile", "query", "-out", "answer")
        openssl("ts", "-reply", "-config", "config", *files, *key, *more, folder=self.folder)
        return (self.folder / "answer").read_bytes()

    def forged(self, request: bytes, signer: str, *, naming: bool = True) -> bytes:
        """The same with what `openssl ts` refuses to sign by: a CMS message of the same content.

        With `naming` the certificate is named by its digest, as it should.
        """
        (self.folder / "honest").write_bytes(self.answer(request))
        openssl("ts", "-reply", "-in", "honest", "-token_out", "-out", "token", folder=self.folder)
        taken = ("-inform", "DER", "-in", "token", "-noverify", "-out", "content")
        openssl("cms", "-verify", *taken, folder=self.folder)
        kind = ("-econtent_type", TST_INFO, "-nodetach", "-binary", "-md", "sha256")
        kind += ("-cades",) * naming
        files = ("-in", "content", "-outform", "DER", "-out", "signed")
        key = ("-signer", f"{signer}.pem", "-inkey", "tsa.key")
        openssl("cms", "-sign", *kind, *files, *key, folder=self.folder)
        granted = bytes.fromhex("3003020100")
        body = granted + (self.folder / "signed").read_bytes()
        return b"\x30\x82" + len(body).to_bytes(2, "big") + body

    def verifies(self, answer: bytes, statement: bytes, *more: str, roots: Path | None = None):
        """Whether `openssl ts -verify` takes it."""
        (self.folder / "given").write_bytes(answer)
        (self.folder / "data").write_bytes(statement)
        files = ("-in", "given", "-data", "data", "-CAfile", str(roots or self.root))
        return openssl("ts", "-verify", *files, *more, folder=self.folder, check=False)


def authority(
    folder: Path, name: str, digests: str = "sha256", naming: str = "sha256"
) -> Authority:
    """A new one, that stamps digests of this kind as CN=NAME.

    `naming`: the hash function by which its tokens name their certificate.
    """
    folder.mkdir()
    (folder / "config").write_text(CONFIG.format(folder=folder, digests=digests, naming=naming))
    (folder / "index").touch()
    (folder / "numbers").write_text("4000\n")
    (folder / "stamps").write_text("01\n")
    subject = ("-subj", f"/CN=Root of {name}", "-days", "30")
    openssl(
        "req", "-x509", *CURVE, *subject, "-keyout", "root.key", "-out", "root.pem", folder=folder
    )
    openssl("ecparam", "-name", "P-256", "-genkey", "-noout", "-out", "tsa.key", folder=folder)
    made = Authority(folder)
    made.issue("tsa", name)
    return made


@contextmanager
def listening(answer: Answer, status: int = 200) -> Iterator[str]:
    """The address of a server that answers each POST of a time stamp request by this."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.headers["Content-Type"] == "application/timestamp-query"
            content = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/stamp"
        finally:
            server.shutdown()
            thread.join()

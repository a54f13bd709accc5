"""Who signed where the ledger ends, and what somebody without the key can do about it."""

from __future__ import annotations

import json
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from koinize.ledger import Ledger
from tests.cli.conftest import Call, work

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="OpenSSH is not installed")

NOW = "2026-01-31T10:00:00+00:00"


@pytest.fixture
def ledger(worked: Ledger) -> Ledger:
    return worked


@pytest.fixture
def call(of_ledger: Call) -> Call:
    return of_ledger


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    """Her private key; `signers` has the public one."""
    key = made_key(tmp_path / "alice")
    (tmp_path / "signers").write_text(f"alice@example.org {key.with_suffix('.pub').read_text()}")
    return key


def made_key(path: Path, passphrase: str = "") -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def signature(tmp_path: Path) -> Path:
    (found,) = (tmp_path / ".koinize" / "signatures").iterdir()
    return found


def test_who_signed_how_much_and_when(call: Call, ledger: Ledger, alice: Path) -> None:
    head = ledger.verify()
    code, out, _ = call("sign", "--key", str(alice))
    assert code == 0
    assert out.splitlines()[0] == f"signed: 2 records, head {head.digest}"
    work(ledger, 2)
    code, out, _ = call("verify", "--signers", "signers")
    (told,) = json.loads(call("verify", "--signers", "signers", "--json")[1])["signed"]
    assert told == {"by": "alice@example.org", "records": 2, "head": head.digest, "at": told["at"]}
    assert code == 0
    assert (
        f"signed by alice@example.org: 2 records, on {told['at']} by the signer's clock; "
        "2 records came later"
    ) in out.splitlines()
    assert "what was signed is as it was" in out.splitlines()[-1]


def test_a_statement_is_what_ssh_keygen_verifies(
    call: Call, ledger: Ledger, alice: Path, tmp_path: Path
) -> None:
    """By hand, with nothing of koinize: what the file holds is enough."""
    call("sign", "--key", str(alice))
    kept = json.loads(signature(tmp_path).read_text())
    (tmp_path / "sig").write_text(kept["signature"])
    said = f"koinize ledger\nrecords 2\nhead {kept['digest']}\nat {kept['at']}\n"
    asked = ["-f", "signers", "-I", "alice@example.org", "-n", "koinize-ledger", "-s", "sig"]
    subprocess.run(
        ["ssh-keygen", "-Y", "verify", *asked], input=said, text=True, check=True, cwd=tmp_path
    )


def test_a_chain_written_anew_is_not_what_was_signed(
    call: Call, ledger: Ledger, alice: Path, tmp_path: Path
) -> None:
    """Although whoever did it changed every file that `verify` reads but the signature."""
    call("sign", "--key", str(alice))
    head = ledger.verify()
    ledger.path.unlink()
    (tmp_path / ".koinize" / "heads.jsonl").unlink(missing_ok=True)
    work(Ledger(ledger.path), 3)
    assert call("verify")[0] == 0
    code, out, _ = call("verify", "--signers", "signers")
    assert code == 1
    assert out.splitlines()[-1].startswith("alice@example.org signed a ledger of 2 records on ")
    assert head.digest[:12] in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("field", "value"), [("records", 1), ("digest", "1f" * 32), ("at", "2027-01-31T10:00:00+00:00")]
)
def test_what_stands_beside_a_signature_cannot_be_changed(
    call: Call, ledger: Ledger, alice: Path, tmp_path: Path, field: str, value: object
) -> None:
    call("sign", "--key", str(alice))
    path = signature(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    code, _, err = call("verify", "--signers", "signers")
    assert code == 1
    assert "the key of alice@example.org did not sign what this file says; restore it" in err


def test_signatures_that_count_for_nothing(
    call: Call, ledger: Ledger, alice: Path, tmp_path: Path
) -> None:
    """Of a key that nobody trusts, of another namespace, of no key, and none at all."""
    nobody = "no signature on this ledger is by anybody in signers"
    assert call("verify", "--signers", "signers")[1].splitlines()[-1] == nobody
    call("sign", "--key", str(made_key(tmp_path / "mallory")))
    (found,) = json.loads(call("verify", "--signers", "signers", "--json")[1])["signed"]
    assert found["by"] is None
    path = signature(tmp_path)
    kept = json.loads(path.read_text())
    said = f"koinize ledger\nrecords 2\nhead {kept['digest']}\nat {kept['at']}\n"
    elsewhere = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(alice)],
        input=said,
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    for worthless in (elsewhere, "no signature", ""):
        path.write_text(json.dumps({**kept, "signature": worthless}))
        code, out, err = call("verify", "--signers", "signers")
        assert code == 1
        assert nobody in out or "did not sign what this file says" in err


def test_what_contradicts_itself_is_not_signed(call: Call, ledger: Ledger, alice: Path) -> None:
    ledger.close_run("r1", Decimal(9), device="d", price={})  # which notes the head
    lines = ledger.path.read_text().splitlines(keepends=True)
    ledger.path.write_text("".join(lines[:1]))
    code, _, err = call("sign", "--key", str(alice))
    assert code == 1
    assert "what contradicts itself is not signed: heads.jsonl knows of" in err


def test_bad_input(
    call: Call, ledger: Ledger, alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nokey there is no such key" in call("sign", "--key", "nokey")[2]
    (tmp_path / "text").write_text("no key")
    code, _, err = call("sign", "--key", "text")
    assert code == 2
    assert "ssh-keygen made no signature: " in err
    assert "there is no such file; expected allowed signers" in call("verify", "--signers", "x")[2]
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = call("sign", "--key", str(alice))
    assert code == 2
    assert "ssh-keygen is not installed; expected OpenSSH 8.2 or later" in err


def test_nothing_to_sign(tmp_path: Path, call: Call, alice: Path) -> None:
    (tmp_path / "koinize.yaml").write_text("")
    code, _, err = call("sign", "--key", str(alice))
    assert code == 1
    assert "nothing was recorded yet" in err


def test_a_file_that_is_no_signature(
    call: Call, ledger: Ledger, alice: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ".koinize" / "signatures"
    folder.mkdir()
    good = {"records": 2, "digest": "1f" * 32, "at": NOW, "signature": ""}
    for bad in ("[", "{}", json.dumps({**good, "at": "\n"}), json.dumps({**good, "records": 0})):
        (folder / "a.jsonl").write_text(bad)
        code, _, err = call("verify", "--signers", "signers")
        assert code == 1
        assert ".koinize/signatures/a.jsonl:1" in err
    assert "not looked at: 1; --signers FILE checks them" in call("verify")[1]

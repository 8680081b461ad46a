"""The contrast of every pair of colour tokens, in every theme, as WCAG 2.2 reckons it.

OKLCH to linear sRGB: https://bottosson.github.io/posts/oklab/; relative luminance and ratio: WCAG 2.2, 1.4.3.
"""

import math
import re
from pathlib import Path

import pytest

STYLES = Path(__file__).parents[2] / "frontend/static/css"
TOKEN = re.compile(r"--color-([\w-]+): light-dark\(oklch\(([^)]+)\), oklch\(([^)]+)\)\);")
Colour = tuple[float, float, float]

TEXT = ("ink", "ink-2", "ink-3", "accent", "warn")
PAPERS = ("paper", "raised", "wash")
READ = ("ink", "ink-2")  # what people and the model write


def themes() -> dict[str, dict[str, Colour]]:
    """The tokens of each theme by name: light and dark, at the usual and at high contrast."""
    source = (STYLES / "tokens.css").read_text(encoding="utf-8")
    usual, more, chosen = re.split(
        r"@media \(prefers-contrast: more\)|:root\[data-theme=\"contrast\"\]", source
    )
    assert TOKEN.findall(more) == TOKEN.findall(chosen), (
        "high contrast, asked for by the system or by the writer"
    )
    found: dict[str, dict[str, Colour]] = {}
    for name, part in (("", usual), ("contrast ", more)):
        for scheme in (0, 1):
            tokens = {token: _numbers(values[scheme]) for token, *values in TOKEN.findall(part)}
            found[f"{name}{('light', 'dark')[scheme]}"] = tokens
    return found


def _numbers(text: str) -> Colour:
    lightness, chroma, hue = map(float, text.split())
    return lightness, chroma, hue


def luminance(colour: Colour) -> float:
    lightness, chroma, hue = colour
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short
    channels = [min(1.0, max(0.0, channel)) for channel in (red, green, blue)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]


def ratio(one: Colour, other: Colour) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_reckoning_is_right() -> None:
    assert ratio((1, 0, 0), (0, 0, 0)) == pytest.approx(21, abs=0.01)
    # #767676 on white, known to be 4.54, is oklch(0.5659 0 0).
    assert ratio((0.5659, 0, 0), (1, 0, 0)) == pytest.approx(4.54, abs=0.02)
    # #008080 on white is 4.77: teal, oklch(0.5431 0.0927 194.77).
    assert ratio((0.5431, 0.0927, 194.77), (1, 0, 0)) == pytest.approx(4.77, abs=0.02)


@pytest.mark.parametrize("theme", themes())
def test_every_pair_of_text_and_paper(theme: str) -> None:
    tokens = themes()[theme]
    found = {(ink, paper): ratio(tokens[ink], tokens[paper]) for ink in TEXT for paper in PAPERS}
    found["on-accent", "accent"] = ratio(tokens["on-accent"], tokens["accent"])
    least = 7.0 if theme.startswith("contrast") else 4.5
    assert {pair: round(value, 2) for pair, value in found.items() if value < least} == {}
    read = {
        pair: round(value, 2) for pair, value in found.items() if pair[0] in READ and value < 7.0
    }
    assert read == {}, "AAA in the reading column"


@pytest.mark.parametrize("theme", themes())
def test_what_is_no_text_but_has_to_be_seen(theme: str) -> None:
    """WCAG 1.4.11: the edge of a field, the mark of what has the focus, and of what is chosen."""
    tokens = themes()[theme]
    for mark in ("edge", "accent"):
        for paper in ("paper", "raised"):
            assert ratio(tokens[mark], tokens[paper]) >= 3, (mark, paper)


def test_no_colour_but_the_tokens() -> None:
    """A component names no colour of its own, so that the pairs above are all there are."""
    colour = re.compile(
        r"#[0-9a-f]{3,8}\b|\b(?:rgb|hsl|oklch|oklab|lab|lch|hwb)a?\(|:\s*(?:white|black|gr[ae]y)\b",
        re.IGNORECASE,
    )
    files = [file for file in STYLES.glob("*.css") if file.name != "tokens.css"]
    assert len(files) > 3
    for file in files:
        source = re.sub(r"url\([^)]*\)", "", file.read_text(encoding="utf-8"))
        assert colour.findall(source) == [], file.name


PHYSICAL = re.compile(
    r"^\s*(?:(?:margin|padding|border)-(?:left|right)[\w-]*|left|right|border-(?:top|bottom)-(?:left|right)-radius)\s*:"
    r"|(?:text-align|float|clear)\s*:\s*(?:left|right)\b",
    re.MULTILINE,
)
FOUR_SIDES = re.compile(
    r"^\s*(?:margin|padding|inset|border-width|scroll-margin)\s*:\s*([^;]+);", re.MULTILINE
)


def test_nothing_is_laid_out_by_left_and_right() -> None:
    """A language that runs from right to left turns the page round by itself."""
    files = list(STYLES.glob("*.css"))
    assert len(files) > 3
    for file in files:
        source = file.read_text(encoding="utf-8")
        assert PHYSICAL.findall(source) == [], file.name
        for found in FOUR_SIDES.findall(source):
            values = found
            while "(" in values:  # from the inside out
                values = re.sub(r"[\w-]*\([^()]*\)", "x", values)
            sides = values.split()
            assert len(sides) < 4 or sides[1] == sides[3], (file.name, sides)


def test_a_physical_side_is_found() -> None:
    assert PHYSICAL.search("  margin-left: 1rem;")
    assert PHYSICAL.search("  text-align: right;")
    assert not PHYSICAL.search("  border-inline-start: 1px;\n  text-align: start;")

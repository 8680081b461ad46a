"""A few pages look as they did. Where they are meant not to: `python -m scripts.pictures --references`."""

from pathlib import Path

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Playwright

from scripts.pictures import (
    COMPARED_VIEWS,
    REFERENCES,
    SCREEN_SIZES,
    WITHOUT_EMBEDDING,
    iterate_references,
    launch_chromium,
    run_scene,
)

# Of 255, in any of the three colours of a block: less is how an edge was smoothed, and a paper of another tint is more.
APART = 3
# Of the blocks of a picture: more is not a stray pixel. A line of text that has moved is about one in a hundred.
MOST = 0.002


def share(one: Image.Image, other: Image.Image) -> float:
    """How much of two pictures is apart."""
    if one.size != other.size:
        return 1.0
    bands = zip(
        *(band.tobytes() for band in ImageChops.difference(one, other).split()), strict=True
    )
    most = [max(pixel) for pixel in bands]
    return sum(each > APART for each in most) / len(most)


def reference(name: str) -> Image.Image:
    with Image.open(REFERENCES / f"{name}.png") as picture:
        return picture.convert("RGB")


def test_pages_look_as_they_did(playwright: Playwright, tmp_path: Path) -> None:
    with launch_chromium(playwright) as browser:
        made_by = (REFERENCES / "chromium").read_text(encoding="utf-8").strip()
        if browser.version.split(".")[0] != made_by:
            pytest.skip(
                f"Chromium {browser.version} may draw in another way than {made_by}, which made the references"
            )
        with run_scene(tmp_path, **WITHOUT_EMBEDDING) as scene:
            seen = iterate_references(scene, browser)
            if share(next(seen)[1], reference("letters")):
                pytest.skip(
                    "letters are drawn in another way here than where the references were made"
                )
            apart: dict[str, float] = {}
            for name, picture in seen:
                apart[name] = share(picture, reference(name))
                if apart[name] > MOST:
                    picture.save(tmp_path / f"{name}.png")
    assert len(apart) == len(COMPARED_VIEWS) * len(SCREEN_SIZES) * 2
    assert {name: found for name, found in apart.items() if found > MOST} == {}, (
        f"as they look now: {tmp_path}"
    )

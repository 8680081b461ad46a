"""Draws the icons that an installed Llamora is shown with, from our SVG: `python -m scripts.icons`.

Browsers ask for PNG of 192 and 512 pixels before they offer to install a page. They are kept in git, since users have
no browser that a build could draw with. `whole.svg` fills its square: a system may cut any shape out of it, and leaves
the middle four fifths (https://www.w3.org/TR/appmanifest/#icon-masks).
"""

import base64
from pathlib import Path

from playwright.sync_api import sync_playwright

from scripts.browser import find_or_install

STATIC = Path(__file__).resolve().parents[1] / "frontend" / "static"
PAGE_ICONS = (("favicon.svg", "page-192.png", 192), ("favicon.svg", "page-512.png", 512))
FULL_BLEED_ICONS = (
    ("icons/whole.svg", "whole-512.png", 512),
    ("icons/whole.svg", "whole-180.png", 180),
)


def main() -> None:
    """Draw each icon on nothing, at its size."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_or_install(), args=["--no-sandbox"]
        )
        for source, target, size in (*PAGE_ICONS, *FULL_BLEED_ICONS):
            page = browser.new_page(viewport={"width": size, "height": size})
            encoded_svg = base64.b64encode((STATIC / source).read_bytes()).decode()
            style = "display:block;width:100vw;height:100vh"
            page.set_content(
                f'<body style="margin:0"><img style="{style}" src="data:image/svg+xml;base64,{encoded_svg}">'
            )
            page.locator("img").evaluate("image => image.decode()")
            page.screenshot(path=STATIC / "icons" / target, omit_background=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()

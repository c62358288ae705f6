"""Pictures of the viewer, taken by a headless Chromium: every page of a run, light, dark and at the
width of a phone.

Run as: python -m benchmarks.pictures runs/demo --out pictures --against runs/other
The README's two: --out docs/images --look light --look dark --page /case/medaction-06
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.viewer import viewer

PAGES = (
    *("/", "/cases", "/trajectories", "/evaluation", "/comparison", "/contamination"),
    *("/contamination/0", "/labels", "/failures"),
)
LOOKS: dict[str, tuple[Literal["light", "dark"], int]] = {
    "light": ("light", 1280),
    "dark": ("dark", 1280),
    "phone": ("light", 390),
}
"""A look's name -> the colours that the reader's system asks for, and the window's width."""


def take(
    run: Path,
    out: Path,
    against: Path | None,
    pages: Sequence[str],
    looks: Sequence[str],
    full: bool,
) -> None:
    """Write `out`/PAGE-LOOK.png for the pages that the run has; a case's page is its first case's.

    Raises RuntimeError for a page that is wider than the window.
    """
    out.mkdir(parents=True, exist_ok=True)
    with viewer(run, against) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for look in looks:
            colours, width = LOOKS[look]
            window = {"width": width, "height": 860}
            page = browser.new_page(viewport=window, color_scheme=colours)  # type: ignore[arg-type]
            page.goto(f"{url}/cases")
            case = page.locator("td a").first.get_attribute("href") or "/"
            for path in pages or (*PAGES, case):
                answer = page.goto(url + path)
                if answer is None or answer.status != 200:
                    continue
                words = path.split("?")[0].split("#")[0].strip("/").replace("/", "-")
                picture = out / f"{words or 'overview'}-{look}.png"
                page.screenshot(path=picture, full_page=full)
                # A third of the size; pages have few colours.
                Image.open(picture).convert("RGB").quantize(64).save(picture, optimize=True)
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    raise RuntimeError(f"{path} is wider than {width} pixels")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--out", type=Path, required=True, help="where the pictures go")
    parser.add_argument("--against", type=Path, help="another evaluation, for the comparison")
    parser.add_argument("--page", action="append", default=[], help="only this page; repeatable")
    parser.add_argument("--look", action="append", default=[], choices=LOOKS, help="only this one")
    parser.add_argument("--full", action="store_true", help="the whole page, not the first screen")
    options = parser.parse_args()
    looks = options.look or list(LOOKS)
    take(options.run, options.out, options.against, options.page, looks, options.full)


if __name__ == "__main__":
    main()

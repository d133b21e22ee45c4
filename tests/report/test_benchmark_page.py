"""The benchmark's page: what it says, that it needs nothing else, and that a browser shows and sorts it."""

import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pandas
import pytest

from r2reg.evaluation.comparison import summarise
from r2reg.evaluation.results import run_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DICE = {
    "syn": [0.70, 0.72, 0.68, 0.71],
    "ours<script>alert(1)</script>": [0.80, 0.79, 0.81, 0.74],
    "broken": [np.nan] * 4,
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """report.html of made-up results, with pictures; one method failed."""
    folder = tmp_path_factory.mktemp("report")
    rows = []
    for method, values in DICE.items():
        for k, dice in enumerate(values):
            failed = bool(np.isnan(dice))
            scores = {"dice_mean": dice, "hd95_mm": 5 - dice, "lncc": dice / 2, "mse": 0.01, "seconds": 10.0 + 9 * k}
            scores |= dict.fromkeys(["folds", "ndv_percent", "digital_folds", "sdlogj"], 0.1)
            state = {"status": "failed", "reason": "out of <memory>"} if failed else {"status": "done", "reason": ""}
            rows.append({"id": f"p{k}", "method": method, **state} | ({} if failed else scores))
            if not failed:
                run = run_folder(folder, f"p{k}", method)
                run.mkdir(parents=True)
                picture = np.linspace(0, 255, 30 * 20).reshape(30, 20).astype(np.uint8)
                names = [f"{image}_{plane}" for image in ("fixed", "moved") for plane in ("axial", "coronal")]
                np.savez(run / "pictures.npz", **dict.fromkeys(names, picture))
    frame = pandas.DataFrame(rows)
    for name in ("tre_mean_mm", "inverse_residual_p99_mm", "peak_memory_bytes"):
        frame[name] = np.nan
    frame.to_csv(folder / "results.csv", index=False)
    labels = [(r["id"], r["method"], k, r["dice_mean"] + k / 100, 1) for r in rows if "dice_mean" in r for k in (2, 3)]
    names = ["id", "method", "label", "dice", "hd95_mm"]
    pandas.DataFrame(labels, columns=names).to_csv(folder / "labels.csv", index=False)
    (folder / "environment.json").write_text('{"processor": "A & B", "jax": null}', encoding="utf-8")
    summarise(folder, "syn", 0.01)
    return folder / "report.html"


def test_it_needs_nothing_else(page):
    text = page.read_text(encoding="utf-8")
    outside = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']+)""", text)
    assert outside == []
    assert "@import" not in text
    assert not re.search(r"url\((?!#|['\"]?data:)", text)


def test_what_it_says(page):
    text = page.read_text(encoding="utf-8")
    assert "4 pairs, 3 methods; 8 of 12 registrations done." in text
    assert "Best mean Dice: ours&lt;script&gt;" in text
    assert "<script>alert" not in text  # names are shown, not run
    assert "out of &lt;memory&gt;" in text
    assert "A &amp; B" in text
    assert "not installed" in text
    worst = re.search(r"<b>ours.*?</b>, worst case, pair (\w+): Dice ([\d.]+)", text)
    assert worst.groups() == ("p3", "0.740")
    median = re.search(r"<b>syn</b>, median case, pair (\w+): Dice ([\d.]+)", text)
    assert median.groups() == ("p0", "0.700")
    assert text.count("data:image/png") == 3 * 4  # fixed, moved, overlay of two cases of two methods


def test_figures_are_files_as_well(page):
    """For a paper: drawings of their own, of what there are figures of."""
    drawn = {path.name: ElementTree.parse(path).getroot() for path in (page.parent / "figures").iterdir()}
    assert drawn.keys() == {f"{name}.svg" for name in ("dice_mean", "hd95_mm", "lncc", "sdlogj", "time", "labels")}
    assert all(root.tag == "{http://www.w3.org/2000/svg}svg" for root in drawn.values())


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_and_sorts_it(page, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    asked, problems = [], []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width in (1200, 390):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.on("request", lambda request: asked.append(request.url))
            tab.on("pageerror", lambda error: problems.append(str(error)))
            tab.goto(page.as_uri())
            # Wide tables scroll within themselves; the page does not.
            assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            assert tab.locator("svg").count() >= 4

        table = tab.locator("table.sortable").first
        column = lambda: [row.strip() for row in table.locator("tbody tr td:first-child").all_inner_texts()]  # noqa: E731
        names = list(DICE)
        assert column() == names
        head = table.locator("th button", has_text="Dice")
        head.click()
        assert column() == [names[0], names[1], names[2]]  # lowest first, what has no value last
        head.press("Enter")
        assert column() == [names[1], names[0], names[2]]
        assert table.locator("th[aria-sort=descending]").inner_text().startswith("Dice")
        tab.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
        browser.close()
    assert problems == []
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert (tmp_path / "page.pdf").stat().st_size > 10_000

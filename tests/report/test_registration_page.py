"""The page of a registration: what it shows is what was found, it needs nothing else, and a browser drives it."""

import base64
import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from r2reg.geometry.grid import Grid
from r2reg.geometry.transforms import Affine, Displacement
from r2reg.io.images import Volume
from r2reg.report.registration import (
    FIXED_EDGE,
    FOLD,
    GRID_LINE,
    MOVED_EDGE,
    Registered,
    draw,
    write_failure,
    write_report,
)
from r2reg.report.verdict import judge

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SHAPE = (40, 48, 44)
STAGES = ("before", "affine", "after")
METRICS = {
    "similarity": {s: {"mse": 0.01, "ncc": 0.9, "lncc": v} for s, v in zip(STAGES, (0.2, 0.3, 0.5), strict=True)},
    "dice": {s: {"mean": v, "per_label": {"1": v}} for s, v in zip(STAGES, (0.4, 0.6, 0.8), strict=True)},
    "deformation": {
        "folds": 0, "ndv_percent": 0.0, "digital_folds": 0, "jacobian_min": 0.5, "jacobian_max": 2.0, "sdlogj": 0.2,
        "inverse_residual_mm": {"mean": 0.01, "p99": 0.02, "max": 0.3}, "certified": True,
    },
    "seconds": {"affine": 1.25, "write": 0.01}, "command": "r2reg register <moving> fixed", "seed": 0,
    "inputs": {"study/moving.nii.gz": "abc"}, "versions": {"r2reg": "0.1", "jax": None},
}  # fmt: skip


def write(folder, pictures, metrics):
    return write_report(folder, pictures, metrics, judge(metrics))


@pytest.fixture
def found():
    """A ball that lies 6 mm further left in moving: 4 of them by the affine; the warp stretches by a half along S."""
    grid = Grid(SHAPE, np.diag([1.0, 1.0, 1.0, 1.0]))
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).astype(float)
    centre = (np.array(SHAPE) - 1) / 2

    def ball(middle):
        return (np.linalg.norm(index - middle, axis=-1) < 12).astype(np.float32)

    fixed, moving = ball(centre), ball(centre - [6, 0, 0])
    vectors = np.zeros((*SHAPE, 3), np.float32)
    vectors[..., 0] = -2
    vectors[..., 2] = 0.5 * (index[..., 2] - centre[2])
    shift = np.eye(4)
    shift[0, 3] = -4
    return Registered(
        fixed=Volume(fixed, grid),
        moving=Volume(moving, grid),
        affine=Affine(shift),
        warp=Displacement(grid, vectors),
        moved=fixed.copy(),
        jacobian=np.full(SHAPE, 1.5, np.float32),
        fixed_labels=fixed.astype(np.int16),
        moved_labels=moving.astype(np.int16),
    )


def layer(url, plane):
    """(n, H, W) of an encoded mosaic."""
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))
    return picture.reshape(-1, plane["height"], plane["width"])


def test_the_pictures_are_the_images(found):
    drawn = draw(found)
    for plane in drawn["viewer"]["planes"]:
        layers = {name: layer(url, plane).astype(float) for name, url in plane["layers"].items()}
        assert len(plane["places"]) == len(layers["fixed"])
        # JPEG rounds edges a little.
        assert np.abs(layers["fixed"] - layers["after"]).mean() < 1
        assert np.abs(layers["before"] - layers["after"]).mean() > 10
    axial = drawn["viewer"]["planes"][0]
    columns = np.arange(SHAPE[0])
    # Millimetres to the patient's left are columns to the picture's right of the middle.
    for stage, left in (("before", 6), ("affine", 2), ("after", 0)):
        picture = layer(axial["layers"][stage], axial)[5].astype(float)
        assert (picture.sum(axis=0) @ columns) / picture.sum() == pytest.approx((SHAPE[0] - 1) / 2 + left, abs=0.2)
    jacobian = layer(axial["layers"]["jacobian"], axial)
    assert np.median(jacobian) == pytest.approx(255 * (np.log2(1.5) / 2 + 1) / 2, abs=1)


def test_clipped_intensities_share_one_scale(found):
    """moving is shown between the bounds that were used, before and after alike."""
    loud = found.moving.with_array(found.moving.array * 10)
    drawn = draw(dataclasses.replace(found, moving=loud, moved=loud.array, clip=(0.0, 20.0)))
    axial = drawn["viewer"]["planes"][0]
    for stage, most in (("before", 127), ("after", 127), ("fixed", 13)):  # half of 255, and a twentieth
        picture = layer(axial["layers"][stage], axial)
        assert np.median(picture[picture > most / 2]) == pytest.approx(most, abs=2)  # JPEG rings at edges


def test_a_mirroring_affine_is_no_fold(found):
    mirror = Affine(np.diag([-1.0, 1.0, 1.0, 1.0]))
    drawn = draw(dataclasses.replace(found, affine=mirror, jacobian=-found.jacobian))
    axial = drawn["viewer"]["planes"][0]
    assert (layer(axial["layers"]["marks"], axial) & FOLD).max() == 0
    assert "not positive" not in drawn["histogram"]


def test_the_marks(found):
    folded = np.full(SHAPE, 1.5, np.float32)
    folded[19:22, 20:28, 20:24] = -0.1
    drawn = draw(dataclasses.replace(found, jacobian=folded))
    coronal = next(plane for plane in drawn["viewer"]["planes"] if plane["name"] == "coronal")
    marks = layer(coronal["layers"]["marks"], coronal)[5]
    assert ((marks & FOLD) > 0).sum() == 3 * 4
    columns = {bit: np.nonzero((marks & bit).any(axis=0))[0].mean() for bit in (FIXED_EDGE, MOVED_EDGE)}
    assert columns[MOVED_EDGE] - columns[FIXED_EDGE] == pytest.approx(6, abs=0.5)
    # A grid drawn in moving is pressed together on fixed where the warp stretches: rows lie 1 / 1.5 as far apart.
    lines = np.nonzero(((marks & GRID_LINE) > 0).mean(axis=1) > 0.9)[0]
    across = np.nonzero(((marks & GRID_LINE) > 0).mean(axis=0) > 0.9)[0]
    assert np.diff(lines).mean() == pytest.approx(np.diff(across).mean() / 1.5, rel=0.1)


def test_what_it_says(found, tmp_path):
    text = write(tmp_path, draw(found), METRICS).read_text(encoding="utf-8")
    assert "✓ Good" in text
    for words in ("0.200", "0.500", "0.5 to 2", "SHA-256 abc", "input moving.nii.gz", "affine 1.2", "mean Dice"):
        assert words in text
    assert "&lt;moving&gt;" in text
    assert "study/moving" not in text  # where it lay is the user's business, but for the command as it was typed
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']+)""", text) == []
    assert not re.search(r"url\((?!#|['\"]?data:)", text)


def test_the_page_of_a_flat_pair(tmp_path):
    grid = Grid((30, 26), np.eye(3))
    image = np.zeros(grid.shape, np.float32)
    image[10:20, 8:18] = 1
    flat = Registered(
        fixed=Volume(image, grid),
        moving=Volume(image, grid),
        affine=Affine(np.eye(3)),
        warp=Displacement(grid, np.zeros((*grid.shape, 2), np.float32)),
        moved=image,
        jacobian=np.ones(grid.shape, np.float32),
    )
    drawn = draw(flat)
    assert [plane["name"] for plane in drawn["viewer"]["planes"]] == ["image"]
    text = write(tmp_path, drawn, {name: METRICS[name] for name in ("similarity", "deformation")}).read_text("utf-8")
    assert "label contours" not in text


def test_a_failure_says_what_is_known(found, tmp_path):
    constant = found.moving.with_array(np.zeros(SHAPE, np.float32))
    known = {"seconds": {"load": 2.0}, "command": "r2reg register a b", "versions": {"r2reg": "0.1"}}
    page = write_failure(tmp_path, "b: <no> overlap", known, {"fixed": found.fixed, "moving": constant})
    text = page.read_text(encoding="utf-8")
    assert "✗ Failed" in text
    assert "b: &lt;no&gt; overlap" in text
    assert "fixed: 40 x 48 x 44 voxels of 1 x 1 x 1 mm" in text
    assert "load 2.0" in text
    assert text.count("data:image/png") == 1  # an image of nothing has no picture


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_drives_it(found, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    page, asked, problems = write(tmp_path, draw(found), METRICS), [], []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("console", lambda message: problems.extend([message.text] if message.type == "error" else []))
        tab.goto(page.as_uri())
        tab.wait_for_selector("#viewer[data-ready=yes]")

        def pixels(n=0):
            code = f"(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])(plane{n})"
            return np.array(tab.evaluate(code)).reshape(-1, tab.evaluate(f"plane{n}.width"), 4)[..., :3]

        plain = pixels()
        tab.select_option("#a", "before")
        tab.press("#divider", "Home")  # to the left end: all of it is the second image
        second = pixels()
        tab.press("#divider", "End")
        first = pixels()
        assert np.abs(first[:, :-1] - second[:, :-1]).max() > 200, "the ball before lies elsewhere"
        tab.keyboard.press("x")
        assert (pixels()[:, 1:-1] == second[:, 1:-1]).all(), "exchanged"
        tab.keyboard.press("x")
        assert (pixels() == first).all()
        box = tab.locator("#plane0").bounding_box()
        tab.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 20)
        tab.mouse.down()
        tab.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20)
        tab.mouse.up()
        assert tab.input_value("#divider") == "25"
        tab.keyboard.press("5")
        assert tab.evaluate("document.querySelector('input[name=how]:checked').value") == "difference"
        assert pixels().max() > 200, "the ball before lies elsewhere"
        tab.keyboard.press("4")
        overlaid = pixels()
        assert (overlaid[..., 0] - overlaid[..., 2]).max() > 200, "orange where the first is alone"
        assert (overlaid[..., 2] - overlaid[..., 0]).max() > 200, "blue where the second is alone"
        tab.keyboard.press("2")
        tab.wait_for_function(
            "(window.shown ??= plane0.toDataURL()) !== plane0.toDataURL()", timeout=10_000
        )  # flickers
        tab.keyboard.press("1")
        tab.check("#jacobian")
        stretched = pixels()[20, 20]
        assert stretched[2] > stretched[1] + 5, "purple where it stretches"
        tab.uncheck("#jacobian")
        tab.check("#contours")
        tab.check("#grid")
        assert (pixels() == [230, 159, 0]).all(axis=-1).sum() > 50
        assert (pixels() == [0, 158, 115]).all(axis=-1).sum() > 50
        before = tab.inner_text("#place0")
        tab.get_by_role("slider", name="axial slice").focus()
        tab.keyboard.press("ArrowRight")
        assert tab.inner_text("#place0") != before
        assert tab.get_attribute("#slice0", "aria-valuetext") == tab.inner_text("#place0")
        assert plain.shape == pixels().shape
        tab.pdf(path=tmp_path / "page.pdf", format="A4")
        tab.set_viewport_size({"width": 390, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        browser.close()
    assert problems == []
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes())) <= 2
    assert json.loads(re.search(r'id="data">(.*?)</script>', page.read_text("utf-8")).group(1))["labels"] is True

"""The page in a real browser: what a reader sees first, on a phone, and by keyboard."""

from pathlib import Path

import pytest

from hpcgeo.measured import Traffic
from hpcgeo.records import read
from hpcgeo_analysis import report
from tests.analysis.chromium import Chromium, installed

SCORES = Path(__file__).parent / "golden" / "scores.jsonl"
RECORDS = Path(__file__).parents[2] / "profiles" / "records"

#: What stands before the first figure, and where that begins.
FIRST = """(() => {
  const figure = document.querySelector("figure"), range = document.createRange();
  range.setStart(document.body, 0);
  range.setEndBefore(figure);
  const before = range.cloneContents();
  for (const hidden of before.querySelectorAll("style, script")) hidden.remove();
  const box = figure.getBoundingClientRect();
  return {words: before.textContent.trim().split(/\\s+/).length, top: box.top, bottom: box.bottom};
})()"""
#: Elements that reach over the right edge without a region that scrolls.
CUT = """[...document.querySelectorAll("body *")].filter(each =>
  each.getClientRects().length && each.getBoundingClientRect().right > innerWidth + 1
  && !each.closest(".scroll") && !each.closest("svg")).map(each => each.outerHTML.slice(0, 120))"""
HEIGHT = "document.documentElement.scrollHeight"
SHOWN = """[...document.querySelectorAll("#points tbody tr[data-point]")]
  .filter(row => row.getClientRects().length).length"""


@pytest.fixture(scope="module")
def browser():
    program = installed()
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    opened = Chromium(program)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def silence(browser):
    """Nothing is written to the console, whatever is done."""
    yield
    assert browser.messages == []


def written(records, folder, name):
    path = folder / f"{name}.html"
    path.write_bytes(report.render(records)["report.html"])
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {
        "frontier": written(read([RECORDS / "frontier"]), folder, "frontier"),
        "local": written(read([RECORDS / "local" / "records.jsonl"]), folder, "local"),
    }


@pytest.mark.parametrize(("name", "height"), [("frontier", 6_000), ("local", 3_500)])
def test_the_answer_stands_on_the_first_screen(browser, pages, name, height):
    browser.open(pages[name])
    first = browser.js(FIRST)
    assert first["words"] <= 150
    assert first["top"] < 500 and first["bottom"] < 800
    assert browser.js(HEIGHT) < height
    assert browser.js(CUT) == []


@pytest.mark.parametrize("name", ["frontier", "local"])
def test_nothing_is_cut_on_a_phone(browser, pages, name):
    browser.open(pages[name], 390, 844)
    assert browser.js(FIRST)["top"] < 700
    assert browser.js("document.documentElement.scrollWidth") == 390
    assert browser.js(CUT) == []


def test_nothing_is_cut_on_paper(browser, pages):
    browser.open(pages["local"], 720, 1000)
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.js("dispatchEvent(new Event('beforeprint'))")
    assert browser.js("document.querySelectorAll('details:not([open])').length") == 0
    assert browser.js("document.documentElement.scrollWidth") <= 720


def test_a_dark_page_is_dark(browser, pages):
    lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] * 1"
    browser.open(pages["frontier"])
    light = browser.js(lightness)
    browser.open(pages["frontier"], dark=True)
    assert browser.js(lightness) < 60 < 200 < light


def test_one_selection_for_all_panels_and_in_the_address(browser, pages):
    browser.open(pages["frontier"])
    everything = browser.js(SHOWN)
    browser.js("document.querySelector('#pick [value=FULL_SHARD]').click()")
    visible = """[...new Set([...document.querySelectorAll("main [data-line]")]
      .filter(each => each.getClientRects().length)
      .map(each => each.dataset.line.split(" ")[0]))]"""
    assert browser.js(visible) == ["FULL_SHARD"]
    assert 0 < browser.js(SHOWN) < everything
    address = browser.js("location.hash")
    assert address == "#line=FULL_SHARD"
    browser.open(pages["frontier"], end=f"{address}&show=all&model=vit_3b_gated")
    assert browser.js(SHOWN) == 8
    assert browser.js("document.querySelector('#count').textContent") == "8 of 243"
    browser.js("document.querySelector('#everything').click()")
    assert browser.js("location.hash") == "#show=all"
    assert browser.js(SHOWN) == 243


def test_a_view_is_chosen_and_kept(browser, pages):
    browser.open(pages["frontier"], end="#view.scaling=total")
    seen = """[...new Set([...document.querySelectorAll("#scaling svg [data-view]")]
      .filter(each => each.getClientRects().length).map(each => each.dataset.view))]"""
    assert browser.js(seen) == ["total"]
    browser.js("document.querySelector('#scaling [data-view=efficiency]').click()")
    assert browser.js(seen) == ["efficiency"]


def test_a_row_opens_by_keyboard(browser, pages):
    browser.open(pages["local"])
    browser.js("document.querySelector('#points tbody button').focus()")
    browser.press("Enter", 13, "\r")
    detail = "document.querySelector('#points tr.detail')"
    said = browser.js(f"{detail}.textContent")
    assert "hpcgeo profile run mae_vit_tiny" in said and "commit" in said and "torch" in said
    assert browser.js("document.activeElement.getAttribute('aria-expanded')") == "true"
    browser.js("navigator.clipboard.writeText = text => { window.copied = text; }")
    browser.js(f"{detail}.querySelector('button').click()")
    assert browser.js("window.copied").startswith("hpcgeo profile run mae_vit_tiny ")
    browser.press(" ", 32, " ")
    assert browser.js(detail) is None


def test_an_open_row_goes_with_its_row(browser, pages):
    browser.open(pages["frontier"], end="#show=all")
    browser.js("document.querySelector('#points tbody tr[data-line=NO_SHARD] button').click()")
    seen = "document.querySelector('#points tr.detail').getClientRects().length"
    assert browser.js(seen)
    browser.js("document.querySelector('[data-pick=line][value=FULL_SHARD]').click()")
    assert not browser.js(seen)


def test_two_rows_show_only_what_differs(browser, pages):
    browser.open(pages["frontier"], end="#show=all&model=vit_base_gated&line=FULL_SHARD")
    browser.js(
        """for (const box of [...document.querySelectorAll("#points tbody input")]
             .filter(each => each.getClientRects().length).slice(0, 2)) box.click()"""
    )
    names = browser.js(
        "[...document.querySelectorAll('#compare tr > th')].map(cell => cell.textContent)"
    )
    assert names[:3] == ["only what differs", "nodes", "world_size"]
    assert "model" not in names and "images_per_s" in names


def test_parts_of_lists_are_compared_in_words(browser, make, tmp_path):
    fields = {"group": "world", "ranks": 2, "message_bytes": 8, "calls": 1, "seconds": 0.1}
    traffic = [Traffic(collective=name, **fields) for name in ("all_reduce", "all_gather")]
    records = [make(devices=n, traffic=[one]) for n, one in zip((1, 2), traffic, strict=True)]
    browser.open(written(records, tmp_path, "two"), end="#show=all")
    browser.js("for (const box of document.querySelectorAll('#points tbody input')) box.click()")
    said = browser.js("document.querySelector('#compare').textContent")
    assert "collective all_gather" in said and "[object" not in said


def test_the_table_is_sorted_and_copied(browser, pages):
    browser.open(pages["frontier"], end="#show=all&line=NO_SHARD")
    head = "[...document.querySelectorAll('#points thead button')]"
    browser.js(f"{head}.find(each => each.textContent === 'images/s').click()")
    browser.js("navigator.clipboard.writeText = text => { window.copied = text; }")
    browser.js("document.querySelector('#markdown').click()")
    lines = browser.js("window.copied").splitlines()
    at = lines[0].split(" | ").index("images/s")
    shown = [line.split(" | ")[at].replace(",", "") for line in lines[2:]]
    rates = [float(rate) for rate in shown if rate]
    assert len(shown) == browser.js(SHOWN) and rates == sorted(rates)
    assert not any(shown[len(rates) :])  # what was not timed comes last


def test_without_a_script_the_default_stands(browser, pages):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.load(pages["frontier"])
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert 40 <= browser.js(SHOWN) < 243


@pytest.mark.long
def test_a_page_of_two_thousand_points_opens(browser, make, tmp_path):
    records = [
        make(strategy, 8 * nodes, 0.1 + 0.001 * number, nodes=nodes, model=f"vit_{number}")
        for number in range(50)
        for strategy in ("DDP", "NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD", "ZERO3")
        for nodes in (1, 2, 4, 8, 16, 32, 64, 128)
    ]
    browser.open(written(records, tmp_path, "many"))
    assert browser.js("document.querySelector('#count').textContent").endswith(" of 2000")


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_of_scores(browser, tmp_path, width, dark):
    [page] = report.make([SCORES], tmp_path)
    browser.open(page, width, 800, dark=dark)
    assert browser.js(CUT) == []
    assert browser.js("document.documentElement.scrollWidth") <= width
    if width > 400:
        assert browser.js(FIRST)["top"] < 500
    shown = "document.querySelector('#board .detail dl').checkVisibility()"
    assert not browser.js(shown)
    browser.js("document.querySelector('#board .detail summary').click()")
    assert browser.js(shown) and browser.js(CUT) == []
    lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] * 1"
    assert (browser.js(lightness) < 60) == dark


def test_scores_are_not_cut_on_paper(browser, tmp_path):
    [page] = report.make([SCORES], tmp_path)
    browser.open(page, 720, 1000)
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.js("dispatchEvent(new Event('beforeprint'))")
    assert browser.js("document.documentElement.scrollWidth") <= 720 and browser.js(CUT) == []
    assert browser.js("document.querySelector('#board').getBoundingClientRect().right") <= 720

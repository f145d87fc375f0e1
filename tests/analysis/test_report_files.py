"""The report as files: whole, self-contained, and the same for the same records."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcgeo.cli.main import app
from hpcgeo.errors import InputError
from hpcgeo.measured import Memory, Wait
from hpcgeo.records import append
from hpcgeo_analysis import report
from hpcgeo_analysis.__main__ import main

GOLDEN = Path(__file__).parent / "golden" / "report.md"


@pytest.fixture
def records(tmp_path, sweep):
    path = tmp_path / "records" / "records.jsonl"
    for record in sweep:
        append(path, record)
    return path


def test_golden(sweep, links):
    """Regenerate with HPCGEO_GOLDEN=1, and read the difference."""
    text = report.render(sweep, links=[links])["report.md"].decode()
    if os.environ.get("HPCGEO_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8")


def test_two_renderings_are_equal(sweep):
    assert report.render(sweep) == report.render(sweep)


class Loads(HTMLParser):
    """Collects what a page would load, and whether drawings are said in words."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.drawn = 0
        self.spoken = 0

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        drawing = tag == "svg" and named.get("aria-hidden") != "true"
        self.drawn += drawing
        self.spoken += drawing and len(named.get("aria-label") or "") > 40
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action", "poster"):
                self.found.append(f"{tag} {name}={value}")
            if name in ("href", "xlink:href") and not (value or "").startswith("#"):
                self.found.append(f"{tag} {name}={value}")
        if tag in ("link", "iframe", "object", "embed", "base"):
            self.found.append(tag)


def test_the_page_loads_nothing(sweep):
    page = report.render(sweep)["report.html"].decode()
    loads = Loads()
    loads.feed(page)
    assert loads.found == []
    assert loads.drawn == loads.spoken > 0
    assert set(re.findall(r"https?://[^\s\"]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page


def test_colours_of_figures_follow_the_page(sweep):
    page = report.render(sweep)["report.html"].decode()
    figures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--ddp)" in figures
    assert not re.search(r"#[0-9a-f]{6}\b", figures)
    used = set(re.findall(r"var\(--([a-z0-9-]+)", page))
    assert used <= set(re.findall(r"--([a-z0-9-]+):", page)) | {"first"}


def test_order(sweep):
    text = report.render(sweep)["report.md"].decode()
    heads = re.findall(r"^## (.*)", text, flags=re.MULTILINE)
    assert heads[0] == "Strategies in percent of the fastest"
    assert heads[-3:] == ["Every point", "What was left out, and why", "How each number was made"]
    page = report.render(sweep)["report.html"].decode()
    places = [
        page.index(f'id="{name}"') for name in ("map", "scaling", "table", "omissions", "made")
    ]
    assert places == sorted(places)


#: Words that say nothing.
EMPTY = ("cannot be told apart", "no claim", "nothing else", "not measured in any row")


def test_sentences_are_short_and_say_something(sweep, links):
    text = report.render(sweep, links=[links])["report.md"].decode()
    assert not [words for words in EMPTY if words in text.lower()]
    said = [line[2:] for line in text.splitlines() if line.startswith("- ") and "**" not in line]
    long = [line for line in said if any(len(s.split()) > 18 for s in line.split(". "))]
    assert said and not long


def test_foreign_text_stays_text(make):
    bad = '<script>alert("x")</script> | `a`\nb'
    record = make(step_s=None, status="failed", error=bad, model="<b>", strategy="a & b")
    files = report.render([record])
    assert "<script>alert" not in files["report.html"].decode()
    assert "&lt;script>alert" in files["report.md"].decode()
    rows = [line for line in files["report.md"].decode().splitlines() if "alert" in line]
    assert len([row for row in rows if row.startswith("|")]) == 1
    name = "</svg><script>$\\frac{x$"
    files = report.render([make(name, n, model=name) for n in (1, 2)])
    drawn = files["figures/scaling-1.svg"]
    assert b"<script>$" not in drawn + files["report.html"]
    assert b"&lt;script&gt;$" in drawn


def test_a_blank_name_is_a_name(make):
    page = report.render([make(name) for name in ("", " ", "DDP")])["report.html"].decode()
    assert 'data-line=""' in page and 'data-line="DDP"' in page


def test_command_writes_everything(tmp_path, records):
    out = tmp_path / "out" / "deep"
    result = CliRunner().invoke(app, ["report", str(records), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(out / "report.html")
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    linked = re.findall(r"\]\((figures/[^)]*)\)", (out / "report.md").read_text("utf-8"))
    assert there == {"report.html", "report.md", "table.csv", *linked}
    assert "figures/scaling-1.svg" in linked
    for name in linked:
        drawn = (out / name).read_text("utf-8")
        assert drawn.startswith("<svg") and "<style>" in drawn and drawn.endswith("</svg>")


def test_a_file_and_its_folder_count_once(tmp_path, records):
    report.make([records, records.parent], tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert "14 records read twice and counted once." in text
    assert text.startswith("# vit_tiny on Testbed: ")


def test_an_older_report_is_replaced_whole(tmp_path, records, monkeypatch, make):
    out = tmp_path / "out"
    report.make([records], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = tmp_path / "other.jsonl"
    append(other, make(model="vit_b"))
    (out / "figures" / "mine.png").write_bytes(b"kept")

    def broken(*_):
        raise RuntimeError("halfway")

    with monkeypatch.context() as patch:
        patch.setattr(report.export, "table", broken)
        with pytest.raises(RuntimeError, match="halfway"):
            report.make([other], out)
    assert all(path.read_bytes() == content for path, content in before.items())

    report.make([other], out)
    assert "vit_b" in (out / "report.md").read_text("utf-8")
    assert sorted(path.name for path in (out / "figures").iterdir()) == [
        "mine.png",
    ]
    assert not list(out.glob(".report-*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no records in"),
        (b"\n\n", "no records in"),
        (b'{"a": 1}\n', "not a record"),
        (b"[]\n", "not a record"),
        (b"strategy,images\n", "not JSON"),
        (b"\x89PNG\r\n\xff\xfe", "not JSON"),
    ],
)
def test_foreign_input_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        report.make([path], tmp_path / "out")
    assert main([str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images_per_s": 0.0}, "images_per_s is 0.0; it must be above zero"),
        ({"comm_s": -1.0}, "comm_s is -1.0; it must be zero or above"),
        ({"spread": -0.5}, "p10 <= median <= p90"),
        ({"spread": 3.0}, "step_s.p10"),
        ({"comm_s": 1e300}, "comm_s is 1e+300; it must be zero or above and below 1e+30"),
        ({"wait": Wait(seconds=[0.0], straggler=0, late_s=-1.0)}, "wait.late_s is -1.0"),
        ({"memory": Memory(parameters_bytes=-1)}, "memory.parameters_bytes is -1"),
        ({"model": "a\0b"}, "holds what cannot be shown"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path, make, fields, message):
    append(tmp_path / "records.jsonl", make(**fields))
    with pytest.raises(InputError, match=re.escape(message)):
        report.make([tmp_path], tmp_path / "out")


def test_out_that_is_a_file(tmp_path, records):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot write the report"):
        report.make([records], tmp_path / "out")


def test_all_failed(make):
    files = report.render([make(step_s=None, status="failed", error="no memory")])
    assert not any(name.startswith("figures/") for name in files)
    assert "no memory" in files["report.html"].decode()


def test_module_runs_without_torch(tmp_path, records):
    code = (
        "import sys; from hpcgeo_analysis.__main__ import main; "
        f"assert main([{str(records)!r}, '--out', {str(tmp_path / 'out')!r}]) == 0; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    assert (tmp_path / "out" / "report.html").is_file()

"""The page of scores, of made-up scores: what shares a column, what counts, what is said."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

import hpcgeo_analysis
from hpcgeo.errors import InputError
from hpcgeo.records import append as append_record
from hpcgeo.scores import Mistake, Score, append, read
from hpcgeo_analysis import report
from hpcgeo_analysis.scores.answers import answers, lead
from hpcgeo_analysis.scores.board import board
from hpcgeo_analysis.scores.figures import by_cost, by_encoder, by_size
from tests.analysis.test_report_files import Loads

SCORES = Path(__file__).parent / "golden" / "scores.jsonl"
GOLDEN = SCORES.with_suffix(".md")


@pytest.fixture
def scores() -> list[Score]:
    return list(read(SCORES))


def one(scores, whose="encoder", **fields):
    """Return the first score of some features, changed."""
    return next(s for s in scores if s.whose == whose).model_copy(update=fields)


def written(folder, *scores):
    path = folder / "scores.jsonl"
    for score in scores:
        append(path, score)
    return path


def test_golden(tmp_path):
    """Regenerate with HPCGEO_GOLDEN=1, and read the difference."""
    assert report.make([SCORES], tmp_path) == [tmp_path / "scores.html"]
    text = (tmp_path / "scores.md").read_text("utf-8")
    if os.environ.get("HPCGEO_GOLDEN"):
        GOLDEN.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8")


def test_the_title_is_the_answer(scores):
    many = [s for s in scores if s.task == "landuse" and s.labels == 1680]
    said = "public_small leads on landuse: accuracy 0.950, ahead of random weights by 0.31"
    assert answers(board(many)).title == said
    wide = [s.model_copy(update={"low": 0.5}) if s.whose == "encoder" else s for s in many]
    assert "has the best score on landuse, level with mae_vit_base" in answers(board(wide)).title
    alone = [one(scores, leads={"random": (0.1, -0.1, 0.3)})]
    assert answers(board(alone)).title.endswith("not significantly ahead of random weights")
    beside = [s for s in scores if s.whose != "encoder"]
    assert answers(board(beside)).title.startswith("No encoder has a score on")
    many_tasks = [one(many, task=f"task {n}") for n in range(5)]
    assert answers(board(many_tasks)).title.endswith("ahead of random weights in 5 of 5")


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((0.2, 0.1, 0.3), "significantly ahead of random weights, by 0.20 (+0.100 to +0.300)"),
        (
            (0.1, -0.1, 0.3),
            "not significantly ahead of random weights (\N{MINUS SIGN}0.100 to +0.3",
        ),
        ((-0.2, -0.3, -0.1), "significantly behind random weights, by 0.20"),
        ((None, None, None), ""),
    ],
)
def test_significantly_is_an_interval_without_0(scores, ends, said):
    found = lead(one(scores, leads={"random": ends}), "random")
    assert found.startswith(said) and bool(found) == bool(said)


def test_unlike_protocols_share_no_column_unless_asked(scores):
    for name, value in {
        **{"reader": "x", "target": "x", "data": "x", "split": "validation", "samples": 7},
        **{"labels": 7, "metric": "kappa", "protocol": "knn", "image_size": 7},
        **{"normalise": "data", "refit": False},
    }.items():
        both = [one(scores), one(scores, **{name: value})]
        assert [column.title for column in board(both).columns] != ["landuse"]
        assert len(board(both).columns) == 2 and board(both).unlike == [name]
    mixed = board(scores, mixed=["labels", "refit"])
    assert [column.title for column in mixed.columns] == ["landuse (unlike in labels)", "landcover"]
    assert len(mixed.scores) == len(board(scores).scores)
    assert "As asked, scores that differ in labels share a column" in answers(mixed).trust


def test_the_newest_of_equal_weights_and_protocol_counts(scores):
    older, newer = one(scores, value=0.1, date="2026-01-01"), one(scores, date="2026-01-02")
    for order in ([older, newer], [newer, older]):
        found = board(order)
        assert found.scores == [newer] and (found.older, found.changed) == (1, 1)
    again = one(scores, date="2026-01-02", value=0.2)
    assert board([newer, again]).scores == [again], "of equal dates the last line"


def test_equal_names_are_told_apart(scores):
    run = {"encoder": "runs/one", "model": "vit_tiny", "step": 1}
    three = [
        one(scores, fingerprint="a" * 64, encoder=run),
        one(scores, fingerprint="b" * 64, encoder=run | {"step": 2}),
        one(scores, fingerprint="c" * 64, encoder=run | {"encoder": "other/one", "step": 2}),
    ]
    names = {row.name for row in board(three).rows}
    assert names == {"one, step 1", "one, step 2, bbbbbbbb", "one, step 2, cccccccc"}


def test_lower_is_better_where_the_metric_says_so(scores):
    fields = {"metric": "rmse", "better": "lower", "leads": {"random": (2.0, 1.0, 3.0)}}
    best = one(scores, value=4.0, low=3.9, high=4.1, **fields)
    worse = one(scores, value=5.0, low=4.9, high=5.1, fingerprint="f" * 64, **fields)
    [column] = board([worse, best]).columns
    assert column.encoders[0][1] == best and column.led
    assert column.beside(best, "random") == 6.0


def test_what_is_not_defined_has_no_place_in_a_figure(scores):
    empty = one(scores, value=None, low=None, high=None, leads={}, fingerprint="e" * 64)
    found = board([empty])
    assert by_encoder(found) is None and by_size(found) is None
    both = board([one(scores), empty])
    assert [name for name, _ in both.columns[0].encoders] == [
        row.name for row in both.rows if row.first.value is not None
    ]


def test_size_and_cost_are_drawn_where_they_differ(scores):
    size, cost = by_size(board(scores)), by_cost(board(scores))
    assert size and cost
    assert size.title.endswith("public_small on landuse (1,680 labels), 22.1 M parameters")
    assert cost.title.endswith("5.50 GFLOPs an image")
    [best] = [s for s in scores if s.value == 0.957]
    many = [
        best.model_copy(
            update={"fingerprint": f"{n:064}", "parameters": n * 10**6, "value": n / 40}
        )
        for n in range(1, 31)
    ]
    [crowded] = by_size(board(many)).panels
    assert crowded.count('class="hollow"') == 20, "the best ten have names"
    same = [s.model_copy(update={"parameters": 5, "flops": 5}) for s in scores]
    assert by_size(board(same)) is None and by_cost(board(same)) is None


def test_records_and_scores_of_a_folder_make_both_pages(tmp_path, sweep, scores):
    folder, out = tmp_path / "study", tmp_path / "out"
    append_record(folder / "records.jsonl", sweep[0])
    written(folder, *scores)
    run = folder / "run" / "scores.jsonl"
    run.parent.mkdir()
    run.write_text('{"step":1,"task":"a","metric":"f1","better":"higher","value":1.0}\n')
    pages = report.make([folder], out, together=["labels", "dtype"])
    assert pages == [out / "report.html", out / "scores.html"]
    assert "unlike in labels" in (out / "scores.md").read_text("utf-8")
    drawn = {path.name for path in (out / "figures").iterdir()}
    report.make([SCORES.parent / "scores.jsonl", folder / "scores.jsonl"], out)
    assert drawn <= {path.name for path in (out / "figures").iterdir()}, (
        "the other page has its own"
    )
    assert "24 scores read twice and counted once" in (out / "scores.md").read_text("utf-8")
    for place in (run, run.parent):
        with pytest.raises(InputError, match=r"what a run keeps in .* are its evaluations"):
            report.make([place], tmp_path / "none")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema_version":1', '"schema_version":2', "a record of version 2"),
        ('"task":', '"other":1,"task":', "unknown field other"),
        ('"labels":1680', '"labels":"many"', "not a record: labels"),
        ('"low":0.851', '"low":0.951', "low 0.951 is above high 0.911"),
        ('"value":0.881', '"value":NaN', "value"),
        ('"parameters":86000000', '"parameters":0', "parameters"),
        ("[100,3,1,1]", "[100,3,1]", "confusion needs 4 rows and columns"),
        ("[100,3,1,1]", "[100,3,1,-1]", "confusion"),
        ('"task":"landuse"', '"task":"a\\u0000"', "holds what cannot be shown"),
    ],
)
def test_what_cannot_be_true_is_refused(tmp_path, old, new, message):
    text = SCORES.read_text("utf-8")
    assert old in text
    (tmp_path / "scores.jsonl").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        report.make([tmp_path], tmp_path / "out")


def test_a_newer_minor_version_and_a_torn_line_are_read_on(tmp_path, scores):
    line = SCORES.read_text("utf-8").splitlines()[0]
    newer = line.replace('"schema_minor":1', '"schema_minor":9,"more":1')
    path = tmp_path / "any.jsonl"
    path.write_text(f"{line[:50]}\n{newer}\n")
    report.make([path], tmp_path / "out")
    assert "1 score of 1 encoder" in (tmp_path / "out" / "scores.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"together": ["dtype"]}, "--together dtype: scores cannot differ in this; choose from"),
        ({"together": ["metric"]}, "--together metric"),
        ({"folders": [Path("run")]}, "--run run: no effect on scores"),
    ],
)
def test_what_has_no_effect_on_scores_is_refused(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        report.make([SCORES], tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_the_page_loads_nothing_and_foreign_text_stays_text(tmp_path, scores):
    bad = '<script>alert("x")</script> | `a`'
    odd = one(scores, encoder={"encoder": bad}, command=bad, host=bad, fingerprint="d" * 64)
    report.make([written(tmp_path, *scores, odd)], tmp_path / "out")
    page = (tmp_path / "out" / "scores.html").read_text("utf-8")
    loads = Loads()
    loads.feed(page)
    assert loads.found == [] and loads.drawn == loads.spoken > 0
    assert "<script>alert" not in page
    assert "<script>alert" not in (tmp_path / "out" / "scores.md").read_text("utf-8")


def test_the_table_of_pandas_is_the_csv(tmp_path, sweep):
    pytest.importorskip("pandas")
    frame = hpcgeo_analysis.load_scores([SCORES])
    assert len(frame) == 17
    best = frame[(frame.name == "public_small") & (frame.column == "landcover")]
    assert best["value"].item() == 0.957 and best["lead.random"].item() == 0.157
    append_record(tmp_path / "records.jsonl", sweep[0])
    with pytest.raises(InputError, match="no scores there"):
        hpcgeo_analysis.load_scores([tmp_path])
    with pytest.raises(InputError, match="`load_scores` reads scores"):
        hpcgeo_analysis.load([SCORES])


def test_the_worst_mistakes_are_shown(tmp_path, scores):
    wrong = Mistake(sample=7, truth="<beach>", taken_for="runway", picture="/9j/4A==")
    score = one(scores, mistakes=(wrong, wrong.model_copy(update={"picture": None})))
    report.make([written(tmp_path, score)], tmp_path / "page")
    page = (tmp_path / "page" / "scores.html").read_text("utf-8")
    assert "The surest mistake on landuse: &lt;beach&gt;, taken for runway" in page
    assert page.count("data:image/jpeg;base64,/9j/4A==") == 1 and "<beach>" not in page
    with pytest.raises(ValidationError):
        Mistake(sample=7, truth="a", taken_for="b", picture='"onload="x')


def test_encoders_that_share_no_column_are_counted_apart(scores):
    ahead, behind = {"random": (0.1, 0.05, 0.2)}, {"random": (0.1, -0.1, 0.2)}
    some = [
        one(scores, task=f"task {n}", leads=leads, fingerprint=name, encoder={"encoder": name})
        for n, (name, leads) in enumerate([("x", ahead), ("x", behind), ("y", behind), ("z", {})])
    ]
    assert answers(board(some)).title == (
        "Significantly ahead of random weights: x in 1 of 2, y in 0 of 1; no two of them "
        "share a column"
    )


def test_scores_without_an_interval_claim_none(scores):
    """Of two locations; level with random weights, which the title says."""
    some = [one(scores, low=None, high=None, leads={"random": (0.0, None, None)})]
    found = answers(board(some))
    assert found.title.endswith("+0.000 against random weights, without an interval")
    assert "No interval where too few resamples define the score" in found.trust

"""One table of runs with tasks: what each reaches, beside simpler models and published figures.

Published figures are those of `facts/sustainbench.yaml`, for tasks of its names, readers, targets
and metrics, on their test part.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table

from hpcgeo.errors import InputError
from hpcgeo.evaluate.baselines import BASELINES
from hpcgeo.evaluate.score import (
    KEPT,
    Case,
    agree,
    defined,
    error,
    fitted,
    open_case,
    score_all,
)
from hpcgeo.files import write_text
from hpcgeo.objectives.metrics import METRICS
from hpcgeo.parallel.group import on_rank_0
from hpcgeo.tables import find, read
from hpcgeo.train.provenance import command, commit, versions
from hpcgeo.train.scores import Found

ARROWS = {"higher": "↑", "lower": "↓"}

#: What a table says, as JSON has it.
Content = dict[str, Any]


def evaluate(
    folders: Sequence[Path],
    *,
    part: str = "test",
    step: int | None = None,
    baselines: Sequence[str] = (),
    out: Path | None = None,
    force: bool = False,
) -> Content:
    """Score runs on a part of the data of their tasks; every rank calls it.

    Baselines are kept beside the table, or in the folder of the first run.

    Args:
        folders: of the runs.
        part: "test" or "validation".
        step: of the checkpoints; by default the newest of each.
        baselines: names, of which each task takes those that suit it.
        out: file to write, .json, .csv or .md.
        force: replace a file that says something else.

    Raises:
        InputError: no such run, checkpoint, part, baseline or format; runs that cannot be compared;
            the file is there, or cannot be written.
    """
    if out is not None:
        find(FORMATS, out.suffix, "format of a table")
    for name in baselines:
        find(BASELINES, name, "baseline")
    labels = _labels(folders)
    cases = {
        label: open_case(folder, part, step) for label, folder in zip(labels, folders, strict=True)
    }
    agree(list(cases.values()))
    found = dict(zip(labels, score_all(list(cases.values())), strict=True))
    kept = (out.parent if out else folders[0]) / KEPT
    first: dict[str, Case] = {}
    for case in cases.values():
        first |= {name: case for name in case.tasks if name not in first}
    try:
        rows = [
            _row(name, case, part, found, fitted(case, name, part, baselines, kept))
            for name, case in first.items()
        ]
        table = {
            "part": part,
            "runs": [_run(label, case) for label, case in cases.items()],
            "rows": rows,
            "behind": _behind(labels, rows),
            "baselines": list(baselines),
            "provenance": _provenance(),
        }
        if out is not None:
            on_rank_0(lambda: _write(out, table, force))
    except OSError as problem:
        raise InputError(f"{problem.filename or kept}: {problem.strerror}") from None
    return table


def drawn(table: Content) -> Table:
    """Return a table as a terminal shows it."""
    header, *lines = _cells(table)
    shown = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        caption=_caption(table),
        caption_justify="left",
    )
    for number, name in enumerate(header):
        words = number < 2 or name in ("best baseline", "status quo")
        # Names of tasks stay whole; of the rest, what does not fit is folded, never cut off.
        justify: Literal["left", "right"] = "left" if words else "right"
        shown.add_column(name, justify=justify, overflow="fold", no_wrap=number == 0)
    for line in lines:
        shown.add_row(*line)
    return shown


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return a short name of each run: that of its folder, or its path where that is taken."""
    names = [folder.resolve().name for folder in folders]
    labels = [
        name if names.count(name) == 1 else str(folder)
        for name, folder in zip(names, folders, strict=True)
    ]
    if len(set(labels)) < len(labels):
        raise InputError(f"the same run twice: {', '.join(map(str, folders))}")
    return labels


def _run(label: str, case: Case) -> Content:
    return {
        "run": label,
        "folder": str(case.folder),
        "step": case.step,
        "model": case.run.model.name,
        "seed": case.run.seed,
        "data": case.work.dataset.digest,
    }


def _row(
    name: str,
    case: Case,
    part: str,
    found: dict[str, list[Found]],
    baselines: dict[str, float | None],
) -> Content:
    target, task = case.sets[name].target, case.tasks[name]
    data = case.data(name)
    metric, sign = data.metric, _sign(data.metric)
    scores = {
        label: {"value": defined(one.value), "error": error(one, target.kind)}
        for label, all_ in found.items()
        for one in all_
        if one.task == name
    }
    reached = {who: value for who, value in baselines.items() if value is not None}
    best = max(reached, key=lambda who: sign * reached[who]) if reached else None
    leading = next(iter(scores.values()))["value"]
    row: Content = {
        "task": name,
        "metric": metric,
        "better": METRICS[metric].better,
        "samples": len(case.sets[name]),
        "digest": data.digest,
        "labels": task.labels,
        "scores": scores,
        "baselines": baselines,
        "best_baseline": best,
        "ahead": sign * (leading - reached[best]) if best and leading is not None else None,
    }
    published = read("sustainbench")["tasks"].get(name, {})
    said = published.get("reader"), published.get("target"), published.get("metric")
    if part == "test" and said == (data.reader, data.target, metric):
        row |= {key: published[key] for key in ("gpna", "status_quo", "method")}
    return row


def _sign(metric: str) -> int:
    return 1 if METRICS[metric].better == "higher" else -1


def _behind(labels: Sequence[str], rows: Sequence[Content]) -> list[str]:
    """Say of each run where it loses; a score that is not defined loses."""

    def loses(row: Content, label: str, other: float) -> bool:
        mine, sign = row["scores"][label]["value"], _sign(row["metric"])
        return mine is None or sign * mine < sign * other

    sentences = []
    for label in labels:
        rivals: dict[str, list[tuple[str, bool]]] = {}
        for row in (row for row in rows if label in row["scores"]):
            others = [
                ("the best baseline", row["baselines"].get(row["best_baseline"])),
                ("the status quo", row.get("status_quo")),
            ]
            if label == labels[0]:  # the others' lines would say the same again
                runs = [one["value"] for name, one in row["scores"].items() if name != label]
                sign = _sign(row["metric"])
                reached = [value for value in runs if value is not None]
                others.append(("another run", max(reached, key=lambda x: sign * x, default=None)))
            for who, other in others:
                if other is not None:
                    rivals.setdefault(who, []).append((row["task"], loses(row, label, other)))
        for who, outcomes in rivals.items():
            lost = [task for task, is_lost in outcomes if is_lost]
            sentences.append(
                f"{label}: behind {who} on {len(lost) or 'none'} of {len(outcomes)} "
                f"{'task' if len(outcomes) == 1 else 'tasks'}"
                + (f": {', '.join(lost)}" if lost else "")
            )
    return sentences


def _provenance() -> Content:
    head, changed = commit()
    return {
        "commit": head,
        "uncommitted_changes": changed,
        "command": command(),
        "versions": versions() | {"scikit-learn": version("scikit-learn")},
    }


def _cells(table: Content) -> list[list[str]]:
    """Return header and lines as people read them."""
    labels = [run["run"] for run in table["runs"]]
    rows = table["rows"]
    compared = any(row["best_baseline"] for row in rows)
    published = any("gpna" in row for row in rows)
    header = ["task", "metric", "n", *labels]
    header += ["best baseline", "ahead by"] if compared else []
    header += ["GPNA", "status quo"] if published else []
    lines = [header]
    for row in rows:
        line = [row["task"], f"{row['metric']} {ARROWS[row['better']]}", f"{row['samples']:,}"]
        line += [_score(row["scores"].get(label)) for label in labels]
        if compared:
            best = row["best_baseline"]
            line += [f"{_number(row['baselines'][best])} {best}"] if best else [""]
            line += [_number(row["ahead"], "+")]
        if published:
            known = "gpna" in row
            line += [_number(row["gpna"]) if known else ""]
            line += [f"{_number(row['status_quo'])} {row['method']}" if known else ""]
        lines.append(line)
    return lines


def _score(found: Content | None) -> str:
    if found is None:
        return ""
    if found["value"] is None:
        return "NaN"
    margin = "" if found["error"] is None else f" ± {_number(found['error'])}"
    return _number(found["value"]) + margin


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.3f}"


def _caption(table: Content) -> str:
    steps = ", ".join(f"{run['run']} at step {run['step']:,}" for run in table["runs"])
    words = [f"{table['part']} part; {steps}", "n: samples; ±: standard error"]
    if any(row["best_baseline"] for row in table["rows"]):
        words.append(
            f"ahead by: of the first run with the task, negative where the best of "
            f"{', '.join(table['baselines'])} is better"
        )
    if any("gpna" in row for row in table["rows"]):
        words.append("GPNA, status quo: as published")
    return "; ".join(words)


def _as_json(table: Content) -> str:
    return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _as_csv(table: Content) -> str:
    """Return a line for each task and whatever has a score on it."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["task", "part", "metric", "better", "samples", "who", "kind", "value", "error"])
    for row in table["rows"]:
        of_row = [row["task"], table["part"], row["metric"], row["better"], row["samples"]]
        for label, found in row["scores"].items():
            lines.writerow([*of_row, label, "run", found["value"], found["error"]])
        for name, value in row["baselines"].items():
            lines.writerow([*of_row, name, "baseline", value, None])
        if "gpna" in row:
            lines.writerow([*of_row, "GPNA", "published", row["gpna"], None])
            lines.writerow([*of_row, row["method"], "published", row["status_quo"], None])
    return text.getvalue()


def _as_markdown(table: Content) -> str:
    header, *lines = _cells(table)
    rule = ["---"] * len(header)
    rows = "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *lines))
    origin = table["provenance"]
    made = f"`{origin['command']}`, commit {origin['commit'] or 'unknown'}"
    behind = "".join(f"- {sentence}\n" for sentence in table["behind"])
    return f"{rows}\n{_caption(table)}.\n\n{behind}\n{made}\n"


#: By the end of the name of a file.
FORMATS: dict[str, Callable[[Content], str]] = {
    ".json": _as_json,
    ".csv": _as_csv,
    ".md": _as_markdown,
}


def _write(out: Path, table: Content, force: bool) -> None:
    text = FORMATS[out.suffix](table)
    if out.exists() and not force and out.read_text("utf-8", "replace") != text:
        raise InputError(f"{out} is there and says something else: --force, or another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)

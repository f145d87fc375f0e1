"""One table of runs with tasks: what each reaches, beside simpler models and published figures.

Published figures are those of `facts/sustainbench.yaml`, for tasks of its names, readers, targets
and metrics, on their test split.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich import box
from rich.table import Table

from hpcgeo.errors import InputError
from hpcgeo.evaluate.baselines import baselines as all_baselines
from hpcgeo.evaluate.score import KEPT, Case, Reached, agree, defined, fitted, open_case, score_all
from hpcgeo.evaluate.score import provenance as score_provenance
from hpcgeo.evaluate.tuned import tuned_scores
from hpcgeo.files import write_text
from hpcgeo.kinds.metrics import metrics
from hpcgeo.kinds.states import RESAMPLES, interval
from hpcgeo.parallel.group import on_rank_0
from hpcgeo.quoting import markdown
from hpcgeo.scores import Score, append
from hpcgeo.tables import find, read
from hpcgeo.workloads.scores import Found

ARROWS = {"higher": "↑", "lower": "↓"}

#: Of a score: the number, and the interval it lies in.
SAID = ("value", "low", "high")

#: What a table says, as JSON has it.
Content = dict[str, Any]


def evaluate(
    folders: Sequence[Path],
    *,
    split: str = "test",
    step: int | None = None,
    baselines: Sequence[str] = (),
    out: Path | None = None,
    force: bool = False,
    moved: Sequence[str] = (),
    scores: Path | None = None,
) -> Content:
    """Score runs on a split of the data of their tasks; every rank calls it.

    Baselines are kept beside the table, or in the folder of the first run.

    Args:
        folders: of the runs.
        split: "test" or "validation".
        step: of the checkpoints; by default the newest of each.
        baselines: names, of which each task takes those that suit it.
        out: file to write, .json, .csv or .md.
        force: replace a file that says something else.
        moved: where the data of all runs lies now, see `config_of`.
        scores: file of records that a score of each run and task is appended to.

    Raises:
        InputError: no such run, checkpoint, split, baseline or format; runs that cannot be
            compared; the file is there, or cannot be written.
    """
    if out is not None:
        find(FORMATS, out.suffix, "format of a table")
    for name in baselines:
        find(all_baselines(), name, "baseline")
    labels = _labels(folders)
    cases = {
        label: open_case(folder, split, step, moved)
        for label, folder in zip(labels, folders, strict=True)
    }
    agree(list(cases.values()))
    reached = score_all(list(cases.values()))
    found = dict(zip(labels, reached, strict=True))
    if scores is not None:
        on_rank_0(lambda: _append(scores, tuned_scores(list(cases.values()), reached, split)))
    kept = (out.parent if out else folders[0]) / KEPT
    first: dict[str, Case] = {}
    for case in cases.values():
        first |= {name: case for name in case.tasks if name not in first}
    try:
        rows = [
            _row(name, case, split, found, fitted(case, name, split, baselines, kept))
            for name, case in first.items()
        ]
        table = {
            "split": split,
            "runs": [_run(label, case) for label, case in cases.items()],
            "rows": rows,
            "behind": _behind(labels, rows),
            "baselines": list(baselines),
            "provenance": provenance(),
        }
        if out is not None:
            on_rank_0(lambda: _write(out, table, force))
    except OSError as problem:
        raise InputError(f"{problem.filename or kept}: {problem.strerror}") from None
    return table


def _append(file: Path, scores: Sequence[Score]) -> None:
    for score in scores:
        append(file, score)


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
        "data": case.work.dataset.fingerprint,
    }


def _row(
    name: str,
    case: Case,
    split: str,
    found: dict[str, list[Found]],
    baselines: dict[str, Reached],
) -> Content:
    data = case.data(name)
    metric = data.metric
    runs = {
        label: Reached(one.value, one.resampled)
        for label, all_ in found.items()
        for one in all_
        if one.task == name
    }
    published = read("sustainbench")["tasks"].get(name, {})
    said = published.get("reader"), published.get("target"), published.get("metric")
    if split != "test" or said != (data.reader, data.target, metric):
        published = {}
    best = _best(baselines, metric)
    row: Content = {
        "task": name,
        "metric": metric,
        "better": metrics()[metric].better,
        "samples": len(case.sets[name]),
        "fingerprint": data.fingerprint,
        "labels": case.tasks[name].labels,
        "scores": {label: _said(one) for label, one in runs.items()},
        "baselines": {who: _said(one) for who, one in baselines.items()},
        "best_baseline": best,
        "leads": [],
    }
    row |= {key: published[key] for key in ("gpna", "status_quo", "method") if published}
    for label, one in runs.items():
        rivals = {"the best baseline": baselines[best]} if best else {}
        if published:
            known = published["status_quo"]
            rivals["the status quo"] = Reached(known, np.full(RESAMPLES, known))
        others = {who: other for who, other in runs.items() if who != label}
        # The others' lines would say the same again.
        if label == next(iter(found)) and (rival := _best(others, metric)):
            rivals["another run"] = others[rival]
        for who, other in rivals.items():
            lead = _lead(one, other, metric)
            row["leads"].append({"run": label, "over": who} | _said(lead))
    return row


def _best(reached: Mapping[str, Reached], metric: str) -> str | None:
    """Return who has the best score that is defined."""
    known = {who: _sign(metric) * one.value for who, one in reached.items()}
    return max((who for who in known if not isnan(known[who])), key=known.__getitem__, default=None)


def _lead(one: Reached, other: Reached, metric: str) -> Reached:
    """Return by how much one is better than another, on the same samples and resamples."""
    resampled = _sign(metric) * np.subtract(one.resampled, other.resampled)
    return Reached(_sign(metric) * (one.value - other.value), resampled)


def _said(reached: Reached) -> Content:
    """Return a number and its interval of 95 %, where they are defined."""
    numbers = reached.value, *interval(reached.resampled)
    return dict(zip(SAID, map(defined, numbers), strict=True))


def _sign(metric: str) -> int:
    return 1 if metrics()[metric].better == "higher" else -1


def _behind(labels: Sequence[str], rows: Sequence[Content]) -> list[str]:
    """Say of each run where it loses; a score that is not defined loses significantly."""
    sentences = []
    for label in labels:
        rivals: dict[str, list[tuple[str, Content]]] = {}
        for row in rows:
            for lead in row["leads"]:
                if lead["run"] == label:
                    rivals.setdefault(lead["over"], []).append((row["task"], lead))
        for who, leads in rivals.items():
            lost = [
                f"{task} (significantly)" if _lost(lead) else task
                for task, lead in leads
                if lead["value"] is None or lead["value"] < 0
            ]
            sentences.append(
                f"{label}: behind {who} on {len(lost) or 'none'} of {len(leads)} "
                f"{'task' if len(leads) == 1 else 'tasks'}"
                + (f": {', '.join(lost)}" if lost else "")
            )
    return sentences


def _lost(lead: Content) -> bool:
    return lead["value"] is None or (lead["high"] or 0) < 0


def provenance() -> Content:
    """Return where a table comes from: commit, command, versions."""
    own = score_provenance()
    found = {name: own[name] for name in ("commit", "uncommitted_changes", "command")}
    return found | {"versions": own["versions"] | {"scikit-learn": version("scikit-learn")}}


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
            over = {lead["over"]: lead for lead in reversed(row["leads"])}  # of the first run
            line += [f"{_score(row['baselines'][best])} {best}"] if best else [""]
            line += [_score(over.get("the best baseline"), "+")]
        if published:
            known = "gpna" in row
            line += [f"{row['gpna']:.3f}" if known else ""]
            line += [f"{row['status_quo']:.3f} {row['method']}" if known else ""]
        lines.append(line)
    return lines


def _score(found: Content | None, sign: str = "") -> str:
    if found is None:
        return ""
    if found["value"] is None:
        return "NaN"
    low, high = found["low"], found["high"]
    among = "" if low is None else f" ({low:{sign}.3f} to {high:{sign}.3f})"
    return f"{found['value']:{sign}.3f}{among}"


def _caption(table: Content) -> str:
    steps = ", ".join(f"{run['run']} at step {run['step']:,}" for run in table["runs"])
    words = [
        f"{table['split']} split; {steps}",
        f"n: samples; in brackets the 95 % confidence interval, of {RESAMPLES:,} resamples of "
        f"clusters (samples of one location)",
    ]
    if any(row["best_baseline"] for row in table["rows"]):
        words.append(
            f"ahead by: of the first run with the task, negative where the best of "
            f"{', '.join(table['baselines'])} is better"
        )
    if any("(significantly)" in sentence for sentence in table["behind"]):
        words.append("significantly: the 95 % confidence interval of the lead is below 0")
    if any("gpna" in row for row in table["rows"]):
        words.append("GPNA, status quo: as published")
    return "; ".join(words)


def _as_json(table: Content) -> str:
    return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _as_csv(table: Content) -> str:
    """Return a line for each task and whatever has a score on it."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["task", "split", "metric", "better", "samples", "who", "kind", *SAID])
    for row in table["rows"]:
        of_row = [row["task"], table["split"], row["metric"], row["better"], row["samples"]]
        for label, found in row["scores"].items():
            lines.writerow([*of_row, label, "run", *(found[key] for key in SAID)])
        for name, found in row["baselines"].items():
            lines.writerow([*of_row, name, "baseline", *(found[key] for key in SAID)])
        if "gpna" in row:
            lines.writerow([*of_row, "GPNA", "published", row["gpna"], None, None])
            lines.writerow([*of_row, row["method"], "published", row["status_quo"], None, None])
    return text.getvalue()


def _as_markdown(table: Content) -> str:
    header, *lines = ([markdown(cell) for cell in line] for line in _cells(table))
    rule = ["---"] * len(header)
    rows = "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *lines))
    origin = table["provenance"]
    made = f"`{origin['command']}`, commit {origin['commit'] or 'unknown'}"
    behind = "".join(f"- {markdown(sentence)}\n" for sentence in table["behind"])
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

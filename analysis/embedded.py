"""The records inside of the page: JSON, in which a part that many share stands once."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hpcgeo_analysis.points import StudyPoint

#: Names the place of a shared part; no field of a record begins so.
SHARED = "$"


def embedded(points: Sequence[StudyPoint]) -> str:
    """Return the records of every point, as text that may stand inside of a page.

    Returns:
        ``{"shared": [PART, ...], "points": [[RECORD, ...], ...]}``; a part ``{"$": 3}`` is the
        fourth of the shared ones. What was not measured, or is empty, is left out.
    """
    made = [
        [record.model_dump(mode="json", exclude_none=True) for record in point.records]
        for point in points
    ]
    texts = [
        {
            name: json.dumps(value)
            for name, value in record.items()
            if value and isinstance(value, dict | list)
        }
        for own in made
        for record in own
    ]
    often = Counter(text for record in texts for text in record.values())
    places = {text: n for n, text in enumerate(t for t, times in often.items() if times > 1)}
    rows = iter(texts)
    found = [[_record(record, next(rows), places) for record in own] for own in made]
    lists = ",\n".join(f"[{','.join(own)}]" for own in found)
    text = f'{{"shared":[{",".join(places)}],\n"points":[{lists}]}}'
    return text.replace("<", "\\u003c")


def _record(record: dict[str, Any], texts: dict[str, str], places: dict[str, int]) -> str:
    parts = []
    for name, value in record.items():
        text = texts.get(name)
        if value in ([], {}):
            continue
        if text is None:
            text = json.dumps(value)
        elif text in places:
            text = f'{{"{SHARED}":{places[text]}}}'
        parts.append(f'"{name}":{text}')
    return f"{{{','.join(parts)}}}"

"""A figure of the report: a claim, panels that show it, sentences, and what is unlike."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What a page shows of one question.

    Where nothing was measured only `missing` is there: a line that says how to measure it.

    Attributes:
        anchor: where links lead.
        title: the claim, at most 18 words.
        panels: SVG drawings of one scale, 360 pixels wide, to be laid out in a grid (CSS class
            `panels`). What belongs to a line has `data-line`, to a model `data-model`; parts with
            `data-view` are seen one view at a time, all but the first have the class `off`.
        views: the views that can be chosen (key, label), the first of them shown.
        legend: of parts that are no lines: name, and the CSS value of its colour.
        caption: how to read it, in muted words below the title.
        sentences: one claim each, at most 18 words.
        footnotes: what marks in the figure mean: dagger, text.
        missing: how to measure what is not there.
    """

    anchor: str
    title: str
    panels: tuple[str, ...] = ()
    views: tuple[tuple[str, str], ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    caption: str = ""
    sentences: tuple[str, ...] = ()
    footnotes: tuple[tuple[str, str], ...] = ()
    missing: str = ""

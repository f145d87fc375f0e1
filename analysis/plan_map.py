"""The map of a machine: the way to take by size of model and nodes, what else would lose, what it
costs."""

from collections.abc import Sequence

from hpcgeo.plan.sizes import ALWAYS, IMAGES, PlanCell
from hpcgeo_analysis.figures.axes import SMALL
from hpcgeo_analysis.formatting import counted, digits
from hpcgeo_analysis.page import standalone
from hpcgeo_analysis.styles import style
from hpcgeo_analysis.svg import Canvas, element, tip

#: Pixels of a cell, and of the words before and behind the cells.
WIDE, HIGH, LEFT, RIGHT = 40.0, 22.0, 58.0, 150.0


def title(cells: Sequence[PlanCell]) -> str:
    """Return what the map says: how many layouts are the way to take somewhere, and the wall."""
    best = [cell.best.layout for cell in cells if cell.best]
    lost = max((cell.lost for cell in cells if cell.lost is not None), default=0.0)
    said = f"{counted(len(set(best)), 'layout')} to take, each somewhere"
    return f"{said}; always {ALWAYS} loses up to {lost:.0%}"


def draw(cells: Sequence[PlanCell], machine: str) -> str:
    """Return the map as a drawing of its own: letters of layouts, and below what FULL_SHARD loses.

    Args:
        cells: of one machine, by size, then nodes.
        machine: its title.
    """
    sizes = sorted({cell.parameters for cell in cells})
    counts = sorted({cell.nodes for cell in cells})
    layouts = dict.fromkeys(cell.best.layout for cell in cells if cell.best)
    keys = -(-len(layouts) // 3)
    tall = 62 + HIGH * len(sizes)
    canvas = Canvas(LEFT + WIDE * len(counts) + RIGHT, 2 * tall + 18 * keys + 46)
    canvas.text(0, 14, f"{machine}: {title(cells)}", font=12.5, bold=True)
    canvas.text(
        0,
        29,
        "MAE of 75 %, 224 px, bfloat16; rows: parameters, columns: nodes",
        "muted",
        font=SMALL,
    )
    below = f"What always {ALWAYS} loses of the images/s, percent; \N{EM DASH}: it does not fit"
    canvas.text(0, tall + 18, below, bold=True)
    cheapest = _cheapest(cells)
    for column, words in enumerate(("node-h", "MWh")):
        at = LEFT + WIDE * len(counts) + 62 + 70 * column
        canvas.text(at, 44, words, "muted", "end", SMALL)
    for top in (50.0, tall + 38):
        for column, nodes in enumerate(counts):
            x = LEFT + WIDE * (column + 0.5)
            canvas.text(x, top - 6, f"{nodes:,}", "muted", "middle", SMALL)
    for row, parameters in enumerate(reversed(sizes)):
        for top in (50.0, tall + 38):
            y = top + HIGH * (row + 0.65)
            canvas.text(LEFT - 6, y, f"{digits(parameters / 1e9)} B", "muted", "end", SMALL)
        for column, nodes in enumerate(counts):
            cell = next(c for c in cells if (c.parameters, c.nodes) == (parameters, nodes))
            place = LEFT + WIDE * column, HIGH * row
            _way(canvas, cell, place[0], 50 + place[1])
            _loss(canvas, cell, place[0], tall + 38 + place[1])
        if (least := cheapest.get(parameters)) and least.cost:
            energy = "" if least.cost.kwh is None else digits(least.cost.kwh / 1000)
            for number, words in enumerate((digits(least.cost.node_hours), energy)):
                at = LEFT + WIDE * len(counts) + 62 + 70 * number
                canvas.text(at, 50 + HIGH * (row + 0.65), words, "", "end", SMALL)
    for number, layout in enumerate(layouts):
        x, y = 230.0 * (number % 3), 2 * tall - 4 + 18 * (number // 3)
        _box(canvas, layout, x, y, 18, 14)
        canvas.text(x + 26, y + 11, layout, font=SMALL)
    notes = (
        f"node-h, MWh (by board power): of {IMAGES / 1e6:g} M images where they are fewest.",
        "Below zero: likely faster, but the slow end of its interval is slower.",
        "Behind a dot: tensor parallelism. It goes far beyond the nodes that were measured.",
    )
    for number, note in enumerate(notes):
        canvas.text(0, canvas.height - 30 + 13 * number, note, "muted", font=SMALL)
    return standalone(canvas.svg(f"{machine}: {title(cells)}"))


def _cheapest(cells: Sequence[PlanCell]) -> dict[int, PlanCell]:
    found: dict[int, PlanCell] = {}
    for cell in cells:
        best = found.get(cell.parameters)
        if cell.cost and (
            best is None or best.cost is None or cell.cost.node_hours < best.cost.node_hours
        ):
            found[cell.parameters] = cell
    return found


def _box(canvas: Canvas, layout: str, x: float, y: float, wide: float, high: float) -> None:
    look = style(layout)
    canvas.add(element("rect", x=x, y=y, width=wide, height=high, rx="2", style=f"fill:{look.css}"))


def _way(canvas: Canvas, cell: PlanCell, x: float, y: float) -> None:
    best = cell.best
    if best is None:
        canvas.text(x + WIDE / 2, y + HIGH * 0.65, "\N{MULTIPLICATION SIGN}", "muted", "middle")
        return
    words = (
        f"{best.layout}, tensor {best.parallel.tensor}, recompute {best.parallel.recompute}, "
        f"micro-batch {best.train.micro_batch}: {best.images_per_s:,.0f} images/s, {best.word}"
    )
    letter = style(best.layout).letter
    tensor = f"\N{MIDDLE DOT}{best.parallel.tensor}" if best.parallel.tensor > 1 else ""
    with canvas.group():
        canvas.add(tip(words))
        _box(canvas, best.layout, x + 1, y + 1, WIDE - 2, HIGH - 2)
        place = {"x": x + WIDE / 2, "y": y + HIGH * 0.66, "text_anchor": "middle"}
        canvas.add(element("text", letter + tensor, **place, style="font-size:10px;fill:#fff"))


def _loss(canvas: Canvas, cell: PlanCell, x: float, y: float) -> None:
    if cell.best is None:
        return
    words = "\N{EM DASH}" if cell.lost is None else f"{100 * cell.lost:.0f}"
    shade = 1.0 if cell.lost is None else cell.lost
    canvas.add(
        element(
            "rect",
            x=x + 1,
            y=y + 1,
            width=WIDE - 2,
            height=HIGH - 2,
            rx="2",
            style=f"fill:var(--full-shard);opacity:{0.08 + 0.5 * max(shade, 0):.2f}",
        )
    )
    canvas.text(x + WIDE / 2, y + HIGH * 0.66, words, anchor="middle", font=SMALL)

"""How sure the ratio of two medians of step times is.

The interval is Student's, on logarithms of medians, of two samples with one variance. Its samples
are the runs, where a side has more than one: then it covers what differs from run to run. With one
run a side its samples are `BLOCKS` stretches of consecutive steps (batch means, Schmeiser 1982,
Operations Research 30, 556): steps in a row are alike, and an interval from single steps would be
too narrow. It then covers the noise within these two runs and nothing that differs from run to run
(nodes, placement, neighbours); the degrees of freedom are those of one side alone.

How often the interval of 95 % held the true ratio of made step times (lognormal, 3 %), by the
correlation of neighbouring steps, one run a side:

| steps | 0 | 0.5 | 0.8 | 0.95 |
|---|---|---|---|---|
| 10 | 96 % | 89 % | 68 % | 37 % |
| 20 | 96 % | 94 % | 81 % | 48 % |
| 50 | 97 % | 97 % | 93 % | 70 % |
| 100 | 97 % | 97 % | 96 % | 85 % |

Where runs differ by another 2 %: 72 % with one run a side (20 steps, correlation 0.5), 94 % with
two, 95 % with three runs a side or three on one and one on the other.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

BLOCKS = 5

METHOD = (
    "ratio of median step times, B over A, with Student's interval of two samples of log medians: "
    f"of runs where a side has more than one, else of {BLOCKS} blocks of consecutive steps"
)
ALONE = "one run a side: the interval covers noise within a run only"

#: The step times of every run of a side, in their order; where they were not kept, their median.
Runs = Sequence[Sequence[float]]


def middle(runs: Runs) -> float:
    """Return the geometric mean of the runs' medians."""
    return math.exp(np.mean([math.log(np.median(run)) for run in runs]))


def interval(a: Runs, b: Runs, confidence: float) -> tuple[float, float] | None:
    """Return the interval of the ratio of medians, b over a; None where too little is known."""
    several = len(a) + len(b) > 2
    if not several and min(len(a[0]), len(b[0])) < 2 * BLOCKS:
        return None
    parts = 1 if several else BLOCKS
    samples = [
        np.log([np.median(part) for run in runs for part in np.array_split(np.asarray(run), parts)])
        for runs in (a, b)
    ]
    counts = [len(sample) for sample in samples]
    degrees = sum(counts) - 2
    variance = sum(((sample - sample.mean()) ** 2).sum() for sample in samples) / degrees
    error = math.sqrt(variance * sum(1 / count for count in counts))
    student = stdtrit(degrees if several else BLOCKS - 1, (1 + confidence) / 2)
    reach = float(student) * error
    centre = math.log(middle(b) / middle(a))
    with np.errstate(over="ignore"):
        return float(np.exp(centre - reach)), float(np.exp(centre + reach))

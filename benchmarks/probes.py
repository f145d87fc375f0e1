"""Linear protocols on cached features: settings at once against one by one, ours against peers.

    python benchmarks/probes.py --rounds 5
    python benchmarks/probes.py --samples 20000 --width 768 --classes 45 --strengths 6 --rounds 1

Features are made up: classes in a space whose variance falls like that of a ViT's features. A run
is end to end: moments, fits of all strengths, the choice on validation, the final fit to both
splits. Peers: scikit-learn's LogisticRegression, and what torchgeo-bench runs, torch's own LBFGS
with strong Wolfe (lr 1, history 10, change 1e-5, at most 1,000 iterations) for each C. Their
features are standardised as ours, in single precision. `tol 1e-6` is scikit-learn with a tolerance
at which its answers no longer depend on it; by default it stops far from the optimum of a weak
penalty. One by one is a fit and a score of each setting by itself, and one final fit. All in one
process, by turns; medians, lowest and highest, and the median of the ratios of neighbouring runs.
With --clock cpu seconds are those of the processor, which other programs on it do not lengthen.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from hpcgeo.evaluate.protocols.choice import choose, scored
from hpcgeo.evaluate.protocols.lars import MaeLinear
from hpcgeo.evaluate.protocols.linear import Logistic
from hpcgeo.evaluate.protocols.neighbours import KNN
from hpcgeo.evaluate.protocols.protocol import Described, FrozenProtocol, joined
from hpcgeo.kinds.target import Target

#: Of samples, those that are validation.
VALIDATION = 0.25
#: What a run scored at last on samples that nothing was fitted to.
Run = Callable[[], float]


class Bench:
    """Features of three splits and what is run on them."""

    def __init__(self, options: argparse.Namespace) -> None:
        rng = np.random.default_rng(0)
        size, width, classes = options.samples, options.width, options.classes
        middle = rng.normal(size=(classes, width))
        turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
        deviation = np.arange(1, width + 1) ** -options.decay

        def drawn(count: int) -> Described:
            truth = rng.integers(0, classes, count)
            noise = options.noise * rng.normal(size=(count, width))
            vectors = ((middle[truth] + noise) * deviation @ turn).astype(np.float32)
            return Described(vectors, truth, [str(n) for n in range(count)])

        self.train, self.validation = drawn(size), drawn(int(size * VALIDATION))
        self.test = drawn(int(size * VALIDATION))
        self.target = Target("classification", tuple(map(str, range(classes))))
        self.strengths = [float(c) for c in np.logspace(-6, 1, options.strengths)]

    def ours(self, protocol: FrozenProtocol, settings: list[dict[str, float]]) -> float:
        every = {"features": (self.train, self.validation)}
        found = choose(protocol, every, self.target, settings=settings)
        return self.accuracy(found.model.answers(self.test.block(slice(None)))[0])

    def accuracy(self, answers: torch.Tensor) -> float:
        return float((answers.argmax(1).cpu().numpy() == self.test.truth).mean())

    def one_by_one(self, protocol: FrozenProtocol, settings: list[dict[str, float]]) -> float:
        scores = []
        for setting in settings:
            model = protocol.fit(self.train, self.target, [setting], 0)
            (state,) = scored(model, self.validation, self.target, "accuracy", rows=protocol.rows)
            scores.append(state.compute()[0])
        best = [settings[int(np.argmax(scores))]]
        model = protocol.fit(joined(self.train, self.validation), self.target, best, 0)
        return self.accuracy(model.answers(self.test.block(slice(None)))[0])

    def standard(self) -> tuple[np.ndarray, ...]:
        scale = StandardScaler().fit(self.train.vectors)
        return tuple(scale.transform(p.vectors) for p in (self.train, self.validation, self.test))

    def peer(
        self, fit: Callable[[np.ndarray, np.ndarray, float], Callable[..., np.ndarray]]
    ) -> float:
        """Choose the strength with a peer, and fit it to both splits."""
        train, validation, test = self.standard()
        scores = []
        for c in self.strengths:
            decide = fit(train, self.train.truth, c)
            scores.append((decide(validation) == self.validation.truth).mean())
        best = self.strengths[int(np.argmax(scores))]
        both = np.concatenate([train, validation])
        truth = np.concatenate([self.train.truth, self.validation.truth])
        return float((fit(both, truth, best)(test) == self.test.truth).mean())


def scikit_learn(
    vectors: np.ndarray, truth: np.ndarray, c: float, tolerance: float = 1e-4
) -> Callable[..., np.ndarray]:
    return LogisticRegression(C=c, max_iter=5000, tol=tolerance).fit(vectors, truth).predict


def torch_lbfgs(vectors: np.ndarray, truth: np.ndarray, c: float) -> Callable[..., np.ndarray]:
    """Fit as torchgeo-bench does: its solver is this call of torch."""
    features, label = torch.from_numpy(vectors), torch.from_numpy(truth)
    layer = torch.nn.Linear(vectors.shape[1], int(label.max()) + 1)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(
        layer.parameters(),
        lr=1.0,
        max_iter=1000,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-7,
        tolerance_change=1e-5,
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = layer.weight.square().sum() / (2 * c * len(label))
        loss = F.cross_entropy(layer(features), label) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)

    @torch.no_grad()
    def decide(asked: np.ndarray) -> np.ndarray:
        return layer(torch.from_numpy(asked)).argmax(1).numpy()

    return decide


def ways(bench: Bench) -> dict[str, dict[str, Run]]:
    """Return what is compared with what; the first of each is ours."""
    strengths = [{"C": c} for c in bench.strengths]
    rates = [
        {"lr": float(lr), "weight_decay": 0.0} for lr in np.logspace(-1, 2, len(bench.strengths))
    ]
    return {
        "logistic, choice of C": {
            "ours": lambda: bench.ours(Logistic(), strengths),
            "scikit-learn": lambda: bench.peer(scikit_learn),
            "scikit-learn, tol 1e-6": lambda: bench.peer(partial(scikit_learn, tolerance=1e-6)),
            "torchgeo-bench's call": lambda: bench.peer(torch_lbfgs),
        },
        "logistic, settings": {
            "at once": lambda: bench.ours(Logistic(), strengths),
            "one by one": lambda: bench.one_by_one(Logistic(), strengths),
        },
        "MAE's linear probe, settings": {
            "at once": lambda: bench.ours(MaeLinear(), rates),
            "one by one": lambda: bench.one_by_one(MaeLinear(), rates),
        },
        "kNN, settings": {
            "at once": lambda: bench.ours(KNN(), list(KNN().settings(bench.target, 200))),
            "one by one": lambda: bench.one_by_one(KNN(), list(KNN().settings(bench.target, 200))),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=1259)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--strengths", type=int, default=20)
    parser.add_argument("--noise", type=float, default=4.0, help="deviation within a class")
    parser.add_argument("--decay", type=float, default=0.5, help="exponent of the deviations")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--only", default="", help="comparisons whose name begins so")
    options = parser.parse_args()
    bench = Bench(options)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    table = Table(
        "comparison",
        "way",
        title=f"{options.samples:,} x {options.width} features, {options.classes} classes, "
        f"{options.strengths} strengths, {torch.get_num_threads()} threads; "
        f"{options.rounds} rounds, {options.clock} clock",
    )
    for column in ("median s", "lowest", "highest", "over the first", "accuracy"):
        table.add_column(column, justify="right")
    for comparison, runs in ways(bench).items():
        if not comparison.startswith(options.only):
            continue
        times: dict[str, list[float]] = {name: [] for name in runs}
        scores = {}
        for _ in range(options.rounds):
            for name, run in runs.items():
                begin = clock()
                scores[name] = run()
                times[name].append(clock() - begin)
        first = next(iter(times.values()))
        for name, values in times.items():
            ratios = [value / ours for value, ours in zip(values, first, strict=True)]
            row = [statistics.median(values), min(values), max(values)]
            ratio = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
            cells = [f"{value:.2f}" for value in row]
            table.add_row(comparison, name, *cells, ratio, f"{scores[name]:.3f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()

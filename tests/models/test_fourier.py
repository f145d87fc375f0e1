"""The derivation, the code that computes, and the average itself (by quadrature) agree."""

import math
import subprocess
import sys

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcgeo.errors import InputError
from hpcgeo.models import derivations
from hpcgeo.models.fourier import CHARACTERISTICS, encode, frequencies

#: Every kind: even and not, with kinks, with poles on the real axis and close to it.
WRITTEN = {
    "1 + u": lambda u: 1 + u,
    "u**12": lambda u: u**12,
    "exp(2 * u) * (1 + cos(pi * u)) / 3": lambda u: np.exp(2 * u) * (1 + np.cos(np.pi * u)),
    "abs(u - 0.5) + exp(-3 * abs(u))": lambda u: np.abs(u - 0.5) + np.exp(-3 * np.abs(u)),
    "exp(-0.001 * u) * (1 - u**2)**3": lambda u: np.exp(-0.001 * u) * (1 - u**2) ** 3,
    "abs(1 - 2 * abs(u)) + sin(15 * u)**2": lambda u: (
        np.abs(1 - 2 * np.abs(u)) + np.sin(15 * u) ** 2
    ),
}
DENSITIES = {
    "uniform": np.ones_like,
    "triangular": lambda u: 1 - np.abs(u),
    "normal": lambda u: np.exp(-(u**2) / 2),
    **WRITTEN,
}
#: Half-widths (in periods of the lowest frequency): none, next to none, on both sides of a
#: change from series to closed form, many periods.
HALVES = [0.0, 1e-12, 1e-6, 1e-3, 0.1, 0.5, 0.477, 0.478, 0.9999, 1.0, 3.7, 11.0]


def rule(density: str) -> tuple[np.ndarray, np.ndarray]:
    """Return places u and weights that sum to 1: Gauss's rule on 240 panels."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    reach = 10 if density == "normal" else 1
    edges = np.linspace(-reach, reach, 241)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    u = (edges[:-1, None] + half + half * nodes).ravel()
    weights = (half * weights).ravel() * DENSITIES[density](u)
    return u, weights / weights.sum()


def sampled(x: torch.Tensor, half_width: torch.Tensor, k: torch.Tensor, density: str):
    """Return the average of the plain encoding over x + half_width u, one axis of the box a time.

    Args:
        x, half_width: (d).
        k: (K, d).
    """
    u, weights = rule(density)
    result = np.ones(len(k), dtype=complex)
    for axis in range(len(x)):
        places = x[axis].item() + half_width[axis].item() * u
        angles = 2 * np.pi * np.outer(places, k[:, axis].numpy())
        # exp(i (a + b)) = exp(i a) exp(i b), and the axes are independent
        result *= weights @ np.exp(1j * angles)
    return torch.from_numpy(np.concatenate([result.imag, result.real]))


@pytest.mark.parametrize("density", ["uniform", "triangular", "normal", "1 + u"])
def test_the_derivation_is_the_integral(density):
    """E[sin(a + b u)] = sin(a) C + cos(a) S and its sister, integrated by sympy directly."""
    a, b = sympy.Symbol("a", real=True), sympy.Symbol("b", positive=True)
    u = derivations.u
    weight, end = {
        "uniform": (sympy.Rational(1, 2), 1),
        "triangular": (1 - sympy.Abs(u), 1),
        "normal": (sympy.exp(-(u**2) / 2) / sympy.sqrt(2 * sympy.pi), sympy.oo),
        "1 + u": ((1 + u) / 2, 1),
    }[density]
    C, S = derivations.characteristic(density).subs(derivations.b, b).as_real_imag()
    averages = {sympy.sin: sympy.sin(a) * C + sympy.cos(a) * S}
    averages[sympy.cos] = sympy.cos(a) * C - sympy.sin(a) * S
    for wave, average in averages.items():
        integral = sympy.integrate(sympy.expand_trig(wave(a + b * u)) * weight, (u, -end, end))
        assert sympy.simplify(integral - average) == 0


def test_the_uniform_average_is_the_papers():
    """Equation 3: the mean of sin(2 pi k x) is itself times sin(b) / b."""
    C, S = derivations.characteristic("uniform").as_real_imag()
    assert S == 0
    assert sympy.simplify(C - sympy.sin(derivations.b) / derivations.b) == 0


@pytest.mark.parametrize("density", DENSITIES)
def test_the_code_is_the_derivation(density):
    """At so many digits that the formula can lose a hundred."""
    # 30 is a pole of sin(15 u)^2, as 0 is of all.
    b = [1e-9, 1e-3, 0.5, 2.99, 3.01, 7.14, 26.9, 27.1, 29.999999, 30 + 1e-9, 31.0, 500.0]
    b = torch.tensor(b, dtype=torch.float64)
    if density in CHARACTERISTICS:
        C, S = CHARACTERISTICS[density](b), torch.zeros_like(b)
    else:
        C, S = derivations.average(density)(b)
    formula = derivations.characteristic(density)
    for place, value in zip(b.tolist(), torch.complex(C, S).tolist(), strict=True):
        expected = formula.subs(derivations.b, sympy.Float(place, 160)).evalf(160)
        assert abs(complex(expected) - value) < 1e-10, place


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("density", DENSITIES)
def test_the_code_is_the_average(density, half):
    x, half_width = torch.tensor([0.37], dtype=torch.float64), torch.tensor([half])
    k = frequencies(1, 9, 1.0, 5.0)
    found = encode(x, half_width, k, density)
    assert (found - sampled(x, half_width, k, density)).abs().max() < 1e-6


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("dims", [2, 3])
def test_several_dimensions(density, dims):
    """A box with sides of its own, one of them zero."""
    x = torch.tensor([0.37, -1.2, 0.05], dtype=torch.float64)[:dims]
    half_width = torch.tensor([0.11, 0.0, 0.73], dtype=torch.float64).flip(0)[:dims]
    k = frequencies(dims, 40, 0.25, 4.0)
    found = encode(x, half_width, k, density)
    assert (found - sampled(x, half_width, k, density)).abs().max() < 1e-6


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("density", DENSITIES)
def test_no_spread_is_the_plain_encoding(density):
    """Equations 1 and 4, and the limit: value, slope, no NaN."""
    x = torch.rand(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    k = frequencies(2, 16, 0.5, 8.0)
    plain = 2 * math.pi * x @ k.T
    plain = torch.cat([plain.sin(), plain.cos()], dim=1).float()
    assert torch.allclose(encode(x, torch.zeros_like(x), k, density), plain, atol=1e-7, rtol=0)
    assert torch.allclose(
        encode(x, torch.full_like(x, 1e-12), k, density), plain, atol=1e-7, rtol=0
    )
    half_width = torch.zeros_like(x).requires_grad_()
    with torch.autograd.detect_anomaly(check_nan=True):
        encode(x, half_width, k, density).sum().backward()
    assert half_width.grad.isfinite().all()


def test_no_spread_is_exact():
    x, k = torch.tensor([[0.3], [17.0]], dtype=torch.float64), frequencies(1, 5, 1.0, 9.0)
    angle = 2 * math.pi * (x * k.T)
    expected = torch.cat([angle.sin(), angle.cos()], dim=1).float()
    assert torch.equal(encode(x, torch.zeros_like(x), k), expected)


@pytest.mark.parametrize("density", ["uniform", "normal", "1 + u"])
@pytest.mark.parametrize(
    ("x", "half"),
    [(0.3, math.inf), (math.nan, math.inf), (math.nan, 0.1), (0.3, math.nan), (math.inf, 0.1)],
)
def test_the_unknown_is_zero(density, x, half):
    position = torch.tensor([[x, x], [0.3, 0.4]], dtype=torch.float64)
    half_width = torch.tensor([[half, half], [0.1, 0.1]], dtype=torch.float64)
    found = encode(position, half_width, frequencies(2, 20, 0.5, 8.0), density)
    assert torch.equal(found[0], torch.zeros(40))
    assert (found[1] != 0).all()


def test_one_half_width_for_many_positions():
    x = torch.tensor([[0.3, 0.4], [math.nan, 0.1], [7.0, 9.0]], dtype=torch.float64)
    k, half_width = frequencies(2, 20, 0.5, 8.0), torch.tensor([0.1, 0.02], dtype=torch.float64)
    for density in ("uniform", "1 + u"):
        many = encode(x, half_width.expand(3, 2), k, density)
        assert torch.equal(encode(x, half_width, k, density), many)


def test_the_known_axis_is_heard():
    """With y unknown, only the frequencies along x remain, and are what they were."""
    k = frequencies(2, 20, 0.5, 8.0)
    across = (k[:, 1] == 0).repeat(2)
    half_width = torch.tensor([0.01, 0.01], dtype=torch.float64)
    both = encode(torch.tensor([0.3, 0.4], dtype=torch.float64), half_width, k)
    one = encode(torch.tensor([0.3, math.nan], dtype=torch.float64), half_width, k)
    assert across.any()
    assert torch.equal(one, torch.where(across, both, 0.0))


@given(
    x=st.floats(-1e4, 1e4),
    half=st.floats(0, 1e4),
    density=st.sampled_from(list(DENSITIES)),
)
def test_bounded_and_blind_to_the_sign_of_the_half_width(x, half, density):
    k = frequencies(1, 6, 0.01, 3.0)
    position, half_width = torch.tensor([x]), torch.tensor([half])
    found = encode(position, half_width, k, density)
    sine, cosine = found.double().chunk(2)
    assert (sine.square() + cosine.square() <= 1 + 1e-6).all()
    assert torch.equal(found, encode(position, -half_width, k, density))


@given(
    dims=st.integers(1, 3),
    count=st.integers(1, 80),
    lowest=st.floats(1e-6, 10),
    ratio=st.floats(1.5, 1e6),
)
def test_frequencies(dims, count, lowest, ratio):
    k = frequencies(dims, count, lowest, lowest * ratio)
    assert k.shape == (count, dims)
    assert k.dtype == torch.float64
    assert (k >= 0).all()
    lengths = k.norm(dim=1)
    assert lengths[0].item() == pytest.approx(lowest)
    assert (lengths.diff() > 0).all()  # none twice, none zero
    if count > 1:
        assert lengths[-1].item() == pytest.approx(lowest * ratio)
        assert lengths.log().diff().tolist() == pytest.approx(
            [math.log(ratio) / (count - 1)] * (count - 1)
        )
    assert frequencies(dims, count, lowest, lowest * ratio) is k


@pytest.mark.parametrize(("dims", "number"), [(1, 1), (2, 5), (3, 19)])
def test_directions(dims, number):
    """Axes, diagonals and those between, each as often as any other."""
    k = frequencies(dims, 3 * number, 1.0, 9.0)
    directions, counts = (
        (k / k.norm(dim=1, keepdim=True)).round(decimals=9).unique(dim=0, return_counts=True)
    )
    assert counts.tolist() == [3] * number
    wanted = [*torch.eye(dims, dtype=torch.float64), torch.full((dims,), dims**-0.5).double()]
    for direction in wanted:
        assert (directions - direction).abs().amax(1).min() < 1e-7


@pytest.mark.parametrize(("lowest", "highest"), [(0, 1), (2, 1), (-1, 1), (1, 1), (1, math.nan)])
def test_frequencies_rise(lowest, highest):
    with pytest.raises(ValueError, match="they rise"):
        frequencies(2, 8, lowest, highest)


def test_frequencies_are_real_while_a_model_is_built():
    with torch.device("meta"):
        assert frequencies(2, 7, 0.123, 4.56).device.type == "cpu"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os').system('touch evil')", "not allowed"),
        ("u.__class__", "not allowed"),
        ("(lambda: 1)()", "not allowed"),
        ("[u for u in u]", "not allowed"),
        ("u if u else 1", "not allowed"),
        ("tan(u)", "not allowed"),
        ("abs(u, u)", "not allowed"),
        ("abs(x=u)", "not allowed"),
        ("v", "'v' is not allowed"),
        ("unifrom", "uniform, triangular, normal"),
        ("'1'", "not allowed"),
        ("True", "not allowed"),
        ("u**u", "not allowed"),
        ("u**-1", "not allowed"),
        ("u**0.5", "not allowed"),
        ("9**9**9", "not allowed"),
        ("u**99", "powers multiply to more than 12"),
        ("((1 + u)**12)**12", "powers multiply to"),
        ("u**12 * u**12", "power up to 12"),
        ("(1 + u + exp(u) + exp(2 * u) + exp(3 * u) + exp(4 * u))**12", "more than 64 terms"),
        ("1e999", "not between"),
        ("exp(9999)", "factor up to"),
        ("exp(1e9 * 1e9 * 1e9)", "factor up to"),
        ("exp(exp(u))", "function of a function"),
        ("exp(-u**2)", "no straight line"),
        ("abs(u**2 - 0.5)", "no straight line"),
        ("exp(99 * u)", "rate up to 40"),
        ("1 / u", "no number to divide by"),
        ("(e + sin(u)) / cos(1)", "left after multiplying out"),
        ("1 / (2 - 2)", "no number to divide by"),
        ("", "no expression"),
        ("2 +", "no expression"),
        ("1; 2", "no expression"),
        ("\0", "no expression"),
        ("(" * 150 + ")" * 50, "no expression"),
        ("1 + " * 100 + "1", "at most 200 characters"),
        ("u", "nowhere negative"),
        ("-1", "nowhere negative"),
        ("0", "somewhere positive"),
        ("u - u", "somewhere positive"),
        ("u**2 - 0.1", "nowhere negative"),
    ],
)
def test_what_is_no_density_is_refused(text, says):
    x = torch.zeros(1)
    with pytest.raises(InputError, match=says.replace("*", r"\*")) as refusal:
        encode(x, x, frequencies(1, 4, 1.0, 2.0), text)
    assert str(refusal.value).startswith("density ")


def test_sympy_is_imported_for_an_expression_alone():
    program = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "from hpcgeo.models.fourier import encode, frequencies\n"
        "x, k = torch.zeros(1), frequencies(1, 4, 1.0, 2.0)\n"
        "[encode(x, x, k, density) for density in ('uniform', 'triangular', 'normal')]\n"
        "early = {name for name in set(sys.modules) - before if name.startswith('sympy')}\n"
        "encode(x, x, k, '1 + u')\n"
        "sys.exit(bool(early) or 'sympy' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("density", DENSITIES)
def test_an_accelerator_says_the_same(density):
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100
    k = frequencies(2, 30, 0.01, 10.0)
    there = encode(x.cuda(), (x / 50).cuda(), k.cuda(), density)
    assert torch.allclose(there.cpu(), encode(x, x / 50, k, density), atol=1e-6, rtol=0)

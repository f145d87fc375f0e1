"""The average of a Fourier encoding over an uncertain position, derived by sympy and run by torch.

A position x is known as x + h u, u distributed with the density p(u). With a = 2 pi k x and
b = 2 pi k h the encoding of GPNA's equation 1 averages (equation 3, for any p) to

    E[sin(a + b u)] = sin(a) C(b) + cos(a) S(b)        C(b) = E[cos(b u)]
    E[cos(a + b u)] = cos(a) C(b) - sin(a) S(b)        S(b) = E[sin(b u)]

so all that is to be derived is the characteristic function E[exp(i b u)] = C(b) + i S(b).
"""

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

import numpy as np
import sympy
import torch
from sympy import Expr
from torch import Tensor

from hpcgeo.errors import InputError
from hpcgeo.tables import brief

u = sympy.Symbol("u", real=True)
b = sympy.Symbol("b", real=True)

#: Densities with a name, on [-1, 1]; `normal` is the third (h is its standard deviation).
NAMED = {"uniform": "1", "triangular": "1 - abs(u)"}

#: What an expression may use beside + - * / ** and numbers.
CONSTANTS = {"u": u, "pi": sympy.pi, "e": sympy.E}
FUNCTIONS: dict[str, Callable[[Expr], Expr]] = {
    "abs": sympy.Abs,
    "cos": lambda x: (sympy.exp(sympy.I * x) + sympy.exp(-sympy.I * x)) / 2,
    "exp": sympy.exp,
    "sin": lambda x: (sympy.exp(sympy.I * x) - sympy.exp(-sympy.I * x)) / (2 * sympy.I),
}

#: Bounds of an expression, so that no text takes long or loses digits: characters, power, terms,
#: exponential rate, factor.
LONGEST, HIGHEST, MOST, STEEPEST, LARGEST = 200, 12, 64, 40, 1e12

#: Closer to a pole of the closed form than this, a series of so many terms (3^34 < 34! / 1e22);
#: so far out, u^12 has lost some three digits of sixteen, and every other power fewer.
RADIUS, TERMS = 3.0, 34


@dataclass(frozen=True)
class DensityPiece:
    """The density between two breaks: the sum of factor u^power exp(rate u), rates complex."""

    low: Expr
    high: Expr
    terms: tuple[tuple[Expr, int, Expr], ...]  # factor, power, rate

    def at(self, place: np.ndarray) -> np.ndarray:
        """Return the density at places (N) inside the piece."""
        return sum(
            (complex(factor) * place**power * np.exp(complex(rate) * place)).real
            for factor, power, rate in self.terms
        ) + np.zeros_like(place)


def characteristic(density: str) -> Expr:
    """Return E[exp(i b u)] as a sympy expression in b; its real part is C, its imaginary part S.

    Args:
        density: `uniform`, `triangular`, `normal`, or a density in u on [-1, 1].

    Raises:
        InputError: the expression is not allowed, or no density.
    """
    if density == "normal":
        bell = sympy.exp(-(u**2) / 2) / sympy.sqrt(2 * sympy.pi)
        return sympy.integrate(bell * sympy.cos(b * u), (u, -sympy.oo, sympy.oo))
    pieces = _pieces(density)
    return _integral(pieces, sympy.I * b) / _integral(pieces, sympy.Integer(0))


@lru_cache(maxsize=32)
def average(density: str) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the function that gives C(b) and S(b), both of the shape of b (float64), for torch.

    Args:
        density: a density in u on [-1, 1], as `1 + u` or `exp(-3 * abs(u))`; it need not be
            normalised. The name of a known one but `normal`, which has no need of this.

    Raises:
        InputError: the expression is not allowed, or no density.
    """
    pieces = _pieces(density)
    # On its own: where a small rate makes terms cancel, sympy takes the digits that a number needs.
    mass = sympy.N(_integral(pieces, sympy.Integer(0)), 17)
    total = sympy.N(_integral(pieces, sympy.I * b), 17)
    closed = sympy.lambdify(b, total / mass, [{"exp": torch.exp}], cse=True)
    # Where rate + i b = 0 the closed form is 0 / 0, and near there it loses digits.
    rates = {complex(rate) for piece in pieces for _, _, rate in piece.terms}
    series = {pole: _series(pieces, pole) for pole in {0.0} | {-rate.imag for rate in rates}}
    beyond = max(map(abs, series)) + 2 * RADIUS

    def average_of(b: Tensor) -> tuple[Tensor, Tensor]:
        near = {pole: (b - pole).abs() < RADIUS for pole in series}
        within = torch.stack(list(near.values())).any(0)
        # The closed form is asked far away where it is not used: a NaN stays in no gradient.
        result = closed(b.masked_fill(within, beyond).to(torch.complex128))
        for pole, here in near.items():
            result = torch.where(
                here, _horner(series[pole], torch.where(here, b - pole, 0)), result
            )
        return result.real, result.imag

    return average_of


def _integral(pieces: tuple[DensityPiece, ...], shift: Expr) -> Expr:
    """Return the integral of the density times exp(shift u)."""
    total = sympy.Integer(0)
    for piece in pieces:
        for factor, power, rate in piece.terms:
            if (s := rate + shift) == 0:
                rise = piece.high ** (power + 1) - piece.low ** (power + 1)
                total += factor * rise / (power + 1)
            else:
                primitive = _primitive(power).subs(_s, s)
                total += factor * (primitive.subs(u, piece.high) - primitive.subs(u, piece.low))
    return total


def _series(pieces: tuple[DensityPiece, ...], pole: float) -> list[complex]:
    """Return the power series of E[exp(i b u)] around b = pole: moments, by Gauss's rule."""
    nodes, weights = np.polynomial.legendre.leggauss(96)
    moments = np.zeros(TERMS, dtype=complex)
    mass = 0.0
    for piece in pieces:
        low, high = float(piece.low), float(piece.high)
        place = (low + high) / 2 + (high - low) / 2 * nodes
        density = (high - low) / 2 * weights * piece.at(place)
        mass += density.sum()
        powers = (1j * place) ** np.arange(TERMS)[:, None]
        moments += powers @ (density * np.exp(1j * pole * place))
    return [complex(m) / mass / math.factorial(n) for n, m in enumerate(moments)]


def _horner(series: list[complex], t: Tensor) -> Tensor:
    result = torch.zeros_like(t, dtype=torch.complex128)
    for factor in reversed(series):
        result = result * t + factor
    return result


_s = sympy.Symbol("s", nonzero=True)


@cache
def _primitive(power: int) -> Expr:
    return sympy.integrate(u**power * sympy.exp(_s * u), u)


@lru_cache(maxsize=32)
def _pieces(density: str) -> tuple[DensityPiece, ...]:
    """Return the density named or written in `density`, not normalised, from break to break."""
    text = NAMED.get(density, density)
    if len(text) > LONGEST:
        raise InputError(f"density {brief(text)}: at most {LONGEST} characters")
    try:
        density = _parsed(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _refused(text, "it is no expression") from None
    one = sympy.Integer(1)
    pieces = tuple(
        DensityPiece(low, high, _terms(part, text))
        for low, high, part in _cut(density, -one, one, text)
    )
    values = np.concatenate(
        [piece.at(np.linspace(float(piece.low), float(piece.high), 2001)) for piece in pieces]
    )
    if values.max() <= 0 or values.min() < -1e-9 * values.max():
        raise InputError(
            f"density {brief(text)}: it must be nowhere negative on [-1, 1] and somewhere positive"
        )
    return pieces


def _parsed(node: ast.AST, text: str, highest: int = HIGHEST) -> Expr:
    """Return the expression of a syntax tree: only what is listed here, nothing is evaluated."""

    def below(inner: ast.AST) -> Expr:
        return _parsed(inner, text, highest)

    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if value and not 1e-9 <= abs(value) <= 1e9:
                raise _refused(text, f"{brief(value)} is not between 1e-9 and 1e9")
            return sympy.Rational(repr(value))
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -below(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _bounded(below(left) + below(right), text)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _bounded(below(left) - below(right), text)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _bounded(below(left) * below(right), text)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            divisor = below(right)
            if divisor.has(u) or divisor == 0:
                raise _refused(text, f"{ast.unparse(right)} is no number to divide by")
            return _bounded(below(left) / divisor, text)
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as power)):
            if power > highest:
                raise _refused(text, f"powers multiply to more than {HIGHEST}")
            base, result = _parsed(left, text, highest // max(power, 1)), sympy.Integer(1)
            for _ in range(power):
                result = _bounded(result * base, text)
            return result
        case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in FUNCTIONS:
            argument = below(inner)
            if argument.has(sympy.exp):
                raise _refused(text, f"{ast.unparse(node)} is a function of a function")
            return FUNCTIONS[name](argument)
        case _:
            raise _refused(text, f"{brief(ast.unparse(node))} is not allowed")


def _bounded(expression: Expr, text: str) -> Expr:
    result = sympy.expand(expression)
    if len(sympy.Add.make_args(result)) > MOST:
        raise _refused(text, f"multiplied out it has more than {MOST} terms")
    return result


def _cut(density: Expr, low: Expr, high: Expr, text: str) -> list[tuple[Expr, Expr, Expr]]:
    """Return (low, high, density there), cut where the argument of an abs changes its sign."""
    bars = [bar for bar in density.atoms(sympy.Abs) if not bar.args[0].has(sympy.Abs)]
    if not bars:
        return [(low, high, density)]
    bar = min(bars, key=str)
    inside = bar.args[0]
    slope, start = _line(inside, text)
    root = -start / slope
    ends = [low, root, high] if low < root < high else [low, high]
    found = []
    for left, right in pairwise(ends):
        sign = 1 if inside.subs(u, (left + right) / 2) > 0 else -1
        found += _cut(density.subs(bar, sign * inside), left, right, text)
    return found


def _terms(density: Expr, text: str) -> tuple[tuple[Expr, int, Expr], ...]:
    """Return the density as terms (factor, power, rate): factor u^power exp(rate u)."""
    terms = []
    for term in sympy.Add.make_args(_bounded(density, text)):
        factor, rest = term.as_independent(u, as_Add=False)
        power, rate = 0, sympy.Integer(0)
        for part in sympy.Mul.make_args(rest):
            if isinstance(part, sympy.exp):
                slope, _ = _line(part.args[0], text)
                rate += slope
            elif part.is_polynomial(u):
                power += int(sympy.degree(part, u)) if part.has(u) else 0
            else:
                raise _refused(text, f"{part} is left after multiplying out")
        if power > HIGHEST or abs(complex(rate)) > STEEPEST or abs(complex(factor)) > LARGEST:
            bounds = f"power up to {HIGHEST}, rate up to {STEEPEST}, factor up to {LARGEST:g}"
            raise _refused(text, f"{term} is too steep: {bounds}")
        terms.append((factor, power, rate))
    return tuple(terms)


def _line(expression: Expr, text: str) -> tuple[Expr, Expr]:
    """Return slope and start of a straight line in u."""
    expression = sympy.expand(expression)
    slope, start = expression.coeff(u, 1), expression.coeff(u, 0)
    if slope == 0 or sympy.expand(expression - slope * u - start) != 0:
        raise _refused(text, f"{expression} is inside a function and no straight line in u")
    return slope, start


def _refused(text: str, why: str) -> InputError:
    return InputError(
        f"density {brief(text)}: {why}; name one ({', '.join([*NAMED, 'normal'])}) or write a "
        f"density in u on [-1, 1] from numbers, pi, e, + - * / **, {', '.join(FUNCTIONS)}"
    )

"""Numbers become words: sensible digits, units, lists; a missing number says so."""

from collections.abc import Sequence

NOT_MEASURED = "not measured"


def rate(value: float | None) -> str:
    """Return images per second with three significant digits below 100, whole above.

    >>> rate(0.0123), rate(8.127), rate(812.4), rate(158667.0), rate(None)
    ('0.0123', '8.13', '812', '158,667', 'not measured')
    """
    if value is None:
        return NOT_MEASURED
    if value >= 99.95:
        return f"{value:,.0f}"
    return digits(value)


def digits(value: float, count: int = 3) -> str:
    """Return `count` significant digits, without an exponent where one can be avoided.

    >>> digits(0.4), digits(12.345), digits(1234.5), digits(0.00001234)
    ('0.400', '12.3', '1234', '1.23e-05')
    """
    text = f"{value:#.{count}g}".rstrip(".")
    return f"{value:.0f}" if "e+" in text else text


def span(low: float | None, high: float | None) -> str:
    """Return ``"low to high"``, or that no spread was given."""
    return "none given" if low is None or high is None else f"{rate(low)} to {rate(high)}"


def gib(value: float | None) -> str:
    """Return bytes in GiB = 2^30.

    >>> gib(1.5 * 2**30), gib(48 * 2**20), gib(None)
    ('1.50', '0.0469', 'not measured')
    """
    return NOT_MEASURED if value is None else digits(value / 2**30)


def percent(value: float | None) -> str:
    """Return a fraction in percent.

    >>> percent(0.9142), percent(0.9962), percent(0.0712), percent(0.004), percent(None)
    ('91 %', '99.6 %', '7.1 %', '0.40 %', 'not measured')
    """
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return "0 %"
    if 0.99 <= value < 0.9995:
        return f"{value * 100:.1f} %"
    return f"{value * 100:.0f} %" if value >= 0.0995 else f"{digits(value * 100, 2)} %"


def seconds(value: float | None) -> str:
    """Return a time with its unit.

    >>> seconds(0.0), seconds(0.01234), seconds(2.5), seconds(None)
    ('0 ms', '12.3 ms', '2.50 s', 'not measured')
    """
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return "0 ms"
    return f"{digits(value * 1000)} ms" if value < 1 else f"{digits(value)} s"


def times(ratio: float) -> str:
    """Return a factor.

    >>> times(1.304), times(14.2)
    ('1.30 x', '14 x')
    """
    return f"{ratio:.2f} x" if ratio < 9.95 else f"{ratio:,.0f} x"


def flops(value: float) -> str:
    """Return FLOP/s with its prefix.

    >>> flops(191.5e12), flops(61e9)
    ('192 TFLOP/s', '61.0 GFLOP/s')
    """
    scale, unit = (1e12, "TFLOP/s") if value >= 1e12 else (1e9, "GFLOP/s")
    return f"{digits(value / scale)} {unit}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> counted(1, "device"), counted(1024, "device"), counted(2, "run")
    ('1 device', '1,024 devices', '2 runs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """Return a list in words.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def size(value: float) -> str:
    """Return bytes of a message in powers of 1,000.

    >>> size(800), size(24_000), size(2.5e6), size(3e9)
    ('800 B', '24.0 KB', '2.50 MB', '3.00 GB')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if value >= unit:
            return f"{digits(value / unit)} {name}"
    return f"{value:.0f} B"

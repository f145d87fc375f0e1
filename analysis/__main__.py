"""`python -m hpcgeo_analysis RECORDS... --out DIR` writes the report, of scores their page."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hpcgeo.errors import InputError
from hpcgeo_analysis.report import make


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; return 0, or 2 where the input is at fault (one line says what)."""
    parser = argparse.ArgumentParser(prog="python -m hpcgeo_analysis", description=__doc__)
    parser.add_argument("records", nargs="+", type=Path, help="records, scores, folders")
    parser.add_argument("--out", required=True, type=Path, help="folder of the report")
    parser.add_argument(
        "--run", action="append", default=[], type=Path, help="folder of a training run to show"
    )
    parser.add_argument(
        "--together", default="", help="keys in which lines may differ: dtype,torch"
    )
    chosen = parser.parse_args(arguments)
    keys = [key.strip() for key in chosen.together.split(",") if key.strip()]
    try:
        print(*make(chosen.records, chosen.out, chosen.run, keys), sep="\n")
    except InputError as error:
        print(f"hpcgeo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

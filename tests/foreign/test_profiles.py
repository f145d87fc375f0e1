"""Machine files, and records to compare, from anyone: work, or one clear error."""

from pathlib import Path

from hypothesis import given

from hpcgeo.errors import InputError
from hpcgeo.plan import links
from hpcgeo.profiling.compare import compare, table
from tests.foreign.mutations import damaged, many, texts
from tests.foreign.test_lines import RECORD_FILES, RECORDS

LINKS = """\
version: 1
machine: local
device: CPU, 1 thread
backend: gloo
nodes: 2
world_size: 4
method: "by hand"
hosts: [a, b]
versions: {torch: 2.13.0}
commit: null
dirty: false
created: '2026-01-01T00:00:00+00:00'
curves:
- collective: all_gather
  group: node
  ranks: 2
  nodes: 1
  latency_s: 1.0e-05
  bandwidth_bytes_per_s: 1000000000.0
  residual: 0.1
  cliffs:
  - {from_bytes: 1024, from_bytes_per_s: 9.0e+07, begins_bytes: 2048, lowest_bytes: 2048,
     lowest_bytes_per_s: 1.0e+06, recovers_bytes: null}
  points:
  - {message_bytes: 1024, seconds: 1.1e-05, p10_s: 1.0e-05, p90_s: 1.2e-05}
  - {message_bytes: 2048, seconds: 2.0e-03, p10_s: 1.9e-03, p90_s: 2.1e-03}
"""


@many
@given(content=texts(LINKS) | damaged(LINKS.encode()))
def test_machine_files(folder: Path, content: bytes) -> None:
    file = folder / "links.yaml"
    file.write_text(LINKS)
    [curve] = links.read(file).curves
    assert len(curve.sentences()) == 1
    file.write_bytes(content)
    try:
        for curve in links.read(file).curves:
            assert len(curve.sentences()) == len(curve.cliffs)
    except InputError as error:
        assert str(file) in str(error) and len(str(error)) < 2000


@many
@given(content=RECORD_FILES)
def test_comparisons(folder: Path, content: bytes) -> None:
    good, other = folder / "good.jsonl", folder / "other.jsonl"
    good.write_text("\n".join(RECORDS) + "\n")
    other.write_bytes(content)
    for a, b in ((good, other), (other, good)):
        try:
            found = compare(a, b, tolerance=0.02, confidence=0.95, between=["dtype"])
            assert table(found).row_count == len(found.pairs) > 0
            assert found.model_dump_json()
        except InputError as error:
            assert str(other) in str(error) and len(str(error)) < 2000

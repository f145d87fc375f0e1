"""A scheduler from outside the package: its jobs are processes of this host."""

from pathlib import Path

import yaml

DESK = '''
"""Jobs as processes of this host; a folder is the queue, a file a task."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

from hpcgeo.launch.schedulers import scheduler


class Desk(scheduler.Scheduler):
    name = suffix = package = "desk"
    speed = ("DESK_NICE",)
    endings = scheduler.Endings(cancelled=re.compile("^desk: CANCELLED"))

    @property
    def folder(self):
        return Path(os.environ["DESK_QUEUE"])

    def submit(self, script, name, options=""):
        (self.folder / "options").write_text(repr(shlex.split(options)))
        for number in range(int(re.search("^#DESK tasks=(.*)", script.read_text(), re.M)[1])):
            variables = {"DESK_JOB": f"{name}+{number}", "DESK_TASK": str(number)}
            with script.with_name(f"{number}.out").open("w") as out:
                process = subprocess.Popen(
                    ["bash", script], env={**os.environ, **variables}, stdout=out, stderr=out,
                    stdin=subprocess.DEVNULL, start_new_session=True,
                )
            (self.folder / f"{name}+{number}").write_text(str(process.pid))

    def queue(self):
        for file in self.folder.glob("*+[0-9]"):
            if not Path(f"{file}.ended").exists():
                name, _, number = file.name.rpartition("+")
                yield scheduler.Queued(name, int(number), file.name, True)

    def cancel(self, jobs):
        for job in jobs:
            os.killpg(int((self.folder / job).read_text()), signal.SIGKILL)
            (self.folder / f"{job}.ended").write_text("desk: CANCELLED")

    def state(self, job):
        file = self.folder / f"{job}.ended"
        return file.read_text() if file.exists() else ""

    def max_tasks(self):
        return 10

    def allocation(self, environ):
        return scheduler.Allocation(environ["DESK_JOB"]) if "DESK_JOB" in environ else None

    def started(self, environ):
        if "DESK_RANK" not in environ:
            return None
        rank, size = (
            scheduler.count(environ, variable, "desk") for variable in ("DESK_RANK", "DESK_SIZE")
        )
        return scheduler.Started((rank, size, rank, size), "localhost", environ["DESK_JOB"])


desk = Desk()
'''
SWEEP = """\
#!/bin/bash
#DESK tasks={{ tasks }}
export HPCGEO_SCHEDULER=desk DESK_SIZE={{ per_node }}
next() { hpcgeo {{ next }} {{ folder | quote }} "$DESK_TASK" "$@"; }
trap 'echo "desk: ENDED" > "$DESK_QUEUE/$DESK_JOB.ended"' EXIT
text=$(next)
while [ -n "$text" ]; do
  mapfile -t words <<< "$text"
  code=0
  for ((rank = 1; rank < DESK_SIZE; rank++)); do DESK_RANK=$rank hpcgeo "${words[@]}" & done
  DESK_RANK=0 hpcgeo "${words[@]}" || code=$?
  wait
  text=$(next --ended "$code")
done
"""
JOB = "#!/bin/bash\nhpcgeo train {{ job.recipe }} launch.machine={{ job.machine }}\n"
MACHINE = {
    "title": "A desk",
    "sources": {"none": "seen"},
    "devices_per_node": [2, "none"],
    "scheduler": "desk",
    "bins": [{"nodes": 1, "hours": 1, "source": "none"}],
}


def install(root: Path) -> Path:
    """Write what `pip install` of a package `desk` with a scheduler leaves, and machines beside."""
    for name, text in {
        "desk/__init__.py": DESK,
        "desk/templates/sweep.desk.j2": SWEEP,
        "desk/templates/job.desk.j2": JOB,
        "desk-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: desk\nVersion: 1\n",
        "desk-1.dist-info/entry_points.txt": "[hpcgeo.schedulers]\ndesk = desk:desk\n",
        "desk.yaml": yaml.safe_dump(MACHINE),
        "pbs.yaml": yaml.safe_dump(MACHINE | {"scheduler": "pbs"}),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root

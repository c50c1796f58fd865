"""`nobackfill train` for several configs, one after the other, in the processes that a launcher has started.

Usage: torchrun --nproc-per-node=2 several_runs.py CONFIG... Each run's folder is the config's path without its suffix,
and beside it each process leaves what it printed and its exit code. A launch costs more than a small run.
"""

import os
import sys
from pathlib import Path

from nobackfill.cli.app import run

for config in map(Path, sys.argv[1:]):
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        stream.flush()
        os.dup2(os.open(config.with_suffix(f".{name}{os.environ['RANK']}"), os.O_CREAT | os.O_WRONLY), stream.fileno())
    code = run(["train", str(config), "--out", str(config.with_suffix(""))])
    config.with_suffix(f".code{os.environ['RANK']}").write_text(str(code))

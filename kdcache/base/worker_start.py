"""The ways in which worker processes begin. A forked one has all that this process has, the others build it anew."""

import sys
from typing import Literal

WorkerStart = Literal["fork", "forkserver", "spawn"]
DEFAULT_START: WorkerStart = "fork" if sys.platform == "linux" else "spawn"

"""Where a job runs: the same readers, workers, id registry and commits in one process, or on a Ray cluster.

base     what a job asks of an executor
local    this process
ray      a Ray cluster, or one started on this machine
choice   which of them a run uses
"""

from __future__ import annotations

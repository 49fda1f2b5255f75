"""What the server of the worker processes imports, see `worker.py`.

It does so in silence: Beam logs which libraries it goes without.
"""

import importlib
import logging

logging.disable(logging.CRITICAL)

#: The worker itself, its stages, and what else the program imports that a worker
#: imports again as its own `__main__`.
for _name in (
    "apache_beam.runners.worker.sdk_worker_main",
    "beam_pipelines.cluster",
    "beam_pipelines.commit",
    "beam_pipelines.report",
    "beam_pipelines.rounds",
    "beam_pipelines.sources",
):
    importlib.import_module(_name)

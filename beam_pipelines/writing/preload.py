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
    "beam_pipelines.writing.cluster",
    "beam_pipelines.writing.commit",
    "beam_pipelines.reporting.report",
    "beam_pipelines.writing.rounds",
    "beam_pipelines.sources.load",
):
    importlib.import_module(_name)

"""One worker process of the local runner: Beam's own, but silent and easy to stop.

    python -m beam_pipelines.worker

is started by `runner.py`, never by hand.
"""

import logging
import signal
import sys

from apache_beam.runners.worker import sdk_worker_main


def main(argv: list[str]) -> None:
    """Serves the runner that started this process until it closes the connection."""
    # Errors reach the runner as answers; Beam's log lines would only repeat them.
    logging.disable(logging.CRITICAL)
    # Ctrl-C reaches the whole process group at once: dying is all there is to do.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sdk_worker_main.main(argv)


if __name__ == "__main__":
    main(sys.argv)

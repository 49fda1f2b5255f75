"""One worker process of the local runner: Beam's own, but silent and easy to stop.

    python -m beam_pipelines.worker

is started by `runner.py`, never by hand.
"""

import logging
import os
import signal
import sys

from beam_pipelines import lifeline


def main(argv: list[str]) -> None:
    """Serves the runner that started this process until it closes the connection."""
    # Errors reach the runner as answers; what Beam logs and prints only repeats them.
    logging.disable(logging.CRITICAL)
    sys.stderr = open(os.devnull, "w")
    # Ctrl-C reaches the whole process group, but the build decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say_farewell = lifeline.hold()
    # Importing Beam takes a second or more, in which the build may already end.
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(argv)
    say_farewell()


if __name__ == "__main__":
    main(sys.argv)

"""Silences the process that imports this: the server of the worker processes.

Errors reach the program as results. What workers print when the program is stopped
while they start would only bury its own message.
"""

import os
import sys

sys.stderr = open(os.devnull, "w")

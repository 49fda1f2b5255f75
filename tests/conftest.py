"""Before any test: TensorFlow's switches and Ctrl-C are as programs find them."""

import signal

import trainer  # noqa: F401 - sets what TensorFlow reads when it is first imported

# A shell starts what runs in the background with Ctrl-C ignored.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

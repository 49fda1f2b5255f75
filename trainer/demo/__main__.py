"""Serves a page to try a run's model: `python -m trainer.demo --run_dir=RUN`.

Drop, paste or choose a photo: the page shows the probability with the band in which the
model abstains, and the heat map. Programs send an image to `POST /predict` and get
JSON; /docs describes it. Nothing is stored, and nothing but errors is logged. Only this
machine can reach the page, unless --host says otherwise: then anyone who reaches the
address can use it, unencrypted and without a password.
"""

import contextlib
import dataclasses
import ipaddress
import os
import socket

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split

from support import command
from support.errors import output_error, usage_error
from trainer.config import check_numbers
from trainer.loop import wakeup


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """Flags of `python -m trainer.demo`."""

    run_dir: str | None = command.option(None, "Directory of a finished run.")
    host: str = command.option(
        "127.0.0.1", "Address to listen on; 0.0.0.0 is all addresses of this machine."
    )
    port: int = command.option(7860, "Port; 0 takes a free one.", (0, 65_535))

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")
        check_numbers(self)


def _listen(host: str, port: int) -> socket.socket:
    """Takes the port before anything that takes time; exit 2 or 4 if it cannot."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        cause = f"--host={host} is not found: {error}."
        raise usage_error(cause, "Name an address of this machine.") from error
    family, *_, address = addresses[0]
    try:
        return socket.create_server(address, family=family)
    except OSError as error:
        raise output_error(
            f"{host} port {port} cannot be used: {os.strerror(error.errno)}.",
            "Name another --port (0 takes a free one), or an address of this machine.",
        ) from error


def _announce(host: str, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    address = ipaddress.ip_address(listener.getsockname()[0])
    if not address.is_loopback:
        print("note: anyone who reaches this address can use the page.")
    name = "localhost" if address.is_unspecified else host
    print(f"ready: http://{f'[{name}]' if ':' in name else name}:{port}/", flush=True)


def main(argv: list[str]) -> None:
    config = command.parse_config(DemoConfig, argv)
    try:
        from trainer.demo import answers, server
    except ModuleNotFoundError as error:
        raise usage_error(
            f"The page needs {error.name}, not installed here.",
            "Install the extra: pip install -e '.[demo]'",
        ) from error
    with (
        contextlib.closing(_listen(config.host, config.port)) as listener,
        wakeup.Watch(report=lambda line: None),  # a server sleeps most of the time
    ):
        model = answers.Answers(config.run_dir)
        model.warm_up()
        _announce(config.host, listener)
        with contextlib.suppress(command.Stopped):  # the usual end
            server.make_server(model, listener, config.host).run([listener])
        print("stopped")


if __name__ == "__main__":
    command.run(main)

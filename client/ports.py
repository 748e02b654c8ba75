"""Chooses the ports of a server, and says whose fault it is when one is taken."""

import socket
from contextlib import ExitStack
from dataclasses import replace

from descry.client.serve_config import LOOPBACK, ServerSection
from descry.client.triton_wheel import ServerError


def with_free_ports(server: ServerSection) -> ServerSection:
    """The section with each port 0 replaced by a free one.

    Raises:
        ServerError: a port is in use, or the host is not this machine's.
    """
    hosts = {"grpc_port": server.host, "http_port": LOOPBACK, "metrics_port": server.metrics_host}
    with ExitStack() as held:
        ports = {}
        for name, host in hosts.items():
            port = getattr(server, name)
            if port is None:
                continue
            try:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                listener = held.enter_context(socket.create_server((host, port), family=family))
            except OSError as error:
                raise ServerError(
                    f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it or choose another port"
                ) from error
            ports[name] = listener.getsockname()[1]
    return replace(server, **ports)

"""The gRPC connection to one Descry server: certificates, headers, deadlines, and one request at a time."""

import os
import uuid
from collections.abc import Mapping
from types import TracebackType

import numpy as np
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from descry.client.errors import InvalidRequest, translate
from descry.client.results import TLS

DEFAULT_URL = "127.0.0.1:8001"

# The channel looks for a server that came back within a second; gRPC's default grows to two minutes.
CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]


class Connection:
    """A connection to one server; usable from several threads, and as a context manager.

    Attributes:
        url: `host:port` of the server's gRPC port.
        timeout: seconds given to each call.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = 10.0,
        tls: TLS | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the connection; the first call makes it.

        Args:
            url: `host:port`, without a scheme.
            timeout: seconds given to each call.
            tls: certificates of a secure connection; None is an open one.
            token: sent as `authorization: Bearer …`, for a gateway in front of the server.
            headers: further gRPC metadata, lower-case names.

        Raises:
            InvalidRequest: the address, the timeout or the certificates are wrong.
        """
        if "://" in url:
            raise InvalidRequest(
                f"{url!r}: give host:port of the gRPC port, without a scheme; for example {DEFAULT_URL}"
            )
        if not timeout > 0:
            raise InvalidRequest(f"a timeout is a number of seconds above 0, not {timeout:g}")
        self.url = url
        self.timeout = timeout
        self._headers = dict(headers or {}) | ({"authorization": f"Bearer {token}"} if token else {})
        certificates = tls or TLS()
        for path in (certificates.root_certificates, certificates.private_key, certificates.certificate_chain):
            if path is not None and not os.access(path, os.R_OK):
                raise InvalidRequest(f"cannot read the TLS file {path}")
        if (certificates.private_key is None) != (certificates.certificate_chain is None):
            # gRPC would abort the process.
            raise InvalidRequest("a client's certificate and its private key belong together: give both")
        self._triton = triton.InferenceServerClient(
            url,
            ssl=tls is not None,
            root_certificates=certificates.root_certificates,
            private_key=certificates.private_key,
            certificate_chain=certificates.certificate_chain,
            channel_args=[*CHANNEL, *_expected_name(certificates)],
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._triton.close()

    def is_ready(self, model: str) -> bool:
        """Whether Triton has loaded a model; `health.answer_a_query` tells whether it works."""
        try:
            return bool(self._triton.is_model_ready(model, headers=self._headers or None, client_timeout=self.timeout))
        except InferenceServerException:
            return False

    def infer_one(
        self, model: str, tensors: Mapping[str, np.ndarray], timeout: float | None = None
    ) -> dict[str, np.ndarray]:
        """As `infer` with a batch of one, without the batch dimension in inputs and outputs."""
        answer = self.infer(model, {name: tensor[np.newaxis] for name, tensor in tensors.items()}, timeout)
        return {name: values[0] for name, values in answer.items()}

    def infer(
        self, model: str, tensors: Mapping[str, np.ndarray], timeout: float | None = None
    ) -> dict[str, np.ndarray]:
        """Send one request; the first dimension of every input and output is the batch.

        Args:
            model: its name.
            tensors: its inputs.
            timeout: seconds; None is the connection's.

        Raises:
            DescryError: it failed.
        """
        inputs, timeout = [], timeout or self.timeout
        for name, tensor in tensors.items():
            entry = triton.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
            entry.set_data_from_numpy(tensor)
            inputs.append(entry)
        try:
            result = self._triton.infer(
                model,
                inputs,
                # Names this call in the server's log and audit log.
                request_id=uuid.uuid4().hex,
                headers=self._headers or None,
                client_timeout=timeout,
            )
        except InferenceServerException as error:
            raise translate(error, self.url, timeout) from error
        return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def bytes_tensor(value: str | bytes) -> np.ndarray:
    """One text or file as a BYTES tensor [1].

    Raises:
        InvalidRequest: the text is not valid UTF-8.
    """
    try:
        return np.array([value.encode() if isinstance(value, str) else value], np.object_)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{value!r} is not valid UTF-8") from error


def _expected_name(certificates: TLS) -> list[tuple[str, str]]:
    """The channel option for a server whose certificate has another name than the host that is called."""
    name = certificates.server_name
    return [("grpc.ssl_target_name_override", name)] if name else []

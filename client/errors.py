"""What can go wrong, in words for the person who asked: every failure of a call becomes one of these."""

from tritonclient.utils import InferenceServerException


class DescryError(Exception):
    """Any failure this client foresees; its text says what happened and what to do."""


class InvalidRequest(DescryError):
    """The request is wrong: an unknown attribute, an unreadable image, a number out of range."""


class ServerUnavailable(DescryError):
    """No server answers at the address, it is not ready, or it takes no more requests."""


class DeadlineExceeded(DescryError):
    """The server took longer than the client's timeout."""


class AccessDenied(DescryError):
    """The server asks for a key: none was sent, it is not known, or it may not make this call."""


class GalleryEmpty(DescryError):
    """The search worked, but nothing has been indexed."""


class ServerFailed(DescryError):
    """The server accepted the request and could not carry it out, or is not a Descry server."""


def translate(error: InferenceServerException, url: str, timeout: float) -> DescryError:
    """Turn Triton's gRPC failure into the error that says what to do (docs/wire.md, Errors).

    Args:
        error: as raised by tritonclient.
        url: the server's address, for the message.
        timeout: seconds that the call was given, for the message.
    """
    status = (error.status() or "").removeprefix("StatusCode.")
    text = error.message() or "no message"
    if "access denied: " in text:
        # UNIMPLEMENTED on the wire: Triton's Python backend has no PERMISSION_DENIED.
        return AccessDenied(f"{url} refuses: {text.split('access denied: ', 1)[1]}")
    if "is restricted, expecting header" in text:
        return AccessDenied(f"{url} keeps this for who runs it: {text}")
    if status == "INVALID_ARGUMENT":
        return InvalidRequest(_without_model(text))
    if status == "DEADLINE_EXCEEDED":
        return DeadlineExceeded(f"{url} gave no answer within {timeout:g} s; raise the timeout or try again")
    if status == "UNAVAILABLE":
        return _unavailable(text, url)
    if status == "NOT_FOUND" and "no available versions" in text:
        return ServerUnavailable(f"the server at {url} is shutting down or still starting: {text}")
    if status == "NOT_FOUND":
        return ServerFailed(f"the server at {url} is not a Descry server: {text}")
    if status in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return ServerFailed(f"the server at {url} refuses this client ({text}); check the token and the certificates")
    return ServerFailed(f"the server at {url} failed ({status or 'no status'}): {_without_model(text)}")


def _unavailable(text: str, url: str) -> ServerUnavailable:
    """Tell apart what gRPC calls UNAVAILABLE: nothing listens, TLS differs, a lost connection, not ready or full."""
    cause = text.rsplit(": ", 1)[-1]
    if any(sign in text for sign in ("CERTIFICATE", "SSL", "GOAWAY", "handshaker", "Hostname Verification")):
        return ServerUnavailable(f"{url} answers, but the secure connection failed ({cause}); check the TLS options")
    if "Socket closed" in text or "reset" in text:
        return ServerUnavailable(f"{url} closed the connection ({cause}): it stopped, or the TLS options differ")
    if "failed to connect" in text or "DNS resolution" in text:
        return ServerUnavailable(f"no Descry server answers at {url} ({cause}); start one with `descry serve`")
    return ServerUnavailable(f"the server at {url} is not ready: {text}")


def _without_model(text: str) -> str:
    """Drop Triton's `in ensemble 'name', ` before the message of the model that refused."""
    return text.split("', ", 1)[1] if text.startswith("in ensemble '") and "', " in text else text

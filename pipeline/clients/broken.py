"""What a connection that failed is called, whatever was spoken over it. Used by the clients that speak by urllib3."""

from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)


def words(problem: Exception) -> str:
    """An error of urllib3 in words for a user, without addresses of objects: "connection refused"."""
    match problem:
        case ProxyError():  # its cause is one of the others, about the proxy
            return "the proxy that the environment names does not answer, or refuses"
        case NameResolutionError():
            return "its name does not resolve"
        case NewConnectionError():  # a kind of ConnectTimeoutError
            return "connection refused" if "refused" in str(problem) else "cannot be connected to"
        case ConnectTimeoutError():
            return "no connection in time"
        case ReadTimeoutError():
            return "no answer in time"
        case SSLError():
            return f"its certificate is not accepted: {problem}"
        case _:
            return "the connection broke"

"""The connection to the API server as kubectl has it: by the kubeconfig, with credentials that are read again."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
import yaml
from kubernetes import client
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import kube_config
from kubernetes.stream.ws_client import PortForward, create_websocket, get_websocket_url
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from hone_cli.errors import CommandError

SECONDS = (10.0, 65.0)
"""To connect, and between two bytes of an answer: API servers end a request after 60 seconds. A computer that slept, or
left its network, would wait without an end."""
_ALIVE = {"TCP_USER_TIMEOUT": 60_000, "TCP_KEEPALIVE": 30}
"""Options of TCP, as far as this system has them: Linux gives up after so many ms without an acknowledgement, where it
would take a quarter of an hour; macOS asks after so many idle seconds. The library asks on Linux and Windows."""
_UNAUTHORIZED = 401
_OF_PROGRAMS = re.compile(r"^\w+\(.*?\): |\[Errno -?\d+\] |\s*\(_ssl\.c:\d+\)")
"""What urllib3 says of its own objects, Python of numbers, and OpenSSL of its sources."""


class ApiConnection(client.ApiClient):  # type: ignore[misc]  # the library has no types
    """Reads the credentials again if the server refuses them: a person has logged in meanwhile, or a plugin has others.

    Args:
        again: reads the credentials into the configuration again. None if they cannot change.
    """

    def __init__(self, configuration: client.Configuration, again: Callable[[], None] | None = None) -> None:
        super().__init__(configuration)
        self._again = again

    def call_api(
        self,
        method: str,
        url: str,
        header_params: dict[str, str] | None = None,
        body: Any = None,
        post_params: Any = None,
        _request_timeout: Any = None,
    ) -> Any:
        """The answer to a request, whatever its status."""
        more = (body, post_params, _request_timeout or SECONDS)
        response = super().call_api(method, url, header_params, *more)
        if response.status != _UNAUTHORIZED or self._again is None:
            return response
        response.read()
        self._again()
        self.rest_client = RESTClientObject(self.configuration)  # certificates may be others
        key = self.configuration.get_api_key_with_prefix("BearerToken")
        return super().call_api(
            method, url, {**(header_params or {}), **({"authorization": key} if key else {})}, *more
        )


class PodForward(PortForward):  # type: ignore[misc]  # the library has no types
    """A connection into a pod; it ends where the way there breaks.

    The library's thread would die of the error with a traceback, and leave whoever reads waiting.
    """

    def __init__(self, api: client.ApiClient, path: str, port: int) -> None:
        _, url, headers, *_ = api.param_serialize("GET", path, auth_settings=["BearerToken"])
        way = create_websocket(api.configuration, get_websocket_url(url, [("ports", port)]), headers)
        for name, value in _ALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                way.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        super().__init__(way, [port])

    def _proxy(self) -> None:
        with contextlib.suppress(Exception):  # of the socket, of TLS, of the WebSocket, of a frame
            super()._proxy()
        with contextlib.suppress(Exception):
            self.websocket.shutdown()
        for port in self.local_ports.values():
            port.python.close()


def read(context: str | None, configuration: client.Configuration) -> tuple[str, str]:
    """Read the kubeconfig into a configuration; gives the name of the context, and its namespace.

    Raises:
        CommandError: there is none, it is broken, or a plugin gives no credentials.
    """
    with _form_of_kubeconfig(), _failing_loudly():
        merged = _merged()
        loader = kube_config.KubeConfigLoader(
            merged.config,
            active_context=context or _current(merged.config_files),
            config_base_path=None,
            config_persister=merged.save_changes,
        )
        loader.load_and_set(configuration)
    if (hook := configuration.refresh_api_key_hook) is not None:
        configuration.refresh_api_key_hook = _loud(hook)
    if not configuration.verify_ssl:  # as its owner chose
        urllib3.disable_warnings(InsecureRequestWarning)
    configuration.keep_alive = True
    chosen = loader.current_context
    return str(chosen["name"]), str(chosen["context"].get("namespace") or "default")


def context_names() -> list[str]:
    """The contexts of the kubeconfig, whether or not one of them is current.

    Raises:
        CommandError: there is none, or it is broken.
    """
    with _form_of_kubeconfig():
        return sorted(str(each["name"]) for each in _merged().config.value.get("contexts") or ())


def _merged() -> Any:
    merged = kube_config.KubeConfigMerger(kube_config.KUBE_CONFIG_DEFAULT_LOCATION)
    if merged.config is None:
        raise kube_config.ConfigException("no kubeconfig was found")
    return merged


@contextlib.contextmanager
def _form_of_kubeconfig() -> Iterator[None]:
    """Raises CommandError with what is wrong with the kubeconfig."""
    try:
        yield
    except kube_config.ConfigException as error:
        raise CommandError(str(error).rstrip(".")) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1} of {mark.name}" if mark else ""
        raise CommandError(f"the kubeconfig is not YAML{where}") from None
    except OSError as error:
        raise CommandError(f"{error.filename or 'the kubeconfig'}: {error.strerror or error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandError(f"the kubeconfig has not the form of one: {error}") from None


def _current(files: dict[str, Any]) -> str | None:
    """The current context: as for kubectl, the first of several files that has one decides."""
    return next((str(name) for each in files.values() if (name := each.get("current-context"))), None)


def _loud(hook: Callable[[client.Configuration], None]) -> Callable[[client.Configuration], None]:
    """The library's hook, which sets itself again and only logs that a plugin fails."""

    def refresh(configuration: client.Configuration) -> None:
        try:
            with _failing_loudly():
                hook(configuration)
        except kube_config.ConfigException as error:
            raise CommandError(f"no credentials: {str(error).rstrip('.')}") from None
        finally:
            configuration.refresh_api_key_hook = refresh

    return refresh


class _Kept(logging.Handler):
    """Keeps the errors that the thread which made it logs: others may be at other work."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.words: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.words.append(record.getMessage())


@contextlib.contextmanager
def _failing_loudly() -> Iterator[None]:
    """Raises what the library logs: it goes on without credentials where a plugin gives none."""
    kept, root = _Kept(), logging.getLogger()
    root.addHandler(kept)
    try:
        yield
    finally:
        root.removeHandler(kept)
    if kept.words:
        raise kube_config.ConfigException(f"the kubeconfig gives no credentials: {_plain('; '.join(kept.words))}")


def unreachable(error: HTTPError) -> CommandError:
    """Why there was no answer, without the words for programmers."""
    pool, reason = getattr(error, "pool", None), getattr(error, "reason", None) or error
    if isinstance(inner := getattr(reason, "original_error", None), Exception):  # of a proxy
        words = f"{reason.args[0]}: {_plain(inner)}"
    else:
        words = _plain(reason)
    at = f" at {pool.scheme}://{pool.host}:{pool.port}" if pool is not None else ""
    return CommandError(f"the cluster does not answer{at}: {words}. Check network, VPN and --context")


def _plain(error: Any) -> str:
    return _OF_PROGRAMS.sub("", str(error))

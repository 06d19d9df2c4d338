"""One repository of an OCI registry (distribution specification 1.1): blobs, manifests, tokens.

Every request goes through `endpoints.http`: addresses are checked and pinned, no proxy is used, and the credentials go
to the registry and to the token server that it names, to nobody else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from urllib3.exceptions import HTTPError, SSLError

from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.delivery.capacity import detail_of, is_full
from hone_trainer.artifacts.delivery.registry_names import DOCKER_HUB, registry_of
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.endpoints.http import Resolver, checked, connect, name_of, resolve, send_to
from hone_trainer.errors import TrainerError
from hone_trainer.secrets import remember

if TYPE_CHECKING:
    import urllib3

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_TRIES = 4
_PAUSE_SECONDS = 1.0
_MAX_ANSWER = 4 * 2**20
_PIECE = 2**20
_REDIRECTS = (301, 302, 303, 307, 308)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class RegistryAnswer:
    """Status, headers and the first 4 MiB of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class ImageRepository:
    """A repository, e.g. host `registry.example.org:5000` and name `team/model`.

    Args:
        login: user name and password; None: anonymous.
        until: when every answer must be complete, by `time.monotonic`.
    """

    host: str
    name: str
    network: AllowedNetwork
    login: tuple[str, str] | None
    until: float
    resolver: Resolver = resolve
    _base: str | None = None
    _authorization: str | None = None
    _pools: dict[tuple[str, str], urllib3.HTTPConnectionPool] = field(default_factory=dict)

    def sibling(self, name: str) -> ImageRepository:
        """Another repository of this registry."""
        return ImageRepository(self.host, name, self.network, self.login, self.until, self.resolver)

    def for_another_thread(self) -> ImageRepository:
        """The same repository with connections of its own, for another thread."""
        return replace(self, _pools={})

    def size_of(self, digest: str) -> int | None:
        """Size of a blob, -1 where the registry gives none; None if the repository has none of this digest."""
        answer = self._ask("HEAD", f"blobs/{digest}")
        if answer.status == 404:
            return None
        self._expect(answer, 200)
        length = answer.headers.get("Content-Length", "")
        return int(length) if re.fullmatch("[0-9]{1,18}", length) else -1

    def upload(self, digest: str, size: int, content: Callable[[], Iterator[bytes]]) -> None:
        """Upload a blob; the registry compares it with its digest before anybody can read it.

        Raises:
            TrainerError: Destination…, DeliveryDamaged.
        """
        for attempt in range(_TRIES):
            try:
                answer = self._upload_once(digest, size, content)
            except TrainerError as error:
                if error.code != FailureCode.DESTINATION_UNREACHABLE or attempt == _TRIES - 1:
                    raise
            else:
                if answer.status < 500 or _is_full(answer) or attempt == _TRIES - 1:
                    break
            time.sleep(_PAUSE_SECONDS * 2**attempt)
        self._expect(answer, 201)
        if self.size_of(digest) != size:
            raise TrainerError(FailureCode.DELIVERY_DAMAGED, f"{self}: the blob {digest} arrived with another size")

    def _upload_once(self, digest: str, size: int, content: Callable[[], Iterator[bytes]]) -> RegistryAnswer:
        begun = self._ask("POST", "blobs/uploads/", headers={"Content-Length": "0"})
        self._expect(begun, 202)
        place = urljoin(f"{self._url()}/", begun.headers.get("Location", ""))
        place += ("&" if urlsplit(place).query else "?") + urlencode({"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        return self._send("PUT", place, headers, content)

    def download(self, digest: str, size: int) -> Iterator[bytes]:
        """A blob in pieces, compared with its digest and size after the last one.

        Raises:
            TrainerError: Destination…, DeliveryDamaged.
        """
        url, hasher, left = f"{self._url()}/{self.name}/blobs/{digest}", hashlib.sha256(), size
        try:
            response = self._opened(url)
            if response.status in _REDIRECTS:  # to where the registry keeps its blobs: without its credentials
                response = self._opened(urljoin(url, response.headers.get("Location", "")))
            if response.status != 200:
                self._expect(RegistryAnswer(response.status, response.headers, response.read(_MAX_ANSWER)), 200)
            for piece in response.stream(_PIECE):
                hasher.update(piece)
                left -= len(piece)
                yield piece
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        if left or f"sha256:{hasher.hexdigest()}" != digest:
            raise TrainerError(FailureCode.DELIVERY_DAMAGED, f"{self}: the blob {digest} arrived with other content")

    def _opened(self, url: str) -> urllib3.BaseHTTPResponse:
        """The answer to a GET, whose body is not read yet, on a connection of its own. A token may have run out."""
        answer = self._opened_once(url)
        if answer.status == 401 and self.is_own(urlsplit(url)):
            answer.close()
            self._authorization = self._log_in(answer.headers.get("WWW-Authenticate", ""))
            answer = self._opened_once(url)
        return answer

    def _opened_once(self, url: str) -> urllib3.BaseHTTPResponse:
        parts = checked(url, plain=self.network.plain(url))
        pool = connect(parts, self.network, self.until, self.resolver)
        own = {"User-Agent": "hone"}
        if self._authorization and self.is_own(parts):
            own["Authorization"] = self._authorization
        return send_to(pool, parts, "GET", own)

    def manifest(self, reference: str, media_type: str = MANIFEST_TYPE) -> tuple[str, bytes] | None:
        """Digest and text of the manifest of a tag or digest; None: there is none."""
        # CNCF Distribution 2 answers 404 about what has another type, and */* does not count.
        accept = ", ".join(dict.fromkeys((media_type, MANIFEST_TYPE, INDEX_TYPE, "*/*")))
        answer = self._ask("GET", f"manifests/{reference}", headers={"Accept": accept})
        if answer.status == 404:
            return None
        self._expect(answer, 200)
        return answer.headers.get("Docker-Content-Digest", ""), answer.body

    def put_manifest(self, reference: str, text: bytes, media_type: str = MANIFEST_TYPE) -> Mapping[str, str]:
        """Make an image or an index visible under this tag or digest. Returns the headers of the answer."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(text))}
        answer = self._ask("PUT", f"manifests/{reference}", headers, lambda: iter((text,)))
        self._expect(answer, 201)
        return answer.headers

    def __str__(self) -> str:
        return f"oci://{self.host}/{self.name}"

    def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
    ) -> RegistryAnswer:
        """One request below the repository; tried again when the server has a moment of weakness."""
        for attempt in range(_TRIES):
            answer = self._send(method, f"{self._url()}/{self.name}/{path}", headers or {}, content)
            if (answer.status < 500 and answer.status != 429) or _is_full(answer):
                break
            time.sleep(_PAUSE_SECONDS * 2**attempt if attempt < _TRIES - 1 else 0)
        return answer

    def _url(self) -> str:
        """https://host/v2, or http:// where plain connections are allowed and the server speaks nothing else."""
        if self._base is None:
            server = DOCKER_HUB if registry_of(self.host) == DOCKER_HUB else self.host
            base = f"https://{server}/v2"
            if self.network.plain(base) and not self._speaks_tls(base):
                base = f"http://{server}/v2"
            self._base = base
        return self._base

    def is_own(self, url: SplitResult) -> bool:
        """Whether it is on this registry, which names itself in lower case and without the usual port."""
        own = urlsplit(self._url())
        return (url.scheme, name_of(url)) == (own.scheme, name_of(own))

    def _speaks_tls(self, base: str) -> bool:
        try:
            self._send_once("GET", f"{base}/", {}, None)
        except SSLError as error:
            if any(words in str(error).upper() for words in ("WRONG_VERSION_NUMBER", "RECORD LAYER FAILURE")):
                return False
            raise self._unreachable(error) from None
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        return True

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], content: Callable[[], Iterator[bytes]] | None
    ) -> RegistryAnswer:
        """One request, and again with a token if the registry asks for one."""
        try:
            answer = self._send_once(method, url, headers, content)
            if answer.status == 401 and self.is_own(urlsplit(url)):
                self._authorization = self._log_in(answer.headers.get("WWW-Authenticate", ""))
                answer = self._send_once(method, url, headers, content)
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from None
        return answer

    def _send_once(
        self, method: str, url: str, headers: Mapping[str, str], content: Callable[[], Iterator[bytes]] | None
    ) -> RegistryAnswer:
        parts = checked(url, plain=self.network.plain(url))
        place = (parts.scheme, parts.netloc)
        if place not in self._pools:
            self._pools[place] = connect(parts, self.network, self.until, self.resolver)
        own = {"User-Agent": "hone", **headers}
        if self._authorization and self.is_own(parts):
            own["Authorization"] = self._authorization
        response = send_to(self._pools[place], parts, method, own, content() if content else None)
        try:
            body = response.read(_MAX_ANSWER)
        finally:
            response.release_conn() if response.length_remaining in (0, None) else response.close()
        return RegistryAnswer(response.status, response.headers, body)

    def _log_in(self, challenge: str) -> str | None:
        """The value of Authorization that a challenge asks for."""
        scheme, _, rest = challenge.partition(" ")
        basic = None
        if self.login:
            basic = "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
            remember(basic)
        if scheme.lower() != "bearer":
            return basic
        fields = dict(_CHALLENGE.findall(rest))
        query = {"service": fields.get("service", ""), "scope": f"repository:{self.name}:pull,push"}
        url = f"{fields.get('realm', '')}?{urlencode({k: v for k, v in query.items() if v})}"
        parts = checked(url, plain=self.network.plain(url))
        pool = connect(parts, self.network, self.until, self.resolver)
        response = send_to(pool, parts, "GET", {"User-Agent": "hone", **({"Authorization": basic} if basic else {})})
        body = response.read(_MAX_ANSWER)
        pool.close()
        if response.status != 200:
            message = f"{self}: the token server {parts.netloc} answers {response.status}: {self._who()}"
            raise TrainerError(FailureCode.DESTINATION_DENIED, message)
        token = str(_json(body).get("token") or _json(body).get("access_token") or "")
        remember(token)
        if not (token.isascii() and token.isprintable()):
            message = f"{self}: the token server {parts.netloc} sends a token that is not one line of ASCII"
            raise TrainerError(FailureCode.DESTINATION_REFUSED, message)
        return f"Bearer {token}"

    def _expect(self, answer: RegistryAnswer, status: int) -> None:
        """Raises what an answer other than `status` means."""
        if answer.status == status:
            return
        code, words = _first_error(answer)
        text = f"{self}: the registry answers {answer.status} {code} {words}".strip()[:500]
        if _is_full(answer):
            raise TrainerError(FailureCode.DESTINATION_FULL, text)
        if answer.status in (401, 403) or code in ("UNAUTHORIZED", "DENIED"):
            raise TrainerError(FailureCode.DESTINATION_DENIED, f"{text}: {self._who()}")
        if code in ("DIGEST_INVALID", "SIZE_INVALID", "MANIFEST_BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID"):
            raise TrainerError(FailureCode.DELIVERY_DAMAGED, text)
        if 400 <= answer.status < 500 and answer.status not in (408, 429):
            raise TrainerError(FailureCode.DESTINATION_REFUSED, text)
        raise TrainerError(FailureCode.DESTINATION_UNREACHABLE, text)

    def _who(self) -> str:
        return "the credentials of the Secret may not write there" if self.login else "it needs credentials: secretName"

    def _unreachable(self, error: Exception) -> TrainerError:
        return TrainerError(FailureCode.DESTINATION_UNREACHABLE, f"{self}: {error}"[:500])


def _first_error(answer: RegistryAnswer) -> tuple[str, str]:
    """Code, and message with detail, of the first error in a registry's answer."""
    errors = _json(answer.body).get("errors") or [{}]
    first = errors[0] if isinstance(errors, list) and isinstance(errors[0], dict) else {}
    words = (str(first.get("message", "")), detail_of(first.get("detail")))
    return str(first.get("code", "")), ": ".join(filter(None, words))


def _is_full(answer: RegistryAnswer) -> bool:
    return answer.status >= 400 and is_full(answer.status, *_first_error(answer))


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

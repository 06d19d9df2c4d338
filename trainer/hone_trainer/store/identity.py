"""Signatures without a key: Sigstore's Fulcio certifies a new key for an identity, and Rekor logs its one use."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from cryptography.x509 import Certificate, SubjectAlternativeName
from model_signing._signing import sign_sigstore
from sigstore._internal.fulcio.client import FulcioClientError
from sigstore._internal.trust import KeyringPurpose
from sigstore.errors import VerificationError
from sigstore.models import ClientTrustConfig, InvalidBundle
from sigstore.oidc import ExpiredIdentity, IdentityError, IdentityToken
from sigstore.sign import Signer, SigningContext
from sigstore.verify import Verifier, policy

from hone_api.blocks.signing import TOKEN_AUDIENCE, Identity, Keyless
from hone_api.words.failures import FailureCode
from hone_trainer import secrets
from hone_trainer.errors import StoreError

if TYPE_CHECKING:
    from model_signing._signing.signing import Payload
    from model_signing.manifest import Manifest

SECONDS = 180.0
"""For all requests of one signature: the library has no limit of its own for Fulcio and Rekor."""
_QUOTED = 300
_KUBERNETES = "https://kubernetes.io/"
"""Beginning of the names that Fulcio gives to ServiceAccounts."""


class IdentitySigner(sign_sigstore.Signer):
    """The signer of model-signing for a token in a file, whose issuer need not have a page to log in.

    Args:
        token_file: read for each signature, because the kubelet replaces it while files are hashed.

    Raises:
        StoreError: SigningTrustUnusable.
    """

    def __init__(self, keyless: Keyless, token_file: Path) -> None:
        self._signing_context = _servers(keyless)
        self._signing_context.check = self._check
        self._client_id = TOKEN_AUDIENCE
        self._keyless, self._token_file = keyless, token_file

    def sign(self, payload: Payload) -> sign_sigstore.Signature:
        """A signature, its certificate, its entry in the log and a timestamp.

        An identity that does not count leaves no entry in Rekor: its token is refused before a certificate is asked
        for, or, where the token does not say, its certificate before the signature is logged.

        Raises:
            StoreError: SigningServerUnreachable, SigningIdentityRefused.
        """
        self._identity_token = _token(self._token_file)
        done: list[sign_sigstore.Signature] = []
        problems: list[StoreError] = []

        def work() -> None:
            try:
                self._check_token()
                done.append(super(IdentitySigner, self).sign(payload))
            except Exception as error:
                problems.append(_problem(error))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(SECONDS)
        if problems:
            raise problems[0]
        if not done:
            raise _unreachable(f"no signature within {SECONDS:.0f} s: Fulcio, Rekor or the timestamps do not answer")
        return done[0]

    def why_not(self, _signature: Path) -> StoreError:
        """Why a signature that this signer has made is not one of those that count: its certificate is."""
        message = "the log or the timestamp of the signature is not by those in signing.keyless.trustConfig"
        return StoreError(FailureCode.SIGNING_TRUST_UNUSABLE, f"{message} of the chart")

    def _check_token(self) -> None:
        """That the token of a ServiceAccount can become a certificate that counts.

        Fulcio may be configured to give other names to the tokens of an issuer: where another name of the issuer is
        listed, the certificate decides.
        """
        token = self._token()
        subject = _service_account(token)
        listed = [each.subject for each in self._keyless.identities if each.issuer == token.federated_issuer]
        if subject and subject not in listed and all(each.startswith(_KUBERNETES) for each in listed):
            raise _not_listed("token", subject, token.federated_issuer)

    def _check(self, certificate: Certificate) -> None:
        if any(_is_for(each, certificate) for each in self._keyless.identities):
            return
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
        subject = ", ".join(str(each.value) for each in names)
        raise _not_listed("certificate", subject, self._token().federated_issuer)

    def _token(self) -> IdentityToken:
        return IdentityToken(str(self._identity_token), TOKEN_AUDIENCE)


class _CheckedContext(SigningContext):
    """The library's, with a check of the certificate before anything is signed and logged."""

    check: Callable[[Certificate], None]
    """Raises to refuse a certificate."""

    @contextmanager
    def signer(self, identity_token: IdentityToken, *, cache: bool = True) -> Iterator[Signer]:
        with super().signer(identity_token, cache=cache) as signer:
            self.check(signer._signing_cert())
            yield signer


def _service_account(token: IdentityToken) -> str | None:
    """The name that Fulcio gives to a ServiceAccount of a cluster; None: the token is not of one."""
    claims = token._unverified_claims.get("kubernetes.io")
    account = claims.get("serviceaccount") if isinstance(claims, dict) else None
    if not isinstance(claims, dict) or not isinstance(account, dict):
        return None
    return f"{_KUBERNETES}namespaces/{claims.get('namespace')}/serviceaccounts/{account.get('name')}"


def _not_listed(what: str, subject: str, issuer: str) -> StoreError:
    message = f"the {what} of the pod is for {subject} by {issuer}, which signing.keyless.identities"
    return _refused(f"{message} of the chart does not list")


def _token(file: Path) -> str:
    try:
        token = file.read_text().strip()
    except OSError as error:
        raise _refused(f"the pod has no token for the audience {TOKEN_AUDIENCE}: {type(error).__name__}") from None
    if not token:  # without one, the library would open a browser
        raise _refused(f"the pod's token for the audience {TOKEN_AUDIENCE} is empty")
    secrets.remember(token)
    return token


def opened(signature: Path, keyless: Keyless) -> tuple[Identity, Manifest] | None:
    """Who of the identities has signed, and what; None: no certificate of the trusted authority says so.

    Nothing is asked over the network: the file has the certificate, the log's proof and the timestamp.

    Raises:
        StoreError: SigningTrustUnusable.
    """
    _trust(keyless)
    with tempfile.TemporaryDirectory(prefix="hone-trust-") as scratch:
        trust = Path(scratch) / "trust.json"
        trust.write_text(keyless.trust_config)
        for each in keyless.identities:
            verifier = sign_sigstore.Verifier(identity=each.subject, oidc_issuer=each.issuer, trust_config=trust)
            try:
                return each, verifier.verify(sign_sigstore.Signature.read(signature))
            except Exception:  # whoever can write the folder chose its bytes: whatever is wrong, it does not count
                continue
    return None


def _is_for(identity: Identity, certificate: Certificate) -> bool:
    try:
        policy.Identity(identity=identity.subject, issuer=identity.issuer).verify(certificate)
    except VerificationError:
        return False
    return True


def _servers(keyless: Keyless) -> _CheckedContext:
    try:
        context = _CheckedContext.from_trust_config(_trust(keyless))
    except Exception as error:  # of the library and of its parser
        raise _unusable(error) from None
    assert isinstance(context, _CheckedContext)
    return context


def _trust(keyless: Keyless) -> ClientTrustConfig:
    """What is trusted can be read; the servers that sign may be none, or no longer valid."""
    try:
        config = ClientTrustConfig.from_json(keyless.trust_config)
        root = config.trusted_root
        _ = Verifier(trusted_root=root), root.get_timestamp_authorities()
        _ = root.rekor_keyring(KeyringPurpose.VERIFY), root.ct_keyring(KeyringPurpose.VERIFY)
    except Exception as error:  # of the library, of its parser, and of what stands in the certificates
        raise _unusable(error) from None
    return config


def _unusable(error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    message = f"signing.keyless.trustConfig of the chart: {type(error).__name__}: {str(error)[:_QUOTED]}"
    return StoreError(FailureCode.SIGNING_TRUST_UNUSABLE, message)


def _problem(error: Exception) -> StoreError:
    """What an error of the library means. Its own wrap those of requests, and leave out what the server said."""
    if isinstance(error, StoreError):
        return error
    cause = error.__cause__ if isinstance(error.__cause__, requests.RequestException) else error
    answer = getattr(cause, "response", None)
    reason = f"{type(cause).__name__}: {cause}" if answer is None else f"HTTP {answer.status_code}: {answer.text}"
    reason = reason[:_QUOTED]
    if isinstance(error, IdentityError | ExpiredIdentity):
        return _refused(f"the pod's token cannot be used: {reason}")
    if isinstance(error, FulcioClientError) and answer is not None and answer.status_code < 500:
        return _refused(f"Fulcio gives no certificate for the pod's token: {reason}")
    if isinstance(error, VerificationError):
        return _refused(
            f"the certificate is not by the authority in signing.keyless.trustConfig of the chart: {reason}"
        )
    if isinstance(error, InvalidBundle):
        return _unreachable(f"the log or the authority for timestamps has confirmed nothing: {reason}")
    return _unreachable(reason)


def _refused(why: str) -> StoreError:
    return StoreError(FailureCode.SIGNING_IDENTITY_REFUSED, why)


def _unreachable(why: str) -> StoreError:
    return StoreError(FailureCode.SIGNING_SERVER_UNREACHABLE, why)

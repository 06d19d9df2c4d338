"""Signatures without a key, by a whole Sigstore on this machine and by the library's own command line."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from model_signing import hashing
from support.servers import listening
from support.servers.keyless_pods import ACCOUNT, SUBJECT, Pod, Signed, keyless, refusal
from support.servers.keyless_servers import Sigstore
from support.servers.signing_key import Key
from support.servers.token_issuer import TokenIssuer

from hone_api.blocks.signing import Identity, Keyless
from hone_api.contract.report import SignResult
from hone_api.plan import ArtifactInput, SignPlan
from hone_trainer.artifacts import sign
from hone_trainer.errors import StoreError
from hone_trainer.store import identity, signature

pytestmark = pytest.mark.trainer


def command_line(folder: Path, trusted: Keyless, scratch: Path) -> int:
    """Exit code of `model_signing verify sigstore`."""
    from model_signing._cli import main

    (trust := scratch / "trust.json").write_text(trusted.trust_config)
    (who,) = trusted.identities
    options = ("--trust_config", trust, "--identity", who.subject, "--identity_provider", who.issuer)
    arguments = ["verify", "sigstore", folder, "--signature", folder / "model.sig", *options]
    return CliRunner().invoke(main, [str(each) for each in arguments]).exit_code


def test_an_identity_signs_and_others_can_check_it(by_identity: Signed, ours: Sigstore, tmp_path: Path) -> None:
    folder, digest, result = by_identity
    trusted = keyless(ours)
    assert result == SignResult(identity=trusted.identities[0], trust=trusted.trust)
    assert command_line(folder, trusted, tmp_path) == 0
    assert command_line(folder, keyless(ours, "other"), tmp_path) == 1
    before = (folder / "model.sig").read_bytes()
    (tmp_path / "token").write_text("not needed")
    assert Pod(tmp_path / "token", trusted).sign(folder, digest) == result
    assert (folder / "model.sig").read_bytes() == before, "a signature that counts stays, and no server is asked"


def test_whoever_verifies_asks_no_server(by_identity: Signed, ours: Sigstore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert signature.verify(*by_identity[:2], [keyless(ours)]) == keyless(ours).identities[0]


def test_a_job_that_only_compares_says_whose_signature_it_is(
    by_identity: Signed, ours: Sigstore, tmp_path: Path
) -> None:
    key_too = [Key(tmp_path / "key").public, keyless(ours)]
    artifact = ArtifactInput(path=str(by_identity.folder), digest=by_identity.digest, trusted=key_too)
    assert sign.run(SignPlan(name="tutor-v3", artifacts=[artifact], provenance={})) == by_identity.result


def test_keys_and_identities_count_at_once(
    signed_copy: Path, by_identity: Signed, ours: Sigstore, tmp_path: Path
) -> None:
    key, trusted = Key(tmp_path / "key"), keyless(ours, "other", ACCOUNT)
    assert signature.verify(signed_copy, by_identity.digest, [key.public, trusted]) == trusted.identities[1]
    assert refusal(signed_copy, by_identity.digest, key.public) == "SignatureInvalid"
    (signed_copy / "model.sig").unlink()
    by_key = key.sign(signed_copy, by_identity.digest)
    assert signature.verify(signed_copy, by_identity.digest, [key.public, trusted]) == by_key
    assert refusal(signed_copy, by_identity.digest, trusted) == "SignatureInvalid"


@pytest.mark.faults("D5")
def test_another_identity_counts_neither_to_sign_nor_to_verify(
    signed_copy: Path, by_identity: Signed, ours: Sigstore, tmp_path: Path
) -> None:
    assert refusal(signed_copy, by_identity.digest, keyless(ours, "other")) == "SignatureInvalid"
    elsewhere = [Identity(subject=SUBJECT + ACCOUNT, issuer="https://issuer.test")]
    assert (
        refusal(signed_copy, by_identity.digest, keyless(ours).model_copy(update={"identities": elsewhere}))
        == "SignatureInvalid"
    )
    (signed_copy / "model.sig").unlink()
    for token in (ours.issuer.token("other"), ours.issuer.token(ACCOUNT, "team-b")):
        with pytest.raises(StoreError) as caught:
            Pod.of(tmp_path, keyless(ours), token).sign(signed_copy, by_identity.digest)
        assert caught.value.code == "SigningIdentityRefused"
        assert "signing.keyless.identities of the chart does not list" in caught.value.message
        assert "serviceaccounts/" in caught.value.message
        assert not (signed_copy / "model.sig").exists()


def logged(folder: Path) -> int:
    """Place of the signature in Rekor's log."""
    (entry,) = json.loads((folder / "model.sig").read_text())["verificationMaterial"]["tlogEntries"]
    return int(entry["logIndex"])


@pytest.mark.faults("D5")
@pytest.mark.parametrize("listed", ["https://kubernetes.io/namespaces/team/serviceaccounts/other", "team@example.org"])
def test_an_identity_that_is_refused_leaves_no_entry_in_the_log(
    listed: str, unsigned: Path, by_identity: Signed, ours: Sigstore, tmp_path: Path
) -> None:
    """By its token where that tells, else by the certificate that Fulcio gives for it."""
    counts = Pod.of(tmp_path, keyless(ours), ours.issuer.token(ACCOUNT))
    counts.sign(unsigned, by_identity.digest)
    before = logged(unsigned)
    (unsigned / "model.sig").unlink()
    other = keyless(ours).model_copy(update={"identities": [Identity(subject=listed, issuer=ours.issuer.url)]})
    for _ in range(2):  # the Job tries again
        with pytest.raises(StoreError, match="identities of the chart does not list") as caught:
            Pod(counts.token, other).sign(unsigned, by_identity.digest)
        assert caught.value.code == "SigningIdentityRefused"
    counts.sign(unsigned, by_identity.digest)
    assert logged(unsigned) == before + 1


def test_a_token_of_another_identity_asks_no_server(
    unsigned: Path, by_identity: Signed, ours: Sigstore, tmp_path: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        trusted = keyless(ours, "other", fulcio=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        elsewhere = Identity(subject=SUBJECT + ACCOUNT, issuer="https://issuer.test")
        for identities in (trusted.identities, [elsewhere]):
            refused = trusted.model_copy(update={"identities": identities})
            with pytest.raises(StoreError, match=f"the token of the pod is for {SUBJECT}{ACCOUNT} by") as caught:
                Pod.of(tmp_path, refused, ours.issuer.token(ACCOUNT)).sign(unsigned, by_identity.digest)
            assert caught.value.code == "SigningIdentityRefused"


@pytest.mark.faults("D5")
def test_certificates_of_another_authority_do_not_count(
    unsigned: Path, by_identity: Signed, ours: Sigstore, theirs: Sigstore, tmp_path: Path
) -> None:
    token = ours.issuer.token(ACCOUNT)
    with pytest.raises(StoreError) as caught:
        Pod.of(tmp_path, keyless(ours, fulcio=theirs.fulcio), token).sign(unsigned, by_identity.digest)
    assert caught.value.code == "SigningIdentityRefused"
    assert "not by the authority" in caught.value.message
    for services in ({"rekor": theirs.rekor}, {"timestamps": theirs.timestamps}):
        with pytest.raises(StoreError) as caught:
            Pod.of(tmp_path, keyless(ours, **services), token).sign(unsigned, by_identity.digest)
        assert caught.value.code == "SigningTrustUnusable"
        assert not (unsigned / "model.sig").exists()
    Pod.of(tmp_path, keyless(theirs), token).sign(unsigned, by_identity.digest)
    assert command_line(unsigned, keyless(theirs), tmp_path) == 0
    assert refusal(unsigned, by_identity.digest, keyless(ours)) == "SignatureInvalid"


TOKENS: dict[str, Callable[[TokenIssuer], str]] = {
    "expired": lambda issuer: issuer.token(ACCOUNT, seconds=-60),
    "for another audience": lambda issuer: issuer.token(ACCOUNT, audience="https://kubernetes.default.svc"),
    "by another key": lambda issuer: TokenIssuer(issuer.url).token(ACCOUNT),
    "of another issuer": lambda issuer: TokenIssuer("http://127.0.0.1:9").token(ACCOUNT),
    "altered": lambda issuer: issuer.token(ACCOUNT)[:-8] + "AAAAAAAA",
    "no token": lambda issuer: "",
}


@pytest.mark.parametrize("fault", TOKENS)
def test_a_token_that_is_refused_signs_nothing_and_is_not_quoted(
    fault: str, unsigned: Path, by_identity: Signed, ours: Sigstore, tmp_path: Path
) -> None:
    token = TOKENS[fault](ours.issuer)
    with pytest.raises(StoreError) as caught:
        Pod.of(tmp_path, keyless(ours), token).sign(unsigned, by_identity.digest)
    assert caught.value.code == "SigningIdentityRefused"
    assert not token or token not in caught.value.message
    assert not (unsigned / "model.sig").exists()


def test_a_token_that_expires_while_files_are_hashed_was_replaced_meanwhile(
    unsigned: Path,
    by_identity: Signed,
    ours: Sigstore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files of a large model take longer than a token is valid; the kubelet writes the next one to the same file."""
    pod = Pod.of(tmp_path, keyless(ours), ours.issuer.token(ACCOUNT, seconds=-60))
    hashed = hashing.Config.hash

    def slowly(config: Any, *arguments: Any, **options: Any) -> Any:
        pod.token.write_text(ours.issuer.token(ACCOUNT))
        return hashed(config, *arguments, **options)

    monkeypatch.setattr(hashing.Config, "hash", slowly)
    assert pod.sign(unsigned, by_identity.digest).identity == keyless(ours).identities[0]


def test_a_pod_without_a_token_is_reported(unsigned: Path, by_identity: Signed, ours: Sigstore, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Pod(tmp_path / "none", keyless(ours)).sign(unsigned, by_identity.digest)
    assert caught.value.code == "SigningIdentityRefused"


@pytest.mark.parametrize("service", ["fulcio", "rekor", "timestamps"])
@pytest.mark.parametrize("silent", [False, True], ids=["away", "silent"])
def test_a_server_that_does_not_answer_is_asked_again_later(
    service: str,
    silent: bool,
    unsigned: Path,
    by_identity: Signed,
    ours: Sigstore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "SECONDS", 3.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if silent:
            server.listen()
        trusted = keyless(ours, **{service: f"http://127.0.0.1:{server.getsockname()[1]}"})
        with pytest.raises(StoreError) as caught:
            Pod.of(tmp_path, trusted, ours.issuer.token(ACCOUNT)).sign(unsigned, by_identity.digest)
    assert (caught.value.code, caught.value.retry) == ("SigningServerUnreachable", "Heal")
    assert not (unsigned / "model.sig").exists()


def broken(ours: Sigstore, **changes: Any) -> str:
    """The trust config with these parts replaced; None: without the part."""
    config = json.loads(ours.trust_config()) | changes
    return json.dumps({name: value for name, value in config.items() if value is not None})


TRUSTS: dict[str, Callable[[Sigstore], str]] = {
    "not JSON": lambda ours: "{trustedRoot",
    "a list": lambda ours: "[]",
    "no root": lambda ours: broken(ours, trustedRoot=None),
    "no log": lambda ours: broken(ours, trustedRoot={**ours.root, "tlogs": []}),
    "no authority": lambda ours: broken(ours, trustedRoot={**ours.root, "certificateAuthorities": []}),
    "no log of certificates": lambda ours: broken(ours, trustedRoot={**ours.root, "ctlogs": []}),
    "a certificate that is none": lambda ours: broken(
        ours,
        trustedRoot={
            **ours.root,
            "certificateAuthorities": [{"certChain": {"certificates": [{"rawBytes": "AAAA"}]}}],
        },
    ),
}


@pytest.mark.parametrize("fault", TRUSTS)
def test_a_trust_config_that_cannot_be_used_blames_no_signature(
    fault: str, signed_copy: Path, by_identity: Signed, ours: Sigstore, tmp_path: Path
) -> None:
    trusted = keyless(ours).model_copy(update={"trust_config": TRUSTS[fault](ours)})
    assert refusal(signed_copy, by_identity.digest, trusted) == "SigningTrustUnusable"
    before = (signed_copy / "model.sig").read_bytes()
    with pytest.raises(StoreError) as caught:
        Pod.of(tmp_path, trusted, ours.issuer.token(ACCOUNT)).sign(signed_copy, by_identity.digest)
    assert caught.value.code == "SigningTrustUnusable"
    assert (signed_copy / "model.sig").read_bytes() == before


def test_servers_that_are_no_longer_valid_keep_nobody_from_verifying(
    signed_copy: Path, by_identity: Signed, ours: Sigstore, tmp_path: Path
) -> None:
    config = json.loads(ours.trust_config())["signingConfig"]
    for servers in (config["caUrls"], config["rekorTlogUrls"]):
        servers[0]["validFor"] = {"start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z"}
    trusted = keyless(ours).model_copy(update={"trust_config": broken(ours, signingConfig=config)})
    assert signature.verify(signed_copy, by_identity.digest, [trusted]) == trusted.identities[0]
    with pytest.raises(StoreError) as caught:
        Pod.of(tmp_path, trusted, ours.issuer.token(ACCOUNT)).sign(signed_copy, by_identity.digest)
    assert caught.value.code == "SigningTrustUnusable"


def test_the_servers_of_these_tests_listen_on_loopback_only(ours: Sigstore) -> None:
    open_at = listening.addresses(os.getpid())
    ports = {port for _, port in open_at}
    assert {int(url.rpartition(":")[2]) for url in (ours.fulcio, ours.rekor, ours.timestamps)} <= ports
    assert {host for host, _ in open_at} == {"127.0.0.1"}

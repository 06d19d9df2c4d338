"""Models signed by a key that stays on a token: SoftHSM, through PKCS #11."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from pkcs11 import TokenFlag
from soft_token import MODULE, PIN, URI, SoftToken

from hone_api.words.failures import FAILURES, Retry
from hone_trainer.errors import StoreError
from hone_trainer.store import key_uri, manifest, signature, token_key

pytestmark = pytest.mark.trainer
CURVES = {"models": "secp256r1", "models-384": "secp384r1", "models-521": "secp521r1", "bitcoin": "secp256k1"}


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftToken]:
    with pytest.MonkeyPatch.context() as patch:
        token = SoftToken(tmp_path_factory.mktemp("token"), patch)
        for label, curve in CURVES.items():
            token.generate(label, curve)
        token.generate_rsa("rsa")
        token.generate("twice", "secp256r1")
        token.generate("twice", "secp256r1")
        yield token


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    return folder, manifest.write(folder)


@pytest.mark.parametrize("label", ["models", "models-384", "models-521"])
def test_anybody_verifies_what_the_token_signed(
    token: SoftToken, model: tuple[Path, str], tmp_path: Path, label: str
) -> None:
    from model_signing import verifying
    from model_signing._cli import main

    token.name(f"pkcs11:token=hone%20signing;object={label}")
    key = token.sign(*model, token.public[label])
    assert key == signature.fingerprint(token.public[label]) == signature.verify(*model, [token.public[label]])
    public, signed = tmp_path / "public.pem", model[0] / "model.sig"
    public.write_text(token.public[label])
    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(model[0], signed)
    command = ["verify", "key", str(model[0]), "--signature", str(signed), "--public_key", str(public)]
    assert CliRunner().invoke(main, command).exit_code == 0
    (model[0] / "adapter_model.safetensors").write_bytes(b"altered")
    assert CliRunner().invoke(main, command).exit_code != 0


REFUSED = {
    "another token": ("pkcs11:token=elsewhere;object=models", "SigningTokenUnreachable", "sees: hone signing"),
    "another slot": ("pkcs11:token=hone%20signing;slot-id=7;object=models", "SigningTokenUnreachable", "slot-id 7"),
    "no such key": ("pkcs11:token=hone%20signing;object=gone", "SigningKeyUnusable", "0 private keys"),
    "another id": ("pkcs11:token=hone%20signing;object=models;id=%07", "SigningKeyUnusable", "0 private keys"),
    "two keys": ("pkcs11:token=hone%20signing;object=twice", "SigningKeyUnusable", "2 private keys"),
    "RSA": ("pkcs11:token=hone%20signing;object=rsa", "SigningKeyUnusable", "not of an elliptic curve"),
    "another curve": ("pkcs11:token=hone%20signing;object=bitcoin", "SigningKeyUnusable", "none of the curves"),
    "no URI": ("/dev/hsm", "SigningKeyUnusable", "does not begin with pkcs11:"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_uri_does_not_name_is_refused(token: SoftToken, model: tuple[Path, str], case: str) -> None:
    uri, code, said = REFUSED[case]
    token.name(uri)
    with pytest.raises(StoreError) as caught:
        token.sign(*model, token.public["models"])
    assert (caught.value.code, caught.value.retry) == (code, Retry.UNTIL_FIXED)
    assert said in caught.value.message
    assert not (model[0] / "model.sig").exists()


def test_a_refused_pin_is_not_tried_again_and_not_quoted(token: SoftToken, model: tuple[Path, str]) -> None:
    token.name(pin="wrong-839272")
    with pytest.raises(StoreError) as caught:
        token.sign(*model, token.public["models"])
    assert (caught.value.code, caught.value.retry) == ("SigningPinRefused", Retry.NEVER)
    assert "839272" not in caught.value.message
    assert "delete the failed Job" in FAILURES[caught.value.code].hint
    token.name(pin=PIN)
    token.sign(*model, token.public["models"])


@pytest.mark.parametrize("flag", [TokenFlag.USER_PIN_LOCKED, TokenFlag.USER_PIN_FINAL_TRY])
def test_a_token_that_one_more_wrong_pin_would_lock_is_not_asked(flag: TokenFlag) -> None:
    """SoftHSM counts no wrong PINs."""
    asked: list[str] = []
    locked = SimpleNamespace(flags=flag, label="hone signing", open=lambda user_pin: asked.append(user_pin))
    with pytest.raises(StoreError, match="token hone signing is locked, or would be") as caught:
        token_key._login(locked, PIN)
    assert (caught.value.code, asked) == ("SigningPinRefused", [])


def test_a_library_that_crashes_leaves_no_pin_in_a_core_dump(token: SoftToken) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        with token_key.opened(MODULE, URI, PIN):
            assert resource.getrlimit(resource.RLIMIT_CORE) == (0, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_a_key_that_the_platform_does_not_trust_signs_nothing(token: SoftToken, model: tuple[Path, str]) -> None:
    token.name(URI)
    with pytest.raises(StoreError) as caught:
        token.sign(*model, token.public["models-384"])
    assert caught.value.code == "SigningKeyUnusable"
    assert "the token's key is not one of signing.publicKeys" in caught.value.message


@pytest.mark.parametrize("module", ["/nowhere/libhsm.so", "/etc/passwd", "/usr/lib/x86_64-linux-gnu/libm.so.6"])
def test_a_module_that_is_not_a_library_of_pkcs11_is_named(
    token: SoftToken, model: tuple[Path, str], module: str
) -> None:
    token.name(URI)
    with pytest.raises(StoreError) as caught:
        token.sign(*model, token.public["models"], module)
    assert caught.value.code == "SigningModuleUnusable"
    assert module in caught.value.message


def test_a_module_without_its_configuration_is_named(
    token: SoftToken, model: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "/nowhere/softhsm2.conf")
    with pytest.raises(StoreError) as caught:
        token.sign(*model, token.public["models"])
    assert caught.value.code == "SigningModuleUnusable"
    assert MODULE in caught.value.message


def test_two_tokens_of_one_name_are_distinguished_by_their_serial(
    tmp_path: Path, model: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = SoftToken(tmp_path / "two", monkeypatch)
    token.generate("models", "secp256r1")
    token.add("hone signing")
    with pytest.raises(StoreError) as caught:
        token.sign(*model, token.public["models"])
    assert "2 tokens have token hone signing: add serial=" in caught.value.message


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pkcs11:object=k", "names no token"),
        ("pkcs11:token=t", "names no key"),
        ("pkcs11:token=t;token=u;object=k", "at most once"),
        ("pkcs11:token=t;object=k;library-version=1", "its attributes are"),
        ("pkcs11:token=t;object", "its attributes are"),
        ("pkcs11:token=t;object=k;type=cert", "not private"),
        ("pkcs11:token=%ff;object=k", "its token is not UTF-8"),
        ("pkcs11:token=t;object=k?pin-value=839271", "the PIN is a key of the Secret"),
    ],
)
def test_a_uri_that_says_too_little_or_too_much_is_refused(uri: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        key_uri.parse(uri)
    assert "839271" not in str(caught.value)


def test_every_attribute_of_a_uri_is_read() -> None:
    parsed = key_uri.parse(
        "pkcs11:token=a%3Bb;serial=01;manufacturer=M;model=X;slot-id=3;object=k;id=%00%ff;type=private"
    )
    assert parsed.token == {"token": "a;b", "serial": "01", "manufacturer": "M", "model": "X", "slot-id": "3"}
    assert (parsed.label, parsed.id) == ("k", b"\x00\xff")

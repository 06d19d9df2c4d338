"""Personal data: what Hone finds of a planted set, next to the libraries that one could take instead.

    .venv/bin/python bench/personal_data.py [--seed 0] [--each 24]

The texts are those of hone_dev.campaigns.planted_personal: English, German, Spanish and French, each form of personal
data by itself. Every detector runs in a process of its own; the peers in environments of their own, which uv fetches
(left out without one). Each is asked for the kinds that it knows, as its documentation says: detect-secrets with all
plugins that know a key by its form, Kingfisher and Betterleaks with their default rules, Presidio's recognisers of
patterns.

Recall is of values that are covered from end to end, as redaction needs it; touched are values that are found in part,
as a scanner of source code needs it. Precision is of spans. CPU time is of the second pass over the texts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Span = tuple[int, int, str]
Detector = Callable[[str], Iterator[Span]]
PACKAGES = {
    "hone": (),
    "detect-secrets": ("detect-secrets==1.5.0",),
    "kingfisher": ("kingfisher-secret-scanner==1.5.0",),
    "… in prose": (),
    "betterleaks": ("pybetterleaks==0.6.2",),
    "presidio": ("presidio-analyzer==2.2.366",),
}
SECRET = "Secret"


# -- detectors: each runs in a process of its own ------------------------------------------------------------


def hone() -> Detector:
    """What curation.personalData does."""
    from hone_trainer.datasets.pii import Finder

    return Finder().find


def detect_secrets() -> Detector:
    """Its plugins for keys of services, and the one for names next to a value."""
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import transient_settings

    plugins = (
        "ArtifactoryDetector AWSKeyDetector AzureStorageKeyDetector BasicAuthDetector CloudantDetector"
        " DiscordBotTokenDetector GitHubTokenDetector GitLabTokenDetector IbmCloudIamDetector IbmCosHmacDetector"
        " JwtTokenDetector KeywordDetector MailchimpDetector NpmDetector OpenAIDetector PrivateKeyDetector"
        " PypiTokenDetector SendGridDetector SlackDetector SoftlayerDetector SquareOAuthDetector StripeDetector"
        " TelegramBotTokenDetector TwilioKeyDetector"
    )
    settings = transient_settings({"plugins_used": [{"name": name} for name in plugins.split()]})
    settings.__enter__()

    def find(text: str, _settings: object = settings) -> Iterator[Span]:  # which end with the last reference to them
        for line in text.split("\n"):
            for secret in scan_line(line):
                yield from _place(text, secret.secret_value or "")

    return find


def kingfisher() -> Detector:
    """Its default rules on the text as it is."""
    from kingfisher_sdk import Rules, Scanner

    scanner = Scanner(Rules(), base64=False)
    return lambda text: (span for finding in scanner.scan(text) for span in _place(text, finding.secret))


def kingfisher_in_prose() -> Detector:
    """Its default rules, with the punctuation of sentences blanked as Hone does it."""
    from hone_trainer.datasets.pii import keys

    return lambda text: ((found.start, found.end, SECRET) for found in keys.by_kingfisher(text))


def betterleaks() -> Detector:
    """Its default rules on the text as it is."""
    from pybetterleaks import scan_text

    def find(text: str) -> Iterator[Span]:
        for finding in scan_text(text, redact=False).findings:
            yield from _place(text, finding.secret)

    return find


def presidio() -> Detector:
    """Its recognisers of patterns; those of names need a language model, and are no part of this."""
    import tldextract
    from presidio_analyzer import predefined_recognizers as known

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())  # its own list, none from the network
    regions = ("US", "DE", "ES", "FR", "GB")
    recognisers = {
        "Email": known.EmailRecognizer(),
        "Phone": known.PhoneRecognizer(supported_regions=regions),
        "CreditCard": known.CreditCardRecognizer(),
        "IBAN": known.IbanRecognizer(),
        "IPAddress": known.IpRecognizer(),
        "SSN": known.UsSsnRecognizer(),
    }

    def find(text: str) -> Iterator[Span]:
        for kind, recogniser in recognisers.items():
            for result in recogniser.analyze(text, recogniser.supported_entities, None) or ():
                if result.score >= 0.4:
                    yield result.start, result.end, kind

    return find


def _place(text: str, secret: str) -> Iterator[Span]:
    start = text.find(secret) if secret else -1
    if start >= 0:
        yield start, start + len(secret), SECRET


DETECTORS = {
    "hone": hone,
    "detect-secrets": detect_secrets,
    "kingfisher": kingfisher,
    "… in prose": kingfisher_in_prose,
    "betterleaks": betterleaks,
    "presidio": presidio,
}


# -- the run -------------------------------------------------------------------------------------------------


def measured(name: str, texts: Path) -> None:
    """In the process of its own: the spans in each text, and CPU microseconds a text."""
    lines = json.loads(texts.read_text(encoding="utf-8"))
    find = DETECTORS[name]()
    spans = [[list(span) for span in find(text)] for text in lines]
    started = time.process_time()
    for text in lines:
        for _ in find(text):
            pass
    print(json.dumps({"spans": spans, "cpu": 1e6 * (time.process_time() - started) / len(lines)}))


def measure(name: str, texts: Path) -> dict:
    """One detector in an environment of its own."""
    command = [sys.executable]
    if packages := PACKAGES[name]:
        command = [str(Path(sys.executable).with_name("uv")), "run", "-q", "--no-project", "--isolated"]
        command += [word for package in packages for word in ("--with", package)]
        command += ["--python", sys.executable, "python"]
    done = subprocess.run([*command, __file__, "--measure", name, str(texts)], stdout=subprocess.PIPE, check=True)
    found: dict = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="What is found of planted personal data.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=24, help="texts of each form")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "TEXTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measured(options.measure[0], Path(options.measure[1]))
        return
    report(options.seed, options.each)


def report(seed: int, each: int) -> None:
    """The table, and the forms that each detector misses."""
    from hone_api.dataset.curation import PersonalData
    from hone_dev.campaigns.planted_personal import Span as Placed
    from hone_dev.campaigns.planted_personal import samples, score

    planted = samples(seed, each)
    kinds = {sample.form: sample.kind for sample in planted if sample.kind}
    secret = [form for form, kind in kinds.items() if kind == PersonalData.SECRET]
    other = [form for form in kinds if form not in secret]
    print(f"{len(planted):,} texts, {len(secret)} forms of secrets, {len(other)} of other personal data")
    print(
        f"{'recall of':16} {'secrets':>8} {'touched':>8} {'others':>8} {'precision':>10} {'us a text':>10}", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="bench-personal-") as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps([sample.text for sample in planted]), encoding="utf-8")
        for name in DETECTORS:
            try:
                found = measure(name, texts)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{name:16} is left out: {error}")
                continue
            spans = {
                sample.text: [Placed(start, end, PersonalData(kind)) for start, end, kind in told]
                for sample, told in zip(planted, found["spans"], strict=True)
            }
            made = score(planted, spans.__getitem__)
            touched = sum(made.touched[form] for form in secret) / (each * len(secret))
            print(f"{name:16} {made.recall_of(secret):8.3f} {touched:8.3f} {made.recall_of(other):8.3f}", end="")
            print(f" {made.precision:10.3f} {found['cpu']:10,.0f}", flush=True)
            asked = {"hone": [*kinds], "presidio": other}.get(name, secret)
            missed = [form for form in asked if not made.touched[form]]
            print(f"{'':16} misses all of: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    main()

"""A model hub on this machine that speaks the Hugging Face Hub protocol: `HF_ENDPOINT=<url>` and hf:// works.

It serves folders:

    ROOT/models/<owner>/<name>/<revision>/<files>      and  ROOT/datasets/…
    ROOT/models/<owner>/<name>/hub.json                {"gated": true, "private": true, "tokens": ["hf_…"]}

A revision is a branch or a tag; `main` is the default one. Its commit is the digest of its content, so
that the same files have the same commit on every machine.
"""

from hone_dev.hub.server import application, serve

__all__ = ["application", "serve"]

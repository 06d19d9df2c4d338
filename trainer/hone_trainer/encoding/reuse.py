"""Encoded rows of another model with the same tokenizer, e.g. of the base that a ModelVersion was trained from.

The name of a folder is a key that is known before a model is opened, so it has the digest of the whole model. Encoding
reads of a model its tokenizer, its chat template, its vocabulary and its context. Once they are open, a folder that was
made with equal ones serves as well: its files are linked, or copied where the volume has no hard links.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_api.contract import encoding
from hone_api.contract.manifest import MANIFEST
from hone_api.plan import DatasetInput, TrainingPlan
from hone_trainer.errors import StoreError
from hone_trainer.store import folders, manifest

if TYPE_CHECKING:
    from hone_trainer.models.base_model import Base

KEY = "token-key.txt"
"""File of a folder with `token_key` of its rows."""
_LIBRARIES = ("jinja2", "tokenizers", "transformers")
_DATE = "strftime_now"
"""How a chat template asks for the date."""
_READ = (
    *("__call__", "_encode_plus", "decode", "_decode", "num_special_tokens_to_add"),
    *("apply_chat_template", "get_chat_template"),
)
"""Methods of a tokenizer that encoding depends on: a class with other ones may read more than `_facts`."""
log = logging.getLogger("hone.trainer")


def token_key(plan: TrainingPlan, source: DatasetInput, base: Base) -> str | None:
    """The same for splits of the same tokens, whatever model they are for; None if nobody knows.

    Args:
        source: one of the plan's `datasets` or `evaluation_datasets`; its digest is known.
    """
    facts, is_dated = _facts(base), any(_DATE in text for text in _texts(base.tokenizer.chat_template))
    if facts is None or (is_dated and plan.template_date is None):
        return None
    if not is_dated:
        plan = plan.model_copy(update={"template_date": None})
    body = json.dumps(facts, sort_keys=True, default=str).encode(errors="surrogatepass")
    return encoding.address(plan, [source.digest, source.split], hashlib.sha256(body).hexdigest())


def reused(target: Path, key: str) -> bool:
    """Make the folder `target` of an intact one next to it that has the same token key; False if there is none."""
    for other in _others(target, key):
        # Whatever fails here, the rows can be encoded; that names what is wrong with the store.
        with suppress(OSError, StoreError), folders.work_folder(target.parent) as work:
            if folders.claim(other):
                content = work / "files"
                content.mkdir()
                for name in [*(entry.path for entry in manifest.read_entries(other)), MANIFEST]:
                    _link(other / name, content / name)
                folders.publish(content, target)
                log.info("%s: the rows of %s, which were encoded with the same tokenizer", target.name, other.name)
                return True
    return False


def _others(target: Path, key: str) -> list[Path]:
    """Folders next to `target` that have this token key."""
    others = []
    with suppress(OSError):
        for folder in sorted(target.parent.iterdir()):
            with suppress(OSError, UnicodeDecodeError):
                if folder != target and not folder.name.startswith(".") and (folder / KEY).read_text() == f"{key}\n":
                    others.append(folder)
    return others


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the volume has no hard links, or the file is another user's
        shutil.copyfile(source, target)


def _facts(base: Base) -> dict[str, Any] | None:
    """What encoding reads of the model; None if its tokenizer is of a class that may read something else."""
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = base.tokenizer
    own = type(tokenizer)
    if any(getattr(own, name) != getattr(PreTrainedTokenizerFast, name) for name in _READ):
        return None
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    return {
        "libraries": {name: version(name) for name in _LIBRARIES},
        "tokenizer": {name: part for name, part in backend.items() if name not in ("padding", "truncation")},
        "template": tokenizer.chat_template,
        "special": tokenizer.special_tokens_map,
        "all_special": tokenizer.all_special_tokens,
        "ids": [tokenizer.bos_token_id, tokenizer.eos_token_id],
        "added": sorted((id, repr(token)) for id, token in tokenizer.added_tokens_decoder.items()),
        "splits_special": tokenizer.split_special_tokens,
        "vocabulary": base.vocabulary,
        "context": base.context,
    }


def _texts(template: Any) -> list[str]:
    """The chat templates of a tokenizer: one, several by name, or none."""
    return list(map(str, template.values())) if isinstance(template, dict) else [str(template or "")]

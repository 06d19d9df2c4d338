"""The card of an imported model: Hone's own, which a hub accepts, next to the one that came with it."""

from __future__ import annotations

import json
from pathlib import Path

from hone_api.base import licences
from hone_api.blocks.delivery import ArtifactForm
from hone_api.plan import ImportPlan
from hone_trainer.artifacts.importing.choice import CARD
from hone_trainer.artifacts.model_card import LIBRARIES, RELATIONS, TITLES, base_name
from hone_trainer.store import hub_card

ORIGINAL = "ORIGINAL.md"


def write_card(folder: Path, plan: ImportPlan, form: ArtifactForm, commit: str | None) -> str | None:
    """Write README.md; a card that is there becomes ORIGINAL.md, because its front matter may name a path of somebody's
    computer as the base.

    Returns:
        The licence that the original names.
    """
    licence = hub_card.licence(hub_card.read(folder / CARD))
    has_original = (folder / CARD).is_file()
    if has_original:
        (folder / CARD).rename(folder / ORIGINAL)
    fields = licences.front_matter(licence)
    base = plan.source.base
    if base and base.uri.startswith("hf://"):
        fields |= {"base_model": base_name(base.uri), "base_model_relation": RELATIONS[form]}
    front = [*(f"{key}: {json.dumps(value)}" for key, value in fields.items()), f"library_name: {LIBRARIES[form]}"]
    front += ["tags:", "- hone", *(["- lora"] if form == "Adapter" else [])]
    of = f" of `{base.uri}`" if base else ""
    at = f" at `{commit}`" if commit else ""
    body = [f"# {plan.name}", f"{TITLES[form]}{of}, imported from `{plan.source.uri}`{at}."]
    body += [f"The card that came with it is [{ORIGINAL}]({ORIGINAL})."] if has_original else []
    (folder / CARD).write_text("\n".join(["---", *front, "---", ""]) + "\n\n".join(body) + "\n", encoding="utf-8")
    return licence

"""What of a ModelVersion is served, and on which base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hone_api.kinds.modelversion import Artifact, ModelVersionSpec
from hone_api.verdicts.servable import (
    expects_single_experts,
    has_fused_experts,
    least_lora_rank,
    template_kwargs,
    verdicts,
)
from hone_api.words.states import ApprovalState
from hone_cli.errors import CommandError
from hone_cli.versions import spec_of


@dataclass(frozen=True)
class ModelFolder:
    """A folder of a claim in the namespace."""

    claim: str
    path: str

    def __str__(self) -> str:
        return f"pvc://{self.claim}/{self.path}"

    @classmethod
    def of(cls, uri: str) -> ModelFolder:
        """The folder that a pvc:// URI names.

        Raises:
            CommandError: it is not a folder of a claim.
        """
        scheme, _, rest = uri.partition("://")
        claim, _, path = rest.partition("/")
        path = path.strip("/")
        if scheme != "pvc" or not path or ".." in path.split("/"):
            raise CommandError(f"{uri}: only a folder of a volume (pvc://claim/folder) can be served")
        return cls(claim, path)


@dataclass(frozen=True)
class ServedModel:
    """One version under the name that clients ask for."""

    name: str
    model: str
    version: str
    """Name of its ModelVersion."""
    form: str
    folder: ModelFolder
    digest: str
    """Of manifest.json of its folder."""
    size_bytes: int
    base: ModelFolder | None
    """Of an adapter."""
    base_name: str
    rank: int
    """The least --max-lora-rank of vLLM that takes it; 0: it is not an adapter."""
    is_reward: bool
    on_experts: bool = False
    """An adapter whose base is a mixture with experts that vLLM expects one by one."""
    fused_experts: bool = False
    """It covers the experts, which vLLM takes only with settings of its own."""
    template_kwargs: str | None = None
    """What vLLM's --default-chat-template-kwargs must be for its prompts."""
    base_digest: str | None = None
    """Of manifest.json of its base's folder; None: the version does not record it."""


def served(versions: Sequence[Mapping[str, Any]], form: str | None = None) -> list[ServedModel]:
    """The versions as a server takes them: adapters on their base where vLLM loads them, or else whole models.

    Clients ask for the model's name, or for the ModelVersion's where several versions of one model are served.

    Args:
        versions: ModelVersions that are Ready.
        form: Adapter, Merged, Full or GGUF, instead of the choice here.

    Raises:
        CommandError: a version was rejected, is named twice, has no such form, or none that vLLM loads; or two would
            have the same name.
    """
    specs = [(v["metadata"]["name"], _spec(v)) for v in versions]
    if twice := [name for name, count in Counter(name for name, _ in specs).items() if count > 1]:
        raise CommandError(f"ModelVersion {twice[0]} is named twice")
    count = Counter(spec.model_name for _, spec in specs)
    models = [
        _model(spec.model_name if count[spec.model_name] == 1 else name, name, spec, _artifact(name, spec, form))
        for name, spec in specs
    ]
    if same := [name for name, count in Counter(m.name for m in models).items() if count > 1]:
        both = " and ".join(m.version for m in models if m.name == same[0])
        raise CommandError(f"clients would ask for both {both} by the name {same[0]}: render a server for each")
    return _apart_from_base(models)


def _apart_from_base(models: Sequence[ServedModel]) -> list[ServedModel]:
    """The models, whose base has another name than all of them: vLLM answers by the base or the adapter of a name."""
    asked_for = {name for m in models for name in (m.name, m.model)}

    def apart(base: str) -> str:
        return apart(f"{base}-base") if base in asked_for else base

    return [replace(m, base_name=apart(m.base_name)) for m in models]


def one_base(models: Sequence[ServedModel]) -> ModelFolder:
    """The base that all adapters share.

    Raises:
        CommandError: they have several, or one is not an adapter.
    """
    bases = {str(m.base): m for m in models}
    if len(bases) > 1:
        several = "; ".join(f"{m.version}: {m.base or m.form}" for m in bases.values())
        raise CommandError(f"one server has one base, and these have several ({several}): render a server for each")
    base = models[0].base
    if base is None:
        raise CommandError(f"ModelVersion {models[0].version} is not an adapter ({models[0].form})")
    return base


def base_digest(models: Sequence[ServedModel]) -> str | None:
    """Digest of manifest.json of the base that all adapters share; None: no version records it.

    Raises:
        CommandError: they record several.
    """
    digests = {m.base_digest: m.version for m in models if m.base_digest}
    if len(digests) > 1:
        several = " and ".join(digests.values())
        raise CommandError(f"{several} record different files of one base: render a server for each")
    return next(iter(digests), None)


def shared_template_kwargs(models: Sequence[ServedModel]) -> str | None:
    """`template_kwargs` of all models.

    Raises:
        CommandError: they have several: a server has one default.
    """
    by_kwargs = {m.template_kwargs: m.version for m in models}
    if len(by_kwargs) > 1:
        several = " and ".join(by_kwargs.values())
        raise CommandError(f"{several} were trained with different training.thinking: render a server for each")
    return next(iter(by_kwargs), None)


def refuse_fused_experts(models: Sequence[ServedModel], loader: str) -> None:
    """Raises CommandError if an adapter covers experts: `loader` has vLLM load it by its path alone."""
    if fused := next((m for m in models if m.fused_experts), None):
        raise CommandError(
            f"ModelVersion {fused.version} is an adapter on the experts of a mixture, which vLLM loads only with "
            f"is_3d_lora_weight, and {loader} does not set it: use --to vllm, or train with output.merge"
        )


def _spec(version: Mapping[str, Any]) -> ModelVersionSpec:
    spec = spec_of(version)
    if spec.approval.state == ApprovalState.REJECTED:
        name = version["metadata"]["name"]
        raise CommandError(f"ModelVersion {name} was rejected: {spec.approval.comment or 'without a comment'}")
    return spec


def _artifact(name: str, spec: ModelVersionSpec, form: str | None) -> Artifact:
    forms = {a.format.lower(): a for a in spec.artifacts}
    if form is not None:
        if form.lower() not in forms:
            raise CommandError(f"ModelVersion {name} has no form {form}; it has {', '.join(sorted(forms))}")
        return forms[form.lower()]
    vllm = verdicts(spec)[0]
    if not vllm.loads:
        raise CommandError(f"ModelVersion {name}: vLLM does not load it: {vllm.why}")
    whole = forms.get("merged") or forms.get("full")
    # On an adapter as parent the base was merged in memory: no folder has it, and such a run exports the merged model.
    alone = "adapter" in forms and not (whole and spec.lineage.base_model.model_version) and least_lora_rank(spec)
    chosen = forms["adapter"] if alone else whole
    assert chosen is not None  # vLLM loads it
    return chosen


def _model(name: str, version: str, spec: ModelVersionSpec, artifact: Artifact) -> ServedModel:
    base = spec.lineage.base_model
    is_adapter = artifact.format == "Adapter"
    if is_adapter and least_lora_rank(spec) is None:
        raise CommandError(f"ModelVersion {version}: vLLM does not load its adapter: train with output.merge")
    if is_adapter and base.location is None:
        raise CommandError(f"ModelVersion {version} does not say where its base is; download it: hone download")
    if is_adapter and base.location and base.location.startswith("oci://"):
        raise CommandError(
            f"ModelVersion {version}: its base is an image, which is not served: train with output.merge"
        )
    return ServedModel(
        name=name,
        model=spec.model_name,
        version=version,
        form=artifact.format,
        folder=ModelFolder.of(artifact.uri),
        digest=artifact.digest,
        size_bytes=artifact.size_bytes,
        base=ModelFolder.of(base.location) if is_adapter and base.location else None,
        base_name=_name(base.uri),
        rank=(least_lora_rank(spec) or 0) if is_adapter else 0,
        is_reward=spec.lineage.method == "Reward",
        on_experts=is_adapter and expects_single_experts(base),
        fused_experts=is_adapter and has_fused_experts(spec),
        template_kwargs=template_kwargs(spec) if is_adapter else None,
        base_digest=base.digest if is_adapter else None,
    )


def _name(uri: str) -> str:
    """What clients call the base: owner/name of a hub, or the last part of any other address."""
    scheme, _, rest = uri.partition("://")
    return rest.split("@")[0] if scheme == "hf" else rest.rstrip("/").rpartition("/")[2] or rest

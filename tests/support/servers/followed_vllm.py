"""A server that answers as vLLM 0.31 does, and a follower next to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone_api.contract.served import ServedAdapter, ServedAlias, ServedAliases, key_of
from hone_trainer.artifacts.serving.folders import AdapterFolders
from hone_trainer.artifacts.serving.follow import Follower, install_guard
from hone_trainer.artifacts.serving.vllm import Vllm
from hone_trainer.artifacts.serving.wanted import Followed
from hone_trainer.store import manifest

BASE = "pvc://store/base-models/b"


@dataclass
class Server:
    """Adapters by name, as vLLM has them."""

    loaded: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """Folders that it does not take."""
    refusal: Any = field(
        default_factory=lambda: {"error": {"message": "LoRA rank 64 is greater than max_lora_rank 16."}}
    )
    """What it answers then; bytes are sent as they are."""
    refusal_status: int = 400
    gone: list[str] = field(default_factory=list)
    fused: set[str] = field(default_factory=set)
    """Names whose adapter was said to hold its experts together."""
    asked: list[str] = field(default_factory=list)
    """What changed adapters, and where requests begin and cease to wait."""
    while_loading: Callable[[], object] = bool
    """Called before an adapter is loaded."""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            cards = [{"id": n, "root": folder, "parent": "base"} for n, folder in self.loaded.items()]
            return 200, {"data": [{"id": "base", "root": "/base", "parent": None}, *cards]}
        name = body["lora_name"]
        if path == "/v1/load_lora_adapter":
            self.while_loading()
            if name in self.loaded or Path(body["lora_path"]).name in self.refused:
                return self.refusal_status, self.refusal
            assert (Path(body["lora_path"]) / "adapter_config.json").is_file()
            self.loaded[name] = body["lora_path"]
            self.fused = self.fused - {name} | ({name} if body.get("is_3d_lora_weight") else set())
            return 200, "Success"
        self.gone.append(self.loaded.pop(name))
        return 200, "Success"


class Team:
    """A store, the operator's ConfigMap, a server and its follower."""

    def __init__(self, root: Path, url: str, server: Server) -> None:
        self.root, self.server, self.now = root, server, 0.0
        for name in ("models", "aliases", "adapters"):
            (root / name).mkdir()
        folders = AdapterFolders(root / "adapters", "store", root / "models", "/base")
        vllm = Vllm(url, install_guard(root / "adapters"))
        followed = [Followed("bot", "bot", "champion")]
        self.follower = Follower(followed, root / "aliases", folders, vllm, BASE, clock=lambda: self.now)

    def trained(self, number: int, **config: Any) -> ServedAdapter:
        folder = self.root / "models" / f"r{number}" / "1" / "adapter"
        folder.mkdir(parents=True)
        config = {"r": 8, "base_model_name_or_path": "pvc://elsewhere", **config}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_text(str(number))
        uri = f"pvc://store/models/r{number}/1/adapter"
        return ServedAdapter(uri=uri, digest=manifest.write(folder), base=BASE, rank=8)

    def points(self, adapter: ServedAdapter | None, *approved: ServedAdapter, model: str = "bot") -> None:
        """What the operator writes."""
        why = None if adapter else f"ModelVersion {model}-v1 is not approved"
        alias = ServedAlias(name="champion", version=1, model_version=f"{model}-v1", adapter=adapter, why=why)
        served = ServedAliases(aliases=[alias], approved=[a.digest for a in approved])
        unfinished = self.root / "aliases" / "unfinished"
        unfinished.write_text(served.model_dump_json(by_alias=True))
        unfinished.rename(self.root / "aliases" / key_of(model))

    def also_serves(self, model: str, number: int) -> ServedAdapter:
        """Follow a second model, and serve it."""
        self.follower.followed = [*self.follower.followed, Followed(model, model, "champion")]
        adapter = self.trained(number)
        self.points(adapter, adapter, model=model)
        assert self.step()[model] == adapter.digest
        return adapter

    @contextmanager
    def held(self, work: str) -> Iterator[threading.Event]:
        """Copies or loads begin, and end only after the block. Yields what is set when one has begun."""
        begun, may_end = threading.Event(), threading.Event()
        prepare = self.follower.folders.prepare

        def hold() -> None:
            begun.set()
            assert may_end.wait(60)

        def slow(adapter: ServedAdapter) -> Path:
            hold()
            return prepare(adapter)

        if work == "copy":
            self.follower.folders.prepare = slow
        else:
            self.server.while_loading = hold
        try:
            yield begun
        finally:
            may_end.set()
            self.end_errands()
            self.follower.folders.prepare = prepare
            self.server.while_loading = bool

    def step(self, seconds: float = 2.0) -> dict[str, str]:
        """Some passes later: the digest that each name has."""
        self.now += seconds
        for _ in range(3):  # copied, then loaded, then seen
            self.follower.step()
            self.end_errands()
        return self.loaded()

    def stops(self) -> None:
        """A pass while vLLM does not answer."""
        real, self.follower.vllm = self.follower.vllm, Vllm("http://127.0.0.1:9", "")
        self.follower.step()
        assert not self.follower.ready
        self.follower.vllm = real

    def end_errands(self) -> None:
        """Wait until the follower neither copies nor loads."""
        for thread in threading.enumerate():
            if thread.name in ("copy", "load"):
                thread.join()

    def loaded(self) -> dict[str, str]:
        """The digest that each name has."""
        return {name: f"sha256:{Path(folder).name}" for name, folder in self.server.loaded.items()}

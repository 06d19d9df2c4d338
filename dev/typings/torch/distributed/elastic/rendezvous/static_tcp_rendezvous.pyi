from typing import Any

class StaticTCPRendezvous:
    _store: Any
    def __init__(
        self, master_addr: str, master_port: int, rank: int, world_size: int, run_id: str, timeout: int
    ) -> None: ...
    def get_backend(self) -> str: ...

from contextlib import AbstractContextManager
from typing import IO

def open(urlpath: str, mode: str = "rb", **kwargs: int) -> AbstractContextManager[IO[bytes]]: ...

"""A provider for texts that are files in one folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import re
import sys
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Annotated, Literal

import anyio
import msgspec
from cty import UNKNOWN
from provider import DataSource, Provider, Resource, Trouble
from schema import computed, optional, required

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

logger = logging.getLogger(__name__)

# Whatever cannot lead out of the folder, and is not hidden, as what the store has for itself is.
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
# How long to wait before looking again whether another process is done, in seconds.
PAUSE = 0.05


class Store:
    """Files in one folder, which one writer at a time changes, of whatever process."""

    def __init__(self) -> None:
        self.folder: anyio.Path | None = None
        self.writing = anyio.Lock()

    def open(self, settings: Settings) -> None:
        # It may be what some other resource says once it is there.
        self.folder = None if settings.folder is UNKNOWN else anyio.Path(settings.folder)

    def path(self, name: str = "") -> anyio.Path:
        if self.folder is None:
            raise Trouble("The folder of the files is not known yet", attribute="folder")
        return self.folder / name

    async def names(self) -> list[str]:
        if not await self.path().is_dir():
            return []
        paths = [path async for path in self.path().iterdir() if NAME.fullmatch(path.name)]
        return sorted([path.name for path in paths if await path.is_file()])

    async def read(self, name: str) -> Document | None:
        try:
            content = await self.path(name).read_text()
            status = await self.path(name).stat()
        except FileNotFoundError:
            return None
        return Document(
            name=name,
            content=content,
            executable=bool(status.st_mode & 0o100),
            path=str(self.path(name)),
            sha256=hashlib.sha256(content.encode()).hexdigest(),
            modified=datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds"),
        )

    async def write(self, document: Document) -> Document | None:
        """Write a whole file, or nothing; return what then is there."""
        new = self.path(f".{document.name}.new")
        async with self.locked():
            # Whoever stops this has to know whether it was done.
            with anyio.CancelScope(shield=True):
                await new.write_text(document.content)
                await new.chmod(0o755 if document.executable else 0o644)
                await new.rename(self.path(document.name))
                written = await self.read(document.name)
        logger.info("written", extra={"document": document.name, "size": len(document.content)})
        return written

    async def delete(self, name: str) -> None:
        async with self.locked():
            await self.path(name).unlink(missing_ok=True)
        logger.info("deleted", extra={"document": name})

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Wait until nobody else writes: Terraform makes many changes at the same time."""
        await self.path().mkdir(parents=True, exist_ok=True)
        async with self.writing:
            with open(self.path(".lock"), "w") as lock:  # noqa: ASYNC230 - it is empty
                while not taken(lock):
                    logger.info("another process is writing", extra={"folder": str(self.folder)})
                    await anyio.sleep(PAUSE)
                yield


def taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Settings(msgspec.Struct):
    """Files in one folder of this machine."""

    folder: Annotated[str, required("The folder. It is made when the first file is.")]


class Document(msgspec.Struct, kw_only=True):
    """A text, which is a file."""

    name: Annotated[str, required("The name of the file.", replaces=True)]
    content: Annotated[str, required("The text.")]
    executable: Annotated[bool, optional("Whether it is a program.", default=False)]
    path: Annotated[str, computed("Where the file is.")]
    sha256: Annotated[str, computed("The text's checksum.")]
    modified: Annotated[str, computed("When the file was written.")]


class Documents(Resource[Document]):
    name = "files_document"
    state = Document

    def __init__(self, store: Store) -> None:
        self.store = store

    def validate(self, config: Document) -> None:
        if config.name is not UNKNOWN and not NAME.fullmatch(config.name):
            raise Trouble(
                "This is no name for a document",
                f"{config.name!r} has something else than letters, digits, '_', '-' and '.', or "
                "begins with '.'.",
                attribute="name",
            )

    def plan(self, prior: Document | None, planned: Document) -> None:
        if planned.content is not UNKNOWN:
            planned.sha256 = hashlib.sha256(planned.content.encode()).hexdigest()
        if planned.name is not UNKNOWN and self.store.folder is not None:
            planned.path = str(self.store.path(planned.name))

    async def create(self, planned: Document) -> Document:
        if await self.store.read(planned.name) is not None:
            raise Trouble(
                "There is such a document",
                f"Import it if it is to be looked after here: {planned.name}.",
                attribute="name",
            )
        return await self.update(planned, planned)

    async def read(self, state: Document) -> Document | None:
        return await self.store.read(state.name)

    async def update(self, prior: Document, planned: Document) -> Document:
        written = await self.store.write(planned)
        if written is None:
            raise Trouble("The document vanished as soon as it was written")
        return written

    async def delete(self, state: Document) -> None:
        await self.store.delete(state.name)

    async def find(self, key: str) -> Document | None:
        return await self.store.read(key) if NAME.fullmatch(key) else None


class Entry(msgspec.Struct, frozen=True):
    name: Annotated[str, computed("The name of the file.")]
    size: Annotated[int, computed("How many bytes it has.")]


class Listing(msgspec.Struct, kw_only=True):
    """The documents that there are, of whoever's making."""

    suffixes: Annotated[set[str] | None, optional("Only those whose names end like this.")]
    documents: Annotated[list[Entry], computed("The documents, by name.")]
    total: Annotated[int, computed("How many bytes all of them have.")]


class Listings(DataSource[Listing]):
    name = "files_documents"
    state = Listing

    def __init__(self, store: Store) -> None:
        self.store = store

    async def read(self, config: Listing) -> Listing:
        endings = tuple(config.suffixes) if config.suffixes is not None else ""
        config.documents = [
            Entry(name, (await self.store.path(name).stat()).st_size)
            for name in await self.store.names()
            if name.endswith(endings)
        ]
        config.total = sum(entry.size for entry in config.documents)
        return config


def main(loop: Literal["asyncio", "trio"]) -> None:
    store = Store()
    provider = Provider(Settings, store.open, [Documents(store)], [Listings(store)])
    provider.run(loop)


if __name__ == "__main__":
    main("trio" if sys.argv[1:2] == ["trio"] else "asyncio")

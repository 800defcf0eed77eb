"""What the reflection service answers, from the descriptors that generated code has registered.

Loaded when somebody asks. A service that says nothing of its messages is listed, but nothing
describes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool
from grpclib.const import Status

from ._health_file import health_pool
from ._wire import bytes_field, fields, number_field, varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.descriptor import Descriptor, FileDescriptor

# The fields of a request, and those of an answer.
_HOST, _FILE, _SYMBOL, _EXTENSION, _EXTENSIONS, _LIST = 1, 3, 4, 5, 6, 7
_VALID_HOST, _ORIGINAL, _FILES, _NUMBERS, _SERVICES, _ERROR = 1, 2, 4, 5, 6, 7


class _Wrong(Exception):
    """There is no answer, but for a status and a text."""


class Answers:
    """Answers the requests of one stream."""

    def __init__(self, services: Callable[[], Iterable[str]], pools: Iterable[Any] = ()) -> None:
        self._services = services
        # From protobuf 6 on the annotations of its pool differ from those before.
        self._pool: Any = descriptor_pool.Default()
        self._pools: list[Any] = [self._pool, health_pool(), *pools]
        self._sent: set[str] = set()

    def answer(self, request: bytes) -> bytes:
        """Answer a message with a message.

        That something is not known is an answer as well: the stream goes on.

        Raises:
            ValueError: These bytes are no request.
        """
        host, kind, value = b"", 0, b""
        for number, content in fields(request):
            # Of several the last one counts, as with every choice.
            if number == _HOST and isinstance(content, bytes):
                host = content
            elif _FILE <= number <= _LIST and isinstance(content, bytes):
                kind, value = number, content
        host.decode()
        try:
            answer = self._about(kind, value)
        except _Wrong as exc:
            status, text = exc.args
            error = number_field(1, status.value) + bytes_field(2, text.encode())
            answer = bytes_field(_ERROR, error)
        return bytes_field(_VALID_HOST, host) + bytes_field(_ORIGINAL, request) + answer

    def _about(self, kind: int, value: bytes) -> bytes:
        if kind == _EXTENSION:
            return self._extension(value)
        name = value.decode()
        if kind == _LIST:
            listed = b"".join(
                bytes_field(1, bytes_field(1, service.encode())) for service in self._services()
            )
            return bytes_field(_SERVICES, listed)
        if kind == _FILE:
            return self._file("FindFileByName", name, "file")
        if kind == _SYMBOL:
            return self._file("FindFileContainingSymbol", name, "symbol")
        if kind == _EXTENSIONS:
            extensions = self._pool.FindAllExtensions(self._message(name))
            numbers = b"".join(varint(number) for number in sorted(e.number for e in extensions))
            return bytes_field(_NUMBERS, bytes_field(1, value) + bytes_field(2, numbers))
        raise _Wrong(Status.INVALID_ARGUMENT, "the request asks for nothing that is known here")

    def _file(self, find: str, name: str, what: str) -> bytes:
        for pool in self._pools:
            try:
                return self._with_dependencies(getattr(pool, find)(name))
            except KeyError:
                continue
        raise _unknown(what, name)

    def _extension(self, request: bytes) -> bytes:
        name, number = b"", 0
        for field, content in fields(request):
            if field == 1 and isinstance(content, bytes):
                name = content
            elif field == 2 and isinstance(content, int):
                number = content
        extended = self._message(name.decode())

        def find(number: int) -> Any:
            return self._pool.FindExtensionByNumber(extended, number).file

        what = f"extension of {extended.full_name} with the number"
        return self._with_dependencies(_found(find, number, what))

    def _message(self, name: str) -> Descriptor:
        found: Descriptor = _found(self._pool.FindMessageTypeByName, name, "message type")
        return found

    def _with_dependencies(self, file: FileDescriptor) -> bytes:
        """All that it takes to read the file, without what this stream had before.

        The file itself is always there: it is what was asked for.
        """
        files = {file.name: file}
        waiting = [file]
        while waiting:
            for dependency in waiting.pop().dependencies:
                if dependency.name not in self._sent and dependency.name not in files:
                    files[dependency.name] = dependency
                    waiting.append(dependency)
        self._sent.update(files)
        return bytes_field(
            _FILES, b"".join(bytes_field(1, f.serialized_pb) for f in files.values())
        )


def _found(find: Callable[[Any], Any], key: object, what: str) -> Any:
    try:
        return find(key)
    except (KeyError, TypeError, OverflowError):
        # The latter two for numbers that no field can have.
        raise _unknown(what, key) from None


def _unknown(what: str, key: object) -> _Wrong:
    return _Wrong(Status.NOT_FOUND, f"no {what} {key!s:.200} is known here")

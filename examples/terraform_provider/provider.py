"""Terraform's provider protocol, version 6, as classes for resources and data sources.

A resource is two classes: one of what Terraform is to remember of it (see `schema.py`), and one that
makes, reads, changes and deletes it. This module does the rest: it says what there is, has values
come and go, and works out plans. `files.py` is a provider made with it.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import anyio
import msgspec
import tfplugin6_pb2
from cty import UNKNOWN, build, decode, encode
from grpclib.const import Cardinality, Handler
from schema import attributes_of, schema
from tfplugin6_pb2 import (
    DESCRIPTOR,
    ApplyResourceChange,
    AttributePath,
    ConfigureProvider,
    Diagnostic,
    DynamicValue,
    GetMetadata,
    GetProviderSchema,
    ImportResourceState,
    PlanResourceChange,
    ReadDataSource,
    ReadResource,
    ServerCapabilities,
    StopProvider,
    UpgradeResourceState,
    ValidateDataResourceConfig,
    ValidateProviderConfig,
    ValidateResourceConfig,
)

from pyvider_rpcplugin import plugin_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpclib.server import Stream

# What every provider asks for, to tell Terraform from a person at a terminal.
COOKIE = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2"

# Terraform may go by a schema that it has had before.
CAPABILITIES = ServerCapabilities(get_provider_schema_optional=True)
LEVELS = {"OFF": "ERROR", "ERROR": "ERROR", "WARN": "WARNING", "INFO": "INFO", "DEBUG": "DEBUG"}
# The state that a request is about, and that still holds if what was asked for was not done.
BEFORE = {"ReadResource": "current_state", "ApplyResourceChange": "prior_state"}

T = TypeVar("T")
ConfigT = TypeVar("ConfigT", bound=msgspec.Struct)
StateT = TypeVar("StateT", bound=msgspec.Struct)
Method = Callable[[Any], Awaitable[Any]]

logger = logging.getLogger(__name__)


class Trouble(Exception):
    """What a user is told instead of a result."""

    def __init__(self, summary: str, detail: str = "", *, attribute: str = "") -> None:
        super().__init__(summary)
        self.diagnostic = Diagnostic(severity=Diagnostic.ERROR, summary=summary, detail=detail)
        if attribute:
            self.diagnostic.attribute.CopyFrom(path_to(attribute))


class DataSource(Generic[StateT]):
    """What reads something that Terraform does not look after."""

    name: str
    state: type[StateT]

    def validate(self, config: StateT) -> None:
        """Raise a `Trouble` if this cannot be right; what is computed is None."""

    async def read(self, config: StateT) -> StateT:
        """Return the same with what is computed."""
        raise NotImplementedError


class Resource(Generic[StateT]):
    """What makes, reads, changes and deletes what Terraform looks after."""

    name: str
    state: type[StateT]

    def validate(self, config: StateT) -> None:
        """Raise a `Trouble` if this cannot be right; what is computed is None."""

    def plan(self, prior: StateT | None, planned: StateT) -> None:
        """Set of what is computed, all of which is UNKNOWN here, what is known before the deed."""

    async def create(self, planned: StateT) -> StateT:
        """Make it, and return the same with all that is computed."""
        raise NotImplementedError

    async def read(self, state: StateT) -> StateT | None:
        """Return what has become of it, None if it is gone."""
        raise NotImplementedError

    async def update(self, prior: StateT, planned: StateT) -> StateT:
        """Change it, and return the same with all that is computed."""
        raise NotImplementedError

    async def delete(self, state: StateT) -> None:
        """Delete it, if it is there."""
        raise NotImplementedError

    async def find(self, key: str) -> StateT | None:
        """Return what the user calls by that on import, None if there is none."""
        raise NotImplementedError


class Provider:
    """Serves resources and data sources to Terraform.

    Args:
        config: What users say in the block `provider`.
        configure: What is called with that.
        resources: The resources.
        data_sources: The data sources.
    """

    def __init__(
        self,
        config: type[ConfigT],
        configure: Callable[[ConfigT], None],
        resources: Iterable[Resource[Any]] = (),
        data_sources: Iterable[DataSource[Any]] = (),
    ) -> None:
        self.config: type[Any] = config
        self.configure: Callable[[Any], None] = configure
        self.resources = {resource.name: resource for resource in resources}
        self.data_sources = {source.name: source for source in data_sources}
        self.running: set[anyio.CancelScope] = set()

    def run(self, backend: Literal["asyncio", "trio"] = "asyncio") -> None:
        """Serve, as the one thing that this program does."""
        plugin_server(
            handler=self,
            protocol_versions="6",
            magic_cookie_key="TF_PLUGIN_MAGIC_COOKIE",
            magic_cookie_value=COOKIE,
            log_level=log_level(),
            on_shutdown=self.stop,
        ).run(backend=backend)

    def __mapping__(self) -> dict[str, Handler]:
        """Say what is served, as a class does that grpclib has generated.

        None is derived from: the module that has it loads grpclib's client, and a provider is
        started several times for each of Terraform's commands, while somebody waits.
        """
        handlers = {}
        for method in DESCRIPTOR.services_by_name["Provider"].methods:
            messages = getattr(tfplugin6_pb2, method.name)
            handlers[f"/tfplugin6.Provider/{method.name}"] = Handler(
                functools.partial(self.answer, getattr(self, method.name), messages.Response),
                Cardinality.UNARY_UNARY, messages.Request, messages.Response,
            )  # fmt: skip
        return handlers

    async def answer(
        self, method: Method, response: Callable[..., Any], stream: Stream[Any, Any]
    ) -> None:
        """Answer one call with what a method returns, or with what went wrong."""
        request = await stream.recv_message()
        try:
            answer = await method(request)
        except (Trouble, ValueError, OSError) as exc:
            trouble = exc if isinstance(exc, Trouble) else Trouble(str(exc))
            logger.info("%s: %s", method.__name__, trouble)
            before = BEFORE.get(method.__name__)
            kept = {"new_state": getattr(request, before)} if before else {}
            answer = response(diagnostics=[trouble.diagnostic], **kept)
        await stream.send_message(answer)

    async def stoppable(self, work: Awaitable[T]) -> T:
        """Await what a resource does. That is what `stop` ends."""
        with anyio.CancelScope() as scope:
            self.running.add(scope)
            try:
                return await work
            finally:
                self.running.discard(scope)
        raise Trouble("Stopped", "Terraform was told to stop before this was done.")

    def stop(self) -> None:
        """End what is being done. What must not be left half done shields itself from that."""
        for scope in self.running:
            scope.cancel()

    # What there is

    async def GetMetadata(self, _: GetMetadata.Request) -> GetMetadata.Response:
        resource, data_source = GetMetadata.ResourceMetadata, GetMetadata.DataSourceMetadata
        return GetMetadata.Response(
            server_capabilities=CAPABILITIES,
            resources=[resource(type_name=name) for name in self.resources],
            data_sources=[data_source(type_name=name) for name in self.data_sources],
        )

    async def GetProviderSchema(self, _: GetProviderSchema.Request) -> GetProviderSchema.Response:
        return GetProviderSchema.Response(
            server_capabilities=CAPABILITIES,
            provider=schema(self.config),
            resource_schemas={name: schema(it.state) for name, it in self.resources.items()},
            data_source_schemas={name: schema(it.state) for name, it in self.data_sources.items()},
        )

    # What the user says

    async def ValidateProviderConfig(
        self, _: ValidateProviderConfig.Request
    ) -> ValidateProviderConfig.Response:
        return ValidateProviderConfig.Response()

    async def ConfigureProvider(
        self, request: ConfigureProvider.Request
    ) -> ConfigureProvider.Response:
        self.configure(decode(request.config.msgpack, self.config))
        return ConfigureProvider.Response()

    async def ValidateResourceConfig(
        self, request: ValidateResourceConfig.Request
    ) -> ValidateResourceConfig.Response:
        resource = self.resources[request.type_name]
        resource.validate(decode(request.config.msgpack, resource.state))
        return ValidateResourceConfig.Response()

    async def ValidateDataResourceConfig(
        self, request: ValidateDataResourceConfig.Request
    ) -> ValidateDataResourceConfig.Response:
        source = self.data_sources[request.type_name]
        source.validate(decode(request.config.msgpack, source.state))
        return ValidateDataResourceConfig.Response()

    # What is done

    async def ReadDataSource(self, request: ReadDataSource.Request) -> ReadDataSource.Response:
        source = self.data_sources[request.type_name]
        config = decode(request.config.msgpack, source.state)
        return ReadDataSource.Response(state=value(await self.stoppable(source.read(config))))

    async def UpgradeResourceState(
        self, request: UpgradeResourceState.Request
    ) -> UpgradeResourceState.Response:
        """Read what was saved, by whatever version of the provider."""
        resource = self.resources[request.type_name]
        saved = build(msgspec.json.decode(request.raw_state.json), resource.state)
        return UpgradeResourceState.Response(upgraded_state=value(saved))

    async def ReadResource(self, request: ReadResource.Request) -> ReadResource.Response:
        resource = self.resources[request.type_name]
        state = decode(request.current_state.msgpack, resource.state)
        new = await self.stoppable(resource.read(state))
        return ReadResource.Response(new_state=value(new), private=request.private)

    async def PlanResourceChange(
        self, request: PlanResourceChange.Request
    ) -> PlanResourceChange.Response:
        resource = self.resources[request.type_name]
        prior = decode(request.prior_state.msgpack, resource.state)
        config = decode(request.config.msgpack, resource.state)
        planned = decode(request.proposed_new_state.msgpack, resource.state)
        replacing = [] if planned is None else plan(resource, prior, config, planned)
        return PlanResourceChange.Response(
            planned_state=value(planned),
            requires_replace=[path_to(name) for name in replacing],
            planned_private=request.prior_private,
        )

    async def ApplyResourceChange(
        self, request: ApplyResourceChange.Request
    ) -> ApplyResourceChange.Response:
        resource = self.resources[request.type_name]
        prior = decode(request.prior_state.msgpack, resource.state)
        planned = decode(request.planned_state.msgpack, resource.state)
        new = None
        if planned is None:
            await self.stoppable(resource.delete(prior))
        elif prior is None:
            new = await self.stoppable(resource.create(planned))
        else:
            new = await self.stoppable(resource.update(prior, planned))
        return ApplyResourceChange.Response(new_state=value(new), private=request.planned_private)

    async def ImportResourceState(
        self, request: ImportResourceState.Request
    ) -> ImportResourceState.Response:
        resource = self.resources[request.type_name]
        state = await self.stoppable(resource.find(request.id))
        if state is None:
            missing = f"There is no {request.type_name} {request.id!r} to be imported"
            raise Trouble(missing)
        found = ImportResourceState.ImportedResource(
            type_name=request.type_name, state=value(state)
        )
        return ImportResourceState.Response(imported_resources=[found])

    async def StopProvider(self, _: StopProvider.Request) -> StopProvider.Response:
        self.stop()
        return StopProvider.Response()


def plan(
    resource: Resource[StateT], prior: StateT | None, config: StateT, planned: StateT
) -> list[str]:
    """Fill in what will be there, and return what of it takes another object.

    Args:
        resource: What is to be made or changed.
        prior: What is there.
        config: What the user says.
        planned: The same, and where that is nothing, what is there.
    """
    attributes = attributes_of(resource.state)
    for name, attribute in attributes.items():
        if attribute.default is not None and getattr(config, name) is None:
            setattr(planned, name, attribute.default)
    changed = [name for name in attributes if getattr(prior, name, None) != getattr(planned, name)]
    if changed or prior is None:
        for name, attribute in attributes.items():
            if attribute.computed and not attribute.optional:
                setattr(planned, name, UNKNOWN)
        resource.plan(prior, planned)
    return [name for name in changed if prior is not None and attributes[name].replaces]


def path_to(attribute: str) -> AttributePath:
    return AttributePath(steps=[AttributePath.Step(attribute_name=attribute)])


def value(of: msgspec.Struct | None) -> DynamicValue:
    return DynamicValue(msgpack=encode(of))


def log_level() -> str:
    """Return from which level on Terraform has use for what a provider logs."""
    asked = os.environ.get("TF_LOG_PROVIDER") or os.environ.get("TF_LOG") or "OFF"
    # "JSON" is one of the words that say: everything.
    return LEVELS.get(asked.upper(), "TRACE")

"""Has HashiCorp's random provider think of a name for a pet, as Terraform does."""

from __future__ import annotations

import sys

import anyio
import msgspec
from tfplugin5_grpc import ProviderStub
from tfplugin5_pb2 import (
    ApplyResourceChange,
    DynamicValue,
    GetProviderSchema,
    PlanResourceChange,
)

from pyvider_rpcplugin import plugin_client

# What every provider asks for, to tell Terraform from a person at a terminal.
COOKIE = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2"


def value(of: object) -> DynamicValue:
    return DynamicValue(msgpack=msgspec.msgpack.encode(of))


async def main(provider: str) -> None:
    async with plugin_client(
        [provider],
        protocol_versions="5",
        magic_cookie_key="TF_PLUGIN_MAGIC_COOKIE",
        magic_cookie_value=COOKIE,
    ) as client:
        terraform = client.stub(ProviderStub)

        provides = await terraform.GetSchema(GetProviderSchema.Request())
        attributes = provides.resource_schemas["random_pet"].block.attributes
        print("a random_pet has", ", ".join(attribute.name for attribute in attributes))

        pet = {attribute.name: None for attribute in attributes} | {"length": 3, "prefix": "my"}
        plan = await terraform.PlanResourceChange(
            PlanResourceChange.Request(
                type_name="random_pet",
                prior_state=value(None),
                proposed_new_state=value(pet),
                config=value(pet),
            )
        )
        done = await terraform.ApplyResourceChange(
            ApplyResourceChange.Request(
                type_name="random_pet",
                prior_state=value(None),
                planned_state=plan.planned_state,
                config=value(pet),
            )
        )
        for trouble in [*plan.diagnostics, *done.diagnostics]:
            sys.exit(f"{trouble.summary}: {trouble.detail}")
        print("this one is called", msgspec.msgpack.decode(done.new_state.msgpack)["id"])


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], backend=sys.argv[2] if sys.argv[2:] else "trio")

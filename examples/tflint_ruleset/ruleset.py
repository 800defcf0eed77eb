"""A ruleset for TFLint with one rule: a pet's name has a prefix."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tflint_grpc import RuleSetBase, RunnerStub
from tflint_pb2 import (
    MODULE_CTX_TYPE_SELF,
    ApplyConfig,
    ApplyGlobalConfig,
    BodySchema,
    Check,
    EmitIssue,
    GetConfigSchema,
    GetModuleContent,
    GetName,
    GetRuleNames,
    GetSDKVersion,
    GetVersion,
    GetVersionConstraint,
)

from pyvider_rpcplugin import context, plugin_server

if TYPE_CHECKING:
    from grpclib.server import Stream

RULE = EmitIssue.Rule(name="pet_with_prefix", enabled=True, severity=EmitIssue.SEVERITY_WARNING)
PETS = BodySchema(
    blocks=[
        BodySchema.Block(
            type="resource",
            label_names=["type", "name"],
            body=BodySchema(attributes=[BodySchema.Attribute(name="prefix")]),
        )
    ]
)


class Pets(RuleSetBase):
    enabled = True

    async def Check(self, stream: Stream[Check.Request, Check.Response]) -> None:
        request = await stream.recv_message()
        assert request is not None
        if self.enabled:
            # TFLint serves, for this one check, what a rule may ask it.
            async with context().broker.dial(request.runner) as channel:
                await check(RunnerStub(channel))
        await stream.send_message(Check.Response())

    async def ApplyGlobalConfig(
        self, stream: Stream[ApplyGlobalConfig.Request, ApplyGlobalConfig.Response]
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        config = request.config
        if config.only:
            self.enabled = RULE.name in config.only
        elif RULE.name in config.rules:
            self.enabled = config.rules[RULE.name].enabled
        else:
            self.enabled = not config.disabled_by_default
        await stream.send_message(ApplyGlobalConfig.Response())

    async def GetName(self, stream: Stream[GetName.Request, GetName.Response]) -> None:
        await stream.recv_message()
        await stream.send_message(GetName.Response(name="pets"))

    async def GetVersion(self, stream: Stream[GetVersion.Request, GetVersion.Response]) -> None:
        await stream.recv_message()
        await stream.send_message(GetVersion.Response(version="0.1.0"))

    async def GetVersionConstraint(
        self, stream: Stream[GetVersionConstraint.Request, GetVersionConstraint.Response]
    ) -> None:
        await stream.recv_message()
        await stream.send_message(GetVersionConstraint.Response(constraint=">= 0.46"))

    async def GetSDKVersion(
        self, stream: Stream[GetSDKVersion.Request, GetSDKVersion.Response]
    ) -> None:
        # The version of TFLint's own library for plugins whose protocol this is.
        await stream.recv_message()
        await stream.send_message(GetSDKVersion.Response(version="0.25.0"))

    async def GetRuleNames(
        self, stream: Stream[GetRuleNames.Request, GetRuleNames.Response]
    ) -> None:
        await stream.recv_message()
        await stream.send_message(GetRuleNames.Response(names=[RULE.name]))

    async def GetConfigSchema(
        self, stream: Stream[GetConfigSchema.Request, GetConfigSchema.Response]
    ) -> None:
        await stream.recv_message()
        await stream.send_message(GetConfigSchema.Response(schema=BodySchema()))

    async def ApplyConfig(self, stream: Stream[ApplyConfig.Request, ApplyConfig.Response]) -> None:
        await stream.recv_message()
        await stream.send_message(ApplyConfig.Response())


async def check(runner: RunnerStub) -> None:
    found = await runner.GetModuleContent(
        GetModuleContent.Request(
            schema=PETS,
            option=GetModuleContent.Option(
                module_ctx=MODULE_CTX_TYPE_SELF,
                hint=GetModuleContent.Hint(resource_type="random_pet"),
                expand_mode=GetModuleContent.EXPAND_MODE_EXPAND,
            ),
        )
    )
    for block in found.content.blocks:
        if block.labels[0] == "random_pet" and "prefix" not in block.body.attributes:
            await runner.EmitIssue(
                EmitIssue.Request(
                    rule=RULE,
                    message=f'the pet "{block.labels[1]}" has no prefix',
                    range=block.def_range,
                )
            )


if __name__ == "__main__":
    plugin_server(
        handler=Pets(),
        protocol_versions="11",
        magic_cookie_key="TFLINT_RULESET_PLUGIN",
        magic_cookie_value="5adSn1bX8nrDfgBqiAqqEkC6OE1h3iD8SqbMc5UUONx8x3xCF0KlPDsBRNDjoYDP",
    ).run(backend="trio" if sys.argv[1:] == ["trio"] else "asyncio")

from pyvider_rpcplugin import context, plugin_server


class Clerk:
    async def greet(self) -> str:
        certificate = context().peer.cert()
        assert certificate is not None
        names = [name for _, name in certificate["subjectAltName"]]
        return f"Welcome, {' and '.join(names)}."


if __name__ == "__main__":
    plugin_server(
        handler=Clerk(),
        server_cert="certs/plugin.crt",
        server_key="certs/plugin.key",
        client_root_certs="certs/ca.crt",
    ).run()

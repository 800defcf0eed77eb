"""The certificate and the key that a host makes for its plugin, as octets.

With automatic mutual TLS each side needs a key and a certificate of this run. The library that makes
them costs a plugin a good part of its start and of its memory, and its host has loaded it already,
for itself. So the host makes both pairs, and the plugin gets its own through a pipe that it inherits.

That gives nothing away. The host chooses the program that the plugin is, its environment and its
files, and may read its memory: it could have the key in any case. To anybody else the key is worth
nothing: the one certificate that it belongs to is the plugin's of this one start, and the only one
who ever accepts that is the host itself.

A plugin that cannot use what it got makes a pair, as it would have without: it may be of another
version than its host, have settings of its own, or have got nothing.
"""

from __future__ import annotations

import msgspec

from pyvider_rpcplugin.crypto._generated import GeneratedCertificate
from pyvider_rpcplugin.crypto._source import is_one_der_element

__all__ = ["pack", "unpack"]

# Another version of this library may write them in another form.
_FORM = 1
# The form, the curve, the days that it is valid, when that begins and ends, certificate, key.
_Pair = tuple[int, str, int, int, int, bytes, bytes]


def pack(made: GeneratedCertificate, validity_days: int) -> bytes:
    """Write a certificate and its key; far fewer octets than fit into a pipe."""
    times = (made.not_before, made.not_after)
    pair: _Pair = (_FORM, made.curve, validity_days, *times, made.der, made.key_der)
    return msgspec.msgpack.encode(pair)


def unpack(data: bytes, curve: str, validity_days: int) -> GeneratedCertificate | None:
    """Read them; None if this is nothing that is known, or not what was wanted.

    Args:
        data: What `pack` has written, in this process or another one.
        curve: The curve that the key has to have.
        validity_days: How long the certificate has to be valid.
    """
    try:
        pair = msgspec.msgpack.decode(data, type=_Pair)
    except msgspec.MsgspecError:
        return None
    *kind, not_before, not_after, der, key_der = pair
    if kind != [_FORM, curve, validity_days]:
        return None
    if not (is_one_der_element(der) and is_one_der_element(key_der)):
        return None
    return GeneratedCertificate(
        der, key_der, curve=curve, not_before=not_before, not_after=not_after
    )

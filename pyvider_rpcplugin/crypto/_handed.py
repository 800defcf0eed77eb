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

from typing import NamedTuple

import msgspec

from pyvider_rpcplugin.crypto._generated import GeneratedCertificate
from pyvider_rpcplugin.crypto._source import is_one_der_element

__all__ = ["pack", "unpack"]

# Of the form below. Another version of this library may have another one.
_FORM = 1


class _Pair(NamedTuple):
    form: int
    curve: str
    validity_days: int
    not_before: int
    not_after: int
    der: bytes
    key_der: bytes


def pack(made: GeneratedCertificate, validity_days: int) -> bytes:
    """Write a certificate and its key; far fewer octets than fit into a pipe."""
    pair = _Pair(
        _FORM, made.curve, validity_days, made.not_before, made.not_after, made.der, made.key_der
    )
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
    if (pair.form, pair.curve, pair.validity_days) != (_FORM, curve, validity_days):
        return None
    if not (is_one_der_element(pair.der) and is_one_der_element(pair.key_der)):
        return None
    return GeneratedCertificate(
        pair.der,
        pair.key_der,
        curve=pair.curve,
        not_before=pair.not_before,
        not_after=pair.not_after,
    )

from __future__ import annotations

import h2.events
import pytest
from h2.settings import SettingCodes
from hyperframe.frame import SettingsFrame

from pyvider_rpcplugin.http2 import (
    ConnectionFaulted,
    ErrorCode,
    LocalSettings,
    RemoteSettings,
    SettingsReceived,
)
from pyvider_rpcplugin.http2._errors import ConnectionFault
from tests.http2.peer import Link, kinds, only


def payload(*values):
    return b"".join(code.to_bytes(2, "big") + v.to_bytes(4, "big") for code, v in values)


def test_defaults_are_those_of_the_protocol():
    settings = RemoteSettings()
    assert settings.initial_window_size == 65_535
    assert settings.max_frame_size == 16_384
    assert settings.max_concurrent_streams == settings.max_header_list_size == 2**32 - 1


def test_last_value_wins_and_unknown_settings_are_ignored():
    settings = RemoteSettings()
    settings.update(
        payload((3, 5), (4, 7), (5, 2**24 - 1), (6, 9), (0xABCD, 1), (1, 0), (2, 0), (3, 6)),
        from_server=True,
    )
    assert settings == RemoteSettings(
        max_concurrent_streams=6,
        initial_window_size=7,
        max_frame_size=2**24 - 1,
        max_header_list_size=9,
    )


@pytest.mark.parametrize(
    ("code", "value", "from_server", "error"),
    [
        (2, 2, False, ErrorCode.PROTOCOL_ERROR),
        (2, 2, True, ErrorCode.PROTOCOL_ERROR),
        (2, 1, True, ErrorCode.PROTOCOL_ERROR),
        (2, 1, False, None),
        (2, 0, True, None),
        (4, 2**31, False, ErrorCode.FLOW_CONTROL_ERROR),
        (4, 2**31 - 1, False, None),
        (5, 16_383, False, ErrorCode.PROTOCOL_ERROR),
        (5, 16_384, False, None),
        (5, 2**24, False, ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_values_are_checked(code, value, from_server, error):
    settings = RemoteSettings()
    if error is None:
        settings.update(payload((code, value)), from_server=from_server)
    else:
        with pytest.raises(ConnectionFault) as caught:
            settings.update(payload((code, value)), from_server=from_server)
        assert caught.value.code == error


@pytest.mark.parametrize("client_side", [True, False])
def test_peer_learns_what_we_announce(step, client_side):
    announced = LocalSettings(
        initial_window_size=100_000,
        connection_window_size=200_000,
        max_frame_size=20_000,
        max_concurrent_streams=7,
    )
    link = Link(client_side=client_side, step=step, settings=announced, opened=False)
    link.settle()
    remote = link.peer.remote_settings
    assert remote.initial_window_size == 100_000
    assert remote.max_frame_size == 20_000
    assert remote.max_header_list_size == 65_536
    assert link.peer.outbound_flow_control_window == 200_000
    if client_side:
        assert remote.enable_push == 0
    else:
        assert remote.max_concurrent_streams == 7


def test_connection_window_below_the_default_cannot_be_announced(step):
    link = Link(client_side=True, step=step, settings=LocalSettings(connection_window_size=1000))
    assert link.peer.outbound_flow_control_window == 65_535


@pytest.mark.parametrize("client_side", [True, False])
def test_we_learn_what_the_peer_announces_and_say_so(step, client_side):
    link = Link(
        client_side=client_side,
        step=step,
        opened=False,
        peer_settings={
            SettingCodes.MAX_CONCURRENT_STREAMS: 3,
            SettingCodes.INITIAL_WINDOW_SIZE: 1000,
            SettingCodes.MAX_FRAME_SIZE: 30_000,
        },
    )
    ours, peers = link.settle()
    assert kinds(ours).count("SettingsReceived") == 1
    only(peers, h2.events.SettingsAcknowledged)
    assert link.ours.remote.initial_window_size == 1000
    assert link.ours.remote.max_frame_size == 30_000


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\0\5\4\0\0\0\0\0" + bytes(5), ErrorCode.FRAME_SIZE_ERROR),
        (b"\0\0\6\4\1\0\0\0\0" + bytes(6), ErrorCode.FRAME_SIZE_ERROR),
        (b"\0\0\0\4\0\0\0\0\1", ErrorCode.PROTOCOL_ERROR),
        (b"\0\0\6\4\0\0\0\0\0" + payload((5, 1)), ErrorCode.PROTOCOL_ERROR),
        (b"\0\0\6\4\0\0\0\0\0" + payload((4, 2**31)), ErrorCode.FLOW_CONTROL_ERROR),
    ],
)
def test_malformed_settings_are_connection_errors(client, data, code):
    event = only(client.feed(data), ConnectionFaulted)
    assert event.fault.code == code
    terminated = only(client.to_peer(), h2.events.ConnectionTerminated)
    assert terminated.error_code == code


def test_preface_of_a_server_may_not_be_an_acknowledgement(step):
    link = Link(client_side=True, step=step, opened=False)
    event = only(link.feed(SettingsFrame(0, flags=["ACK"])), ConnectionFaulted)
    assert event.fault.code == ErrorCode.PROTOCOL_ERROR


def test_further_settings_are_in_force_at_once(client):
    assert client.ours.can_open_stream()
    client.peer.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 0})
    only(client.to_ours(), SettingsReceived)
    assert not client.ours.can_open_stream()
    only(client.to_peer(), h2.events.SettingsAcknowledged)

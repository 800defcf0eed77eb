from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given, strategies as st

from pyvider_rpcplugin import (
    ConfigError,
    ReattachConfig,
    format_reattach_providers,
    parse_reattach_providers,
)

# As Terraform's documentation of the variable shows it.
OF_GO = {
    "Protocol": "grpc",
    "ProtocolVersion": 6,
    "Pid": 47254,
    "Test": True,
    "Addr": {"Network": "unix", "String": "/tmp/plugin2908212597"},
}
RECORD = ReattachConfig(
    network="unix", address="/tmp/plugin2908212597", pid=47254, protocol_version=6, test=True
)
MUTUAL = ReattachConfig(
    network="tcp",
    address="127.0.0.1:1234",
    server_cert="PEM of the plugin",
    client_cert="PEM of the host",
    client_key="PEM of its secret",
)
ADDRESS = {"Network": "unix", "String": "/p"}

texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=40)
records = st.builds(
    ReattachConfig,
    network=st.sampled_from(["unix", "tcp"]),
    address=texts,
    pid=st.integers(0, 2**31 - 1),
    protocol_version=st.integers(0, 2**31 - 1),
    test=st.booleans(),
    server_cert=st.none() | texts,
    started=st.integers(0, 2**63 - 1),
    group=st.booleans(),
)


def test_a_record_of_a_host_in_go_is_read():
    assert ReattachConfig.from_json(json.dumps(OF_GO)) == RECORD
    assert ReattachConfig.from_json(json.dumps(OF_GO).encode()) == RECORD


def test_a_record_is_written_with_the_keys_of_go_and_no_others():
    assert json.loads(RECORD.to_json()) == OF_GO
    assert "\n" not in RECORD.to_json()


def test_what_go_leaves_out_is_not_known():
    record = ReattachConfig.from_json(json.dumps({"Protocol": "grpc", "Addr": ADDRESS}))
    assert (record.pid, record.protocol_version, record.test) == (0, 0, False)


def test_keys_that_are_not_known_are_passed_over():
    assert ReattachConfig.from_json(json.dumps(OF_GO | {"Later": [1]})) == RECORD


def test_the_material_of_tls_goes_both_ways():
    wire = json.loads(MUTUAL.to_json())
    assert wire["ServerCert"] == "PEM of the plugin"
    assert wire["ClientCert"] == "PEM of the host"
    assert wire["ClientKey"] == "PEM of its secret"
    assert ReattachConfig.from_json(MUTUAL.to_json()) == MUTUAL


def test_what_tells_a_process_from_a_later_one_goes_both_ways():
    record = ReattachConfig(network="unix", address="/p", pid=7, started=123, group=True)
    wire = record.to_dict()
    assert (wire["Started"], wire["Group"]) == (123, True)
    assert ReattachConfig.from_dict(wire) == record


@pytest.mark.parametrize("wrong", [{}, {"Addr": "here"}, {1: 2}, {"Addr": ADDRESS, "Pid": "7"}])
def test_a_dictionary_that_is_no_record_is_refused(wrong):
    with pytest.raises(ConfigError):
        ReattachConfig.from_dict(wrong)


def test_the_key_is_never_shown():
    for shown in (repr(MUTUAL), str(MUTUAL), f"{MUTUAL}", repr([MUTUAL])):
        assert "secret" not in shown
        assert "mutual tls" in shown


def test_a_record_shows_what_is_needed_to_tell_it_from_others():
    assert "unix:/tmp/plugin2908212597" in repr(RECORD)
    assert "pid=47254" in repr(RECORD)
    assert "test" in repr(RECORD)


def test_a_record_can_be_copied_and_pickled():
    assert copy.deepcopy(MUTUAL) == MUTUAL
    assert pickle.loads(pickle.dumps(MUTUAL)) == MUTUAL


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), records, max_size=3))
def test_what_was_written_is_read_again(several):
    assert parse_reattach_providers(format_reattach_providers(several)) == several
    for record in several.values():
        assert ReattachConfig.from_json(record.to_json()) == record


def test_the_variable_of_terraform_is_read_and_written():
    name = "registry.terraform.io/ns/name"
    text = json.dumps({name: OF_GO})
    assert parse_reattach_providers(text) == {name: RECORD}
    assert json.loads(format_reattach_providers({name: RECORD})) == {name: OF_GO}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"Protocol": "netrpc"}, "netrpc"),
        ({"Protocol": ""}, "protocol"),
        ({"Addr": {"Network": "udp", "String": "/p"}}, "udp"),
        ({"Addr": {"Network": "unix", "String": ""}}, "address"),
        ({"Addr": {"Network": "unix", "String": "/a\0b"}}, "address"),
        ({"Addr": {"Network": "unix"}}, "String"),
        ({"Pid": -1}, "negative"),
        ({"ProtocolVersion": -1}, "negative"),
        ({"Pid": "1"}, "Pid"),
        ({"ClientCert": "PEM"}, "key"),
        ({"ClientKey": "very secret"}, "certificate"),
    ],
)
def test_a_wrong_record_is_refused_by_an_error_that_names_what_is_wrong(wrong, told):
    text = json.dumps(OF_GO | wrong)
    with pytest.raises(ConfigError, match=told) as caught:
        ReattachConfig.from_json(text)
    assert "\n" not in caught.value.message
    assert "very secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=told) as caught:
        parse_reattach_providers(json.dumps({"good": OF_GO, "bad": json.loads(text)}))
    assert "very secret" not in str(caught.value)


def test_a_wrong_record_among_several_is_named():
    with pytest.raises(ConfigError, match="ns/name"):
        parse_reattach_providers(json.dumps({"ns/name": OF_GO | {"Pid": -1}}))


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_anything_else_is_a_config_error_and_nothing_worse(text):
    with pytest.raises(ConfigError):
        ReattachConfig.from_json(text)


@pytest.mark.parametrize(
    "text",
    ["[]", "1", '{"a": 1}', '{"a": {}}', "", "{", b'{"\xff": {}}', '{"a": ' + '{"x": ' * 50_000],
    ids=["list", "number", "no record", "empty record", "nothing", "cut", "no text", "deep"],
)
def test_a_variable_that_holds_something_else_is_refused(text):
    with pytest.raises(ConfigError):
        parse_reattach_providers(text)

"""Octavia's compute driver of the lab: hands out lab hosts as the machines of load balancers.

Octavia's contract with compute drivers is octavia/compute/compute_base.py. This one writes orders into a folder and waits for
what becomes of them; whoever owns the hosts makes amphorae of them (lab/octavia-machines.ts).

    free/NAME          a machine that nobody has: {"name", "address"}
    taken/ID/machine   one that is an amphora
    taken/ID/order     what is wanted of it; "generation" counts
    taken/ID/report    what has become of the order of that generation
"""

import collections
import json
import os
import time

from oslo_utils import uuidutils

from octavia.common import constants
from octavia.common import data_models
from octavia.common import exceptions
from octavia.compute import compute_base
from octavia.network.drivers.neutron import base as neutron

ROOT = "/var/lib/causeway-octavia/machines"
FREE = os.path.join(ROOT, "free")
TAKEN = os.path.join(ROOT, "taken")
PATIENCE = 120

ServerGroup = collections.namedtuple("ServerGroup", ["id"])
Interface = collections.namedtuple("Interface", ["id", "net_id", "port_id", "fixed_ips"])


def _path(compute_id, name):
    return os.path.join(TAKEN, compute_id, name)


def _read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def _write(path, content):
    """In one step: the reader never sees half of it, and nobody else sees the certificates' keys."""
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.rename(path + ".new", path)


def _text(content):
    return content.read() if hasattr(content, "read") else content


class Driver(compute_base.ComputeBase):

    def build(self, name="amphora_name", amphora_flavor=None, image_tag=None, image_owner=None, key_name=None, sec_groups=None,
              network_ids=None, config_drive_files=None, user_data=None, port_ids=None, server_group_id=None,
              availability_zone=None):
        free = sorted(os.listdir(FREE))
        if not free:
            raise exceptions.ComputeBuildException(fault="every machine of the lab is taken")
        compute_id = uuidutils.generate_uuid()
        os.makedirs(os.path.join(TAKEN, compute_id), mode=0o700)
        os.rename(os.path.join(FREE, free[0]), _path(compute_id, "machine"))
        files = {path: _text(content) for path, content in (config_drive_files or {}).items()}
        _write(_path(compute_id, "order"), {"generation": 1, "wish": "run", "files": files, "ports": []})
        return compute_id

    def get_amphora(self, compute_id, management_network_id=None):
        order = _read(_path(compute_id, "order"))
        report = _read(_path(compute_id, "report"))
        status, fault = "BUILD", None
        if order is not None and report is not None and report["generation"] == order["generation"]:
            status, fault = ("ACTIVE", None) if report["status"] == "COMPLETE" else ("ERROR", report.get("reason"))
        machine = _read(_path(compute_id, "machine")) or {}
        return data_models.Amphora(compute_id=compute_id, status=status, lb_network_ip=machine.get("address")), fault

    def status(self, compute_id):
        amphora, _ = self.get_amphora(compute_id)
        return constants.UP if amphora.status == "ACTIVE" else constants.DOWN

    def attach_network_or_port(self, compute_id, network_id=None, ip_address=None, port_id=None):
        client = neutron.clients.NeutronAuth.get_neutron_client()
        if port_id is None:
            fixed = [{"ip_address": ip_address}] if ip_address else None
            port_id = client.create_port(network_id=network_id, **({"fixed_ips": fixed} if fixed else {})).id
        self._again(compute_id, lambda order: {"ports": sorted({*order["ports"], port_id})})
        port = client.get_port(port_id)
        return Interface(port_id, port.network_id, port_id, port.fixed_ips)

    def detach_port(self, compute_id, port_id):
        self._again(compute_id, lambda order: {"ports": [port for port in order["ports"] if port != port_id]})

    def delete(self, compute_id):
        if _read(_path(compute_id, "order")) is None:
            return
        self._again(compute_id, lambda order: {"wish": "end"})
        machine = _read(_path(compute_id, "machine"))
        for name in os.listdir(os.path.join(TAKEN, compute_id)):
            if name != "machine":
                os.unlink(_path(compute_id, name))
        os.rename(_path(compute_id, "machine"), os.path.join(FREE, machine["name"]))
        os.rmdir(os.path.join(TAKEN, compute_id))

    @staticmethod
    def _again(compute_id, change):
        """Orders it, and waits until it is done."""
        order = _read(_path(compute_id, "order"))
        if order is None:
            raise exceptions.NotFound(resource="Instance", id=compute_id)
        order = {**order, **change(order), "generation": order["generation"] + 1}
        _write(_path(compute_id, "order"), order)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            report = _read(_path(compute_id, "report"))
            if report is not None and report["generation"] == order["generation"]:
                if report["status"] == "COMPLETE":
                    return
                raise exceptions.ComputeUnknownException(exc=report.get("reason"))
            time.sleep(0.1)
        raise exceptions.ComputeUnknownException(exc="the lab has not answered")

    def create_server_group(self, name, policy):
        return ServerGroup(uuidutils.generate_uuid())

    def delete_server_group(self, server_group_id):
        """There is nothing of it."""

    def validate_flavor(self, flavor_id):
        """Machines of the lab are all alike."""

    validate_availability_zone = validate_flavor

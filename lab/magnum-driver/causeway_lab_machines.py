"""Magnum's driver of the lab: hands out lab hosts as the machines of a cluster.

Magnum's contract with drivers of others is magnum/drivers/common/driver.py. This one writes orders into a folder and reads
what has become of them; whoever owns the hosts makes Kubernetes of them (lab/magnum-machines.ts).

    free/NAME            a machine that nobody has: {"name", "address"}
    clusters/ID/NAME     one that the cluster has
    clusters/ID/order    what is wanted; "generation" counts
    clusters/ID/report   what has become of the order of that generation
"""

import json
import os

from oslo_utils import encodeutils

from magnum.conductor.handlers.common import cert_manager
from magnum.common import exception
from magnum.drivers.common import driver
from magnum.drivers.common import k8s_monitor

ROOT = "/var/lib/causeway-magnum/machines"
FREE = os.path.join(ROOT, "free")


def _folder(cluster):
    return os.path.join(ROOT, "clusters", cluster.uuid)


def _read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def _write(path, content):
    """In one step: the reader never sees half of it, and nobody else sees the authority's key."""
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.rename(path + ".new", path)


def _take(cluster, count):
    """Of the free machines, as many; none when there are too few."""
    os.makedirs(FREE, exist_ok=True)
    free = sorted(os.listdir(FREE))
    if len(free) < count:
        raise exception.ResourceLimitExceeded(msg="%d machines are wanted and %d are free" % (count, len(free)))
    os.makedirs(_folder(cluster), mode=0o700)
    taken = []
    for name in free[:count]:
        path = os.path.join(_folder(cluster), name)
        os.rename(os.path.join(FREE, name), path)
        taken.append(_read(path))
    return taken


def _release(cluster, order):
    folder = _folder(cluster)
    for machine in order["masters"] + order["nodes"]:
        os.rename(os.path.join(folder, machine["name"]), os.path.join(FREE, machine["name"]))
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    os.rmdir(folder)


class Driver(driver.Driver):

    @property
    def provides(self):
        return [{"server_type": "vm", "os": "debian", "coe": "kubernetes"}]

    def create_cluster(self, context, cluster, cluster_create_timeout):
        masters = cluster.default_ng_master.node_count
        machines = _take(cluster, masters + cluster.default_ng_worker.node_count)
        authority = cert_manager.get_cluster_ca_certificate(cluster, context=context)
        cluster.stack_id = cluster.uuid
        _write(os.path.join(_folder(cluster), "order"), {
            "generation": 1,
            "wish": "create",
            "masters": machines[:masters],
            "nodes": machines[masters:],
            "labels": cluster.labels,
            "authority": {
                "certificate": encodeutils.safe_decode(authority.get_certificate()),
                "key": encodeutils.safe_decode(authority.get_decrypted_private_key()),
            },
        })

    def upgrade_cluster(self, context, cluster, cluster_template, max_batch_size, nodegroup, scale_manager=None, rollback=False):
        cluster.cluster_template_id = cluster_template.uuid
        cluster.labels = cluster_template.labels
        self._again(cluster, "upgrade", labels=cluster.labels)

    def delete_cluster(self, context, cluster):
        if _read(os.path.join(_folder(cluster), "order")) is not None:
            self._again(cluster, "delete")

    @staticmethod
    def _again(cluster, wish, **changes):
        path = os.path.join(_folder(cluster), "order")
        order = _read(path)
        _write(path, {**order, **changes, "wish": wish, "generation": order["generation"] + 1})

    def update_cluster_status(self, context, cluster, use_admin_ctx=False):
        order = _read(os.path.join(_folder(cluster), "order"))
        report = _read(os.path.join(_folder(cluster), "report"))
        begun = cluster.status.partition("_")[0]
        if order is None and begun == "DELETE":
            cluster.status = "DELETE_COMPLETE"
        elif order is None or report is None or report["generation"] != order["generation"]:
            return
        else:
            self._take_over(cluster, order, report, begun)
        cluster.save()

    @staticmethod
    def _take_over(cluster, order, report, begun):
        cluster.status = "%s_%s" % (begun, report["status"])
        cluster.status_reason = report.get("reason")
        cluster.api_address = report.get("api")
        cluster.coe_version = report.get("version")
        for group in cluster.nodegroups:
            machines = order["masters"] if group.role == "master" else order["nodes"]
            group.node_addresses = [machine["address"] for machine in machines]
            group.status = cluster.status
            group.save()
        if cluster.status == "DELETE_COMPLETE":
            _release(cluster, order)

    def get_monitor(self, context, cluster):
        return k8s_monitor.K8sMonitor(context, cluster)

    def _refuse(self, *words, **named):
        raise exception.NotSupported(operation="Changing the machines of a cluster in the lab")

    update_cluster = resize_cluster = _refuse
    create_nodegroup = update_nodegroup = delete_nodegroup = _refuse
    create_federation = update_federation = delete_federation = _refuse

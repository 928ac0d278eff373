"""What more than one benchmark needs: a network namespace, the programs that ship, and reviews to send to the webhook."""

import ctypes
import json
import os
import pathlib
import ssl
import subprocess
import sys

PROGRAMS = pathlib.Path(__file__).resolve().parents[1] / "target/programs"
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
# Istio's default capture.
CAPTURE = "-p 15001 -z 15006 -u 1337 -g 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,15020".split(" ")
# Ports that the kernel chooses.
ANYWHERE = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
POD = {
    "kind": "Pod", "apiVersion": "v1",
    "metadata": {"generateName": "NAME-5d4f8-", "labels": {"app": "NAME", "pod-template-hash": "5d4f8"},
                 "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "NAME-5d4f8", "uid": "1",
                                      "controller": True, "blockOwnerDeletion": True}]},
    "spec": {"volumes": [{"name": "kube-api-access-RANDO", "projected": {"defaultMode": 420, "sources": []}}],
             "containers": [{"name": "app", "image": "registry.example/app:1", "resources": {},
                             "env": [{"name": f"SETTING_{n}", "value": "a value"} for n in range(10)],
                             "volumeMounts": [{"name": "kube-api-access-RANDO", "readOnly": True,
                                               "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]},
}
REVIEW = json.dumps({
    "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
    "request": {"uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
                "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "shop", "object": POD},
}, separators=(",", ":"))


def review(workload, number):
    """The review of a pod of a workload: replicas differ by their number in what the API server adds."""
    return REVIEW.replace("NAME", workload).replace("RANDO", f"{number % 100_000:05}")


def found(program, option):
    """The path of a program that is there; `option` names another."""
    if not os.access(program, os.X_OK):
        sys.exit(f"{program} is not there; images/build makes it, or name it by {option}")
    return program


def new_namespace():
    """Puts this process into a network namespace of its own, which goes with it."""
    if LIBC.unshare(CLONE_NEWNET):
        sys.exit(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}; run this as root")
    subprocess.run(("ip", "link", "set", "lo", "up"), check=True)


def trusting():
    """TLS that takes any certificate: the webhook has made its own."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls

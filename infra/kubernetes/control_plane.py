"""The control plane of Kubernetes with JobSet, without nodes: for tests of `ddsp launch kubernetes`.

    python infra/kubernetes/control_plane.py FOLDER    # needs Go and etcd; builds it and runs it until Ctrl-C
    DDSP_TEST_KUBECONFIG=FOLDER/kubeconfig pytest tests/experiments/launch/test_control_plane.py

API server, controllers and JobSet with its webhooks are the real ones. No pod runs: a test says how pods end.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import yaml

KUBERNETES, JOBSET = 'v1.36.3', 'v0.12.0'
_MAIN = """package main

import (
	"os"
	"path/filepath"

	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	if filepath.Base(os.Args[0]) == "kube-apiserver" {
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	}
	os.Exit(cli.Run(manager.NewControllerManagerCommand()))
}
"""
_CONTROLLERS = 'job-controller,serviceaccount-controller,garbage-collector-controller,namespace-controller'
_JOBSET_SETTINGS = """apiVersion: config.jobset.x-k8s.io/v1alpha1
kind: Configuration
leaderElection: {leaderElect: false}
internalCertManagement: {enable: false}
"""


def _run(*command: str, cwd: pathlib.Path) -> str:
    return subprocess.run(command, cwd=cwd, check=True, text=True, stdout=subprocess.PIPE).stdout


def _module(name: str, version: str, folder: pathlib.Path) -> pathlib.Path:
    """Source of a Go module."""
    told = _run('go', 'mod', 'download', '-json', f'{name}@{version}', cwd=folder)
    return pathlib.Path(json.loads(told)['Dir'])


def build(folder: pathlib.Path) -> pathlib.Path:
    """Builds what is missing; returns JobSet's source."""
    kube = folder / 'kube'
    kube.mkdir(parents=True, exist_ok=True)
    jobset = _module('sigs.k8s.io/jobset', JOBSET, folder)
    if not (folder / 'kube-controller-manager').exists():
        # The module of Kubernetes names its parts by folders, which are modules of their own: v0 for v1.
        parts = (_module('k8s.io/kubernetes', KUBERNETES, folder) / 'go.mod').read_text()
        parts = re.sub(r'=> \./staging/src/(\S+)', rf'=> \1 {KUBERNETES.replace("v1", "v0")}', parts)
        parts = parts.replace('module k8s.io/kubernetes', 'module control_plane')
        (kube / 'go.mod').write_text(f'{parts}\nrequire k8s.io/kubernetes {KUBERNETES}\n')
        (kube / 'main.go').write_text(_MAIN)
        _run('go', 'mod', 'tidy', '-e', cwd=kube)
        _run('go', 'build', '-o', str(folder / 'kube-apiserver'), '.', cwd=kube)
        os.link(folder / 'kube-apiserver', folder / 'kube-controller-manager')
    if not (folder / 'jobset').exists():
        _run('go', 'build', '-o', str(folder / 'jobset'), '.', cwd=jobset)
    return jobset


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


def _keys(folder: pathlib.Path) -> None:
    _run('openssl', 'genrsa', '-out', 'accounts.key', '2048', cwd=folder)
    _run(
        'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'tls.key', '-out', 'tls.crt',
        '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1',
        cwd=folder,
    )  # fmt: skip


def _install(folder: pathlib.Path, jobset: pathlib.Path, webhooks: int) -> None:
    """The CRD of JobSet, and its webhooks at an address instead of a service."""
    from kubernetes import client, config

    config.load_kube_config(str(folder / 'kubeconfig'))
    parts = jobset / 'config' / 'components'
    crd = yaml.safe_load((parts / 'crd' / 'bases' / 'jobset.x-k8s.io_jobsets.yaml').read_text())
    client.ApiextensionsV1Api().create_custom_resource_definition(crd)
    authority = base64.b64encode((folder / 'tls.crt').read_bytes()).decode()
    registry = client.AdmissionregistrationV1Api()
    create = {
        'MutatingWebhookConfiguration': registry.create_mutating_webhook_configuration,
        'ValidatingWebhookConfiguration': registry.create_validating_webhook_configuration,
    }
    for configuration in yaml.safe_load_all((parts / 'webhook' / 'manifests.yaml').read_text()):
        for webhook in configuration['webhooks']:
            path = webhook['clientConfig']['service']['path']
            webhook['clientConfig'] = {'url': f'https://localhost:{webhooks}{path}', 'caBundle': authority}
        create[configuration['kind']](configuration)


def main(folder: pathlib.Path) -> None:
    """Builds and runs it until Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *told: sys.exit())  # what was started ends, too
    jobset = build(folder)
    _keys(folder)
    etcd, peers, api, webhooks, metrics, health = (_free_port() for _ in range(6))
    (folder / 'tokens').write_text('secret,admin,admin,system:masters\n')
    (folder / 'jobset.yaml').write_text(
        f'{_JOBSET_SETTINGS}webhook: {{port: {webhooks}, certDir: {folder}}}\n'
        f'metrics: {{bindAddress: "127.0.0.1:{metrics}"}}\n'
        f'health: {{healthProbeBindAddress: "127.0.0.1:{health}"}}\n'
    )
    (folder / 'kubeconfig').write_text(yaml.safe_dump({
        'apiVersion': 'v1', 'kind': 'Config', 'current-context': 'test',
        'clusters': [
            {'name': 'c', 'cluster': {
                'server': f'https://localhost:{api}', 'certificate-authority': str(folder / 'tls.crt'),
            }}
        ],
        'users': [{'name': 'u', 'user': {'token': 'secret'}}],
        'contexts': [{'name': 'test', 'context': {'cluster': 'c', 'user': 'u'}}],
    }))  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: object) -> None:
        log = (folder / f'{pathlib.Path(str(command[0])).name}.log').open('wb')
        started.append(subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, cwd=folder))

    try:
        own = f'http://127.0.0.1:{etcd}'
        start(
            'etcd', '--data-dir', f'etcd-{time.time():.0f}', '--listen-client-urls', own,
            '--advertise-client-urls', own, '--listen-peer-urls', f'http://127.0.0.1:{peers}',
        )  # fmt: skip
        start(
            folder / 'kube-apiserver', '--etcd-servers', own, '--secure-port', api,
            '--bind-address=127.0.0.1',
            '--tls-cert-file=tls.crt', '--tls-private-key-file=tls.key',
            '--service-account-issuer=https://local',
            '--service-account-key-file=accounts.key', '--service-account-signing-key-file=accounts.key',
            '--token-auth-file=tokens', '--authorization-mode=RBAC', '--service-cluster-ip-range=10.0.0.0/24',
        )  # fmt: skip
        for _ in range(120):
            time.sleep(1)
            with socket.socket() as one:
                if not one.connect_ex(('127.0.0.1', api)):
                    break
        time.sleep(5)
        _install(folder, jobset, webhooks)
        kubeconfig = f'--kubeconfig={folder / "kubeconfig"}'
        start(
            folder / 'kube-controller-manager', kubeconfig, f'--controllers={_CONTROLLERS}',
            '--leader-elect=false', '--secure-port=0',
        )  # fmt: skip
        start(folder / 'jobset', kubeconfig, f'--config={folder / "jobset.yaml"}')
        print(f'DDSP_TEST_KUBECONFIG={folder / "kubeconfig"}', flush=True)
        started[1].wait()
    except KeyboardInterrupt:
        pass
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]).resolve())

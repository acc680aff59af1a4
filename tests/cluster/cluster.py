#!/usr/bin/env python3
"""A real Kubernetes on this machine, without a prebuilt image: built from Go modules, started as processes.

    cluster.py build                 compile what is missing into the cache (5 to 7 minutes once on 2 cores)
    cluster.py up DIR [options]      start a cluster whose whole state lives in DIR; prints one JSON object
    cluster.py down DIR              stop it, unmount, remove DIR

What runs: etcd 3.6.8, kube-apiserver, kube-controller-manager and kube-scheduler 1.36.1.
--node adds a real node: containerd 2.4.2 + runc + kubelet, so pods really run (image volumes included); needs root.
--fake-nodes N --gpus G adds N nodes kept alive by kwok, each with G `nvidia.com/gpu`; their pods become Ready at once.
--audit writes each request that is answered, watches aside, as one JSON line to DIR/logs/audit.log.
Both may be asked for. Needs: Go >= 1.26, apt packages runc, iproute2, iptables, gcc, openssl. Python 3.11, stdlib only.
"""

import argparse
import base64
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KUBERNETES, CONTAINERD, KWOK, CNI = "v1.36.1", "v2.4.2", "v0.8.0", "v1.9.1"
CACHE = Path(os.environ.get("MP_CLUSTER_CACHE", Path.home() / ".cache" / "mp-cluster"))
ROLES = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"]
# ctr is in the list for `down`: it removes containers that a killed kubelet leaves behind.
GO_TOOLS = [
    *(
        f"github.com/containerd/containerd/v2/cmd/{c}@{CONTAINERD}"
        for c in ("containerd", "containerd-shim-runc-v2", "ctr")
    ),
    *(
        f"github.com/containernetworking/plugins/plugins/{p}@{CNI}"
        for p in ("main/bridge", "main/loopback", "ipam/host-local", "meta/portmap")
    ),
    f"sigs.k8s.io/kwok/cmd/kwok@{KWOK}",
]
PAUSE_C = """#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void stop(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGTERM, stop); signal(SIGINT, stop); signal(SIGCHLD, reap); for (;;) pause(); }
"""


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def run(*argv: object, **options: object) -> str:
    done = subprocess.run([str(a) for a in argv], text=True, capture_output=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(
            f"{argv[0]} failed ({done.returncode}): {' '.join(map(str, argv))}\n{done.stderr[-2000:]}{done.stdout[-500:]}"
        )
    return str(done.stdout)


def build() -> Path:
    """The folder with every binary; compiled on first use, keyed by versions and by controlplane/'s content."""
    sources = b"".join((HERE / "controlplane" / f).read_bytes() for f in ("main.go", "go.mod", "go.sum"))
    key = hashlib.sha256(sources + "".join(GO_TOOLS).encode() + PAUSE_C.encode()).hexdigest()[:12]
    bin_dir = CACHE / key
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{key}.lock").open("w") as held:  # whoever comes meanwhile waits and finds it done
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (bin_dir / "complete").exists():
            compile_into(bin_dir, CACHE / f"{key}.part")
    return bin_dir


def compile_into(bin_dir: Path, work: Path) -> None:
    """Compile everything into `work`, and give it its name when it is whole."""
    work.mkdir(parents=True, exist_ok=True)
    say(f"building Kubernetes {KUBERNETES} (minutes, once) into {bin_dir}")
    major, minor, _ = KUBERNETES[1:].split(".")
    version = "k8s.io/component-base/version"
    flags = f"-s -w -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    run(
        "go",
        "build",
        "-trimpath",
        f"-ldflags={flags}",
        "-o",
        work / "controlplane",
        ".",
        cwd=HERE / "controlplane",
    )
    for role in ROLES:
        (work / role).unlink(missing_ok=True)
        (work / role).symlink_to("controlplane")
    for tool in GO_TOOLS:
        run(
            "go",
            "install",
            "-trimpath",
            "-ldflags=-s -w",
            tool,
            cwd=CACHE,
            env={**os.environ, "GOBIN": str(work), "GOFLAGS": "-mod=mod"},
        )
    stages = Path(run("go", "env", "GOMODCACHE").strip()) / f"sigs.k8s.io/kwok@{KWOK}" / "kustomize/stage"
    files = [
        f
        for part in ("node/fast", "node/heartbeat-with-lease", "pod/fast")
        for f in sorted((stages / part).glob("*.yaml"))
        if f.name != "kustomization.yaml"
    ]
    (work / "kwok-stages.yaml").write_text("\n---\n".join(f.read_text() for f in files))
    (work / "pause.c").write_text(PAUSE_C)
    run("gcc", "-O2", "-static", "-s", "-o", work / "pause", work / "pause.c")
    (work / "complete").touch()
    work.rename(bin_dir)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Cluster:
    """One cluster whose whole state lives in `root`; `root` must be short: unix socket paths end at 107 characters."""

    def __init__(self, root: Path, bin_dir: Path, audit: bool = False) -> None:
        self.root, self.bin, self.audit = root.resolve(), bin_dir, audit
        self.kubeconfig = self.root / "kubeconfig"
        self.socket = self.root / "ctd" / "c.sock"

    def start(self, name: str, *argv: object) -> None:
        """Start a process in a session of its own; its pid goes to pids/NAME, its output to logs/NAME.log."""
        for folder in ("pids", "logs"):
            (self.root / folder).mkdir(exist_ok=True)
        with (self.root / "logs" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.root,
                env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"},
            )
        (self.root / "pids" / name).write_text(f"{process.pid}\n")

    def kubectl(self, *argv: object, stdin: str | None = None) -> str:
        return run(self.bin / "kubectl", f"--kubeconfig={self.kubeconfig}", *argv, input=stdin)

    def wait(self, what: str, probe: list[object], limit_s: float = 90) -> None:
        end = time.monotonic() + limit_s
        while subprocess.run([str(a) for a in probe], capture_output=True).returncode:
            if time.monotonic() > end:
                raise SystemExit(f"{what} not ready after {limit_s:.0f} s; see {self.root}/logs")
            time.sleep(0.3)

    def start_control_plane(self) -> dict[str, object]:
        etcd_port, peer_port, api_port = free_port(), free_port(), free_port()
        token = base64.b32encode(os.urandom(20)).decode().lower()
        (self.root / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        run("openssl", "genrsa", "-out", self.root / "sa.key", "2048")
        etcd = f"http://127.0.0.1:{etcd_port}"
        self.start("etcd", self.bin / "etcd", f"--data-dir={self.root}/etcd", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
                   f"--listen-peer-urls=http://127.0.0.1:{peer_port}", "--unsafe-no-fsync")  # fmt: skip
        self.start("kube-apiserver", self.bin / "kube-apiserver", f"--etcd-servers={etcd}", f"--cert-dir={self.root}/certs",
                   f"--secure-port={api_port}", "--bind-address=127.0.0.1", "--service-cluster-ip-range=10.96.0.0/16",
                   "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={self.root}/sa.key",
                   f"--service-account-signing-key-file={self.root}/sa.key", f"--token-auth-file={self.root}/tokens.csv",
                   "--authorization-mode=RBAC", "--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true", *self.auditing())  # fmt: skip
        server = f"https://127.0.0.1:{api_port}"
        certificate = self.root / "certs" / "apiserver.crt"
        self.wait("the API server's certificate", ["test", "-s", certificate])
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "mp-test",
            "clusters": [{"name": "mp-test", "cluster": {"server": server, "certificate-authority-data": base64.b64encode(certificate.read_bytes()).decode()}}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "mp-test", "context": {"cluster": "mp-test", "user": "admin"}}],
        }  # fmt: skip
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(config, indent=1))
        self.wait(
            "the API server",
            [self.bin / "kubectl", f"--kubeconfig={self.kubeconfig}", "get", "--raw", "/readyz"],
        )
        access = [
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
        ]
        self.start("kube-controller-manager", self.bin / "kube-controller-manager", f"--service-account-private-key-file={self.root}/sa.key",
                   f"--root-ca-file={certificate}", "--kube-api-qps=400", "--kube-api-burst=800", "--node-monitor-grace-period=300s", *access)  # fmt: skip
        access[-1] = f"--secure-port={free_port()}"
        self.start(
            "kube-scheduler",
            self.bin / "kube-scheduler",
            "--kube-api-qps=400",
            "--kube-api-burst=800",
            *access,
        )
        self.wait(
            "the default service account",
            [self.bin / "kubectl", f"--kubeconfig={self.kubeconfig}", "get", "sa", "default"],
        )
        return {
            "kubeconfig": str(self.kubeconfig),
            "context": "mp-test",
            "server": server,
            "token": token,
            "version": KUBERNETES,
        }

    def auditing(self) -> list[str]:
        """The API server's arguments for a log of requests; blocking: what was answered is in it."""
        if not self.audit:
            return []
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "None", "verbs": ["watch"]}, {"level": "Metadata"}],
        }
        (self.root / "audit.json").write_text(json.dumps(policy))
        log = f"--audit-log-path={self.root}/logs/audit.log"
        return [f"--audit-policy-file={self.root}/audit.json", log, "--audit-log-mode=blocking"]

    def start_node(self, gpus: int, product: str) -> None:
        """A real node. No cluster DNS and no kube-proxy: pods are reached by pod address or port-forward."""
        bridge = "mp" + hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        subnet = f"10.{100 + int(bridge[2:4], 16) % 100}.{int(bridge[4:6], 16)}.0/24"
        for folder in ("ctd", "cni", "image/rootfs"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "bridge").write_text(bridge)
        network = {"cniVersion": "1.0.0", "name": bridge, "plugins": [
            {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True, "ipam": {
                "type": "host-local", "dataDir": f"{self.root}/cni-ipam", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": True}}]}  # fmt: skip
        (self.root / "cni" / "10-mp.conflist").write_text(json.dumps(network))
        # restrict_oom_score_adj: inside a machine without CAP_SYS_RESOURCE runc cannot lower the score and dies with "can't get final child's PID".
        (self.root / "ctd.toml").write_text(f"""version = 4
root = '{self.root}/ctd/root'
state = '{self.root}/ctd/state'
[plugins.'io.containerd.server.v1.grpc']
  address = '{self.socket}'
[plugins.'io.containerd.server.v1.ttrpc']
  address = '{self.socket}.ttrpc'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'mp.test/pause:1'
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '{self.root}/certs.d'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{self.bin}']
  conf_dir = '{self.root}/cni'
""")
        self.start("containerd", self.bin / "containerd", "-c", self.root / "ctd.toml")
        ctr = [self.bin / "ctr", "-a", self.socket, "-n", "k8s.io"]
        self.wait("containerd", [*ctr, "version"])
        self.import_pause_image(ctr)
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failCgroupV1": False, "cgroupDriver": "cgroupfs",
            "failSwapOn": False, "containerRuntimeEndpoint": f"unix://{self.socket}", "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "enforceNodeAllocatable": [], "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
            "podLogsDir": f"{self.root}/podlogs", "resolvConf": "/etc/resolv.conf", "clusterDomain": "cluster.local", "port": free_port(), "healthzPort": 0,
            "cgroupRoot": f"/{bridge}", "shutdownGracePeriod": "0s", "serializeImagePulls": False, "imageGCHighThresholdPercent": 99,
        }  # fmt: skip
        (self.root / "kubelet.json").write_text(json.dumps(kubelet))
        for controller in Path("/sys/fs/cgroup").iterdir():  # cgroup v1: one tree a controller; v2: harmless
            if controller.is_dir() and (controller / "cgroup.procs").exists():
                (controller / bridge).mkdir(exist_ok=True)
        self.start("kubelet", self.bin / "kubelet", f"--config={self.root}/kubelet.json", f"--kubeconfig={self.kubeconfig}",
                   f"--root-dir={self.root}/kubelet", f"--cert-dir={self.root}/kubelet-pki", "--hostname-override=node-1")  # fmt: skip
        self.kubectl_wait_node("node-1")
        if gpus:
            self.kubectl(
                "label", "node", "node-1", f"nvidia.com/gpu.product={product}", "nvidia.com/gpu.present=true"
            )
            patch = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": str(gpus)}]
            self.kubectl(
                "patch", "node", "node-1", "--subresource=status", "--type=json", "-p", json.dumps(patch)
            )

    def kubectl_wait_node(self, name: str) -> None:
        self.wait(
            f"node {name}",
            [
                self.bin / "kubectl",
                f"--kubeconfig={self.kubeconfig}",
                "wait",
                "--for=condition=Ready",
                f"node/{name}",
                "--timeout=1s",
            ],
        )

    def import_pause_image(self, ctr: list[object]) -> None:
        """The one image a node needs of its own, as an OCI layout made here: no registry is asked."""
        image = self.root / "image"
        shutil.copy(self.bin / "pause", image / "rootfs" / "pause")
        run(
            "tar",
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "-C",
            image / "rootfs",
            "-cf",
            image / "layer.tar",
            "pause",
        )
        blobs = image / "layout" / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)

        def blob(data: bytes, media_type: str) -> dict[str, object]:
            digest = hashlib.sha256(data).hexdigest()
            (blobs / digest).write_bytes(data)
            return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

        oci = "application/vnd.oci.image"
        layer = blob((image / "layer.tar").read_bytes(), f"{oci}.layer.v1.tar")
        config = blob(json.dumps({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/pause"]},
                                  "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode(), f"{oci}.config.v1+json")  # fmt: skip
        manifest = blob(
            json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": f"{oci}.manifest.v1+json",
                    "config": config,
                    "layers": [layer],
                }
            ).encode(),
            f"{oci}.manifest.v1+json",
        )
        manifest["annotations"] = {"io.containerd.image.name": "mp.test/pause:1"}
        (image / "layout" / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "manifests": [manifest]})
        )
        (image / "layout" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        run("tar", "-C", image / "layout", "-cf", image / "pause.tar", "oci-layout", "index.json", "blobs")
        run(*ctr, "images", "import", image / "pause.tar")

    def add_fake_nodes(self, count: int, gpus: int, product: str) -> None:
        self.start("kwok", self.bin / "kwok", f"--kubeconfig={self.kubeconfig}", f"--config={self.bin}/kwok-stages.yaml",
                   "--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake", "--server-address=",
                   "--node-lease-duration-seconds=40")  # fmt: skip
        resources = {
            "cpu": "96",
            "memory": "1Ti",
            "pods": "250",
            **({"nvidia.com/gpu": str(gpus)} if gpus else {}),
        }
        nodes = [{
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": f"fake-{i}", "annotations": {"kwok.x-k8s.io/node": "fake"},
                         "labels": {"kubernetes.io/hostname": f"fake-{i}", "type": "kwok", "nvidia.com/gpu.product": product}},
            "status": {"allocatable": resources, "capacity": resources},
        } for i in range(count)]  # fmt: skip
        self.kubectl(
            "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes})
        )
        self.kubectl_wait_node(f"fake-{count - 1}")

    def stop(self) -> None:
        """Stop in reverse order of dependence, kill left-over containers, unmount, remove; safe to run twice."""
        self.end("kubelet")
        self.remove_containers()
        for name in (
            "containerd",
            "kwok",
            "kube-scheduler",
            "kube-controller-manager",
            "kube-apiserver",
            "etcd",
        ):
            self.end(name, signal.SIGKILL if name == "kube-apiserver" else signal.SIGTERM)
        self.kill_shims()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.root}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], capture_output=True)
        self.remove_bridge()
        shutil.rmtree(self.root, ignore_errors=True)

    def remove_containers(self) -> None:
        if not (self.socket.exists() and self.alive("containerd")):
            return
        ctr = [str(self.bin / "ctr"), "-a", str(self.socket), "-n", "k8s.io"]
        tasks = subprocess.run([*ctr, "task", "ls", "-q"], capture_output=True, text=True).stdout.split()
        for task in tasks:
            subprocess.run([*ctr, "task", "rm", "-f", task], capture_output=True)

    def kill_shims(self) -> None:
        """They are told by our socket's address in their arguments."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.socket).encode() in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
            except (OSError, ValueError):
                continue

    def remove_bridge(self) -> None:
        """The pods' network, and the control groups that bear its name."""
        if not (self.root / "bridge").exists():
            return
        bridge = (self.root / "bridge").read_text()
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)
        for base in Path("/sys/fs/cgroup").iterdir():
            top = base / bridge
            groups = sorted(top.rglob("*/"), reverse=True) if top.is_dir() else []
            for group in (*(g for g in groups if g.is_dir()), top):
                subprocess.run(["rmdir", str(group)], capture_output=True)

    def alive(self, name: str) -> bool:
        pid_file = self.root / "pids" / name
        return pid_file.exists() and Path("/proc", pid_file.read_text().strip(), "cmdline").exists()

    def end(self, name: str, sign: signal.Signals = signal.SIGTERM) -> None:
        if not self.alive(name):
            return
        pid = int((self.root / "pids" / name).read_text())
        for sign_now, limit_s in ((sign, 10), (signal.SIGKILL, 5)):
            try:
                os.kill(pid, sign_now)
            except ProcessLookupError:
                return
            end = time.monotonic() + limit_s
            while time.monotonic() < end:
                try:
                    if os.waitpid(pid, os.WNOHANG)[0]:
                        return
                except ChildProcessError:
                    stat = Path("/proc", str(pid), "stat")
                    if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                        return
                time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build")
    up = commands.add_parser("up")
    up.add_argument("dir", type=Path)
    up.add_argument("--node", action="store_true", help="a real node (containerd + kubelet)")
    up.add_argument("--fake-nodes", type=int, default=0, metavar="N")
    up.add_argument(
        "--gpus", type=int, default=0, help="nvidia.com/gpu on every node (advertised, not present)"
    )
    up.add_argument("--gpu-product", default="NVIDIA-L4")
    up.add_argument("--audit", action="store_true", help="a log of requests")
    commands.add_parser("down").add_argument("dir", type=Path)
    options = parser.parse_args()
    bin_dir = build()
    if options.command == "build":
        print(bin_dir)
        return
    if options.command == "down":
        Cluster(options.dir, bin_dir).stop()
        return
    cluster = Cluster(options.dir, bin_dir, options.audit)
    if len(str(cluster.socket)) > 60:
        raise SystemExit(
            f"{cluster.root} is too long a path: containerd's sockets would pass 107 characters; use something like /tmp/k1"
        )
    cluster.root.mkdir(parents=True)
    facts = cluster.start_control_plane()
    if options.node:
        cluster.start_node(options.gpus, options.gpu_product)
    if options.fake_nodes:
        cluster.add_fake_nodes(options.fake_nodes, options.gpus, options.gpu_product)
    print(
        json.dumps(
            {
                **facts,
                "kubectl": str(bin_dir / "kubectl"),
                "nodes": cluster.kubectl("get", "nodes", "-o", "name").split(),
            }
        )
    )


if __name__ == "__main__":
    main()

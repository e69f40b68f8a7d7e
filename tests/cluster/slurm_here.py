"""A real Slurm on this machine alone, with GPUs that are not there: to see what it is asked and does.

Its daemons, its munge and all their files belong to one folder and to ports of its own, so that it touches
no Slurm of the machine's. Needs root, because slurmd starts jobs as their user and GPUs are device nodes.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
DAEMONS = ("slurmd", "slurmctld", "munged")  # in the order in which they are stopped; of slurmd, one a node

# How Slurm itself saw each task: its record of the devices that a job was given.
PROLOG = """#!/bin/sh
printenv >{folder}/tasks/$SLURM_JOB_ID.$SLURM_STEP_ID.$SLURM_PROCID
"""

SLURM_CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
TaskProlog={folder}/prolog
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=7200
KillWait={kill_wait}
OverTimeLimit=0
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
DefMemPerCPU=256
AccountingStorageType=accounting_storage/none
GresTypes=gpu
{nodes}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=24:00:00 PriorityTier=1
PartitionName=gpu Nodes=ALL MaxTime=24:00:00 PriorityTier=1
PartitionName=main Nodes=ALL MaxTime=48:00:00 PriorityTier=1
PartitionName=a100 Nodes=ALL MaxTime=24:00:00 PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=24:00:00 PriorityTier=10
"""
# Every node is this machine: what it claims to have is counted once for each.
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 "
    "SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory} Gres=gpu:a100:{gpus} "
    "State=UNKNOWN"
)


@contextlib.contextmanager
def running(**claims):
    """A running `Slurm(folder, **claims)`, or the test is skipped where there can be none."""
    # Slurm's sockets and munge want short paths that every user may enter.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp"))
    folder.chmod(0o755)
    here = None
    try:
        reason = why_not(folder)
        if reason is not None:
            pytest.skip(reason)
        here = Slurm(folder, **claims)
        here.start()
        yield here
    finally:
        if here is not None:
            here.stop()
        shutil.rmtree(folder, ignore_errors=True)


def why_not(folder):
    """Why no Slurm can be started here (str), None if it can: then its packages are installed."""
    if os.geteuid() != 0:
        return "a real Slurm needs root"
    missing = [package for command, package in PACKAGES.items() if shutil.which(command) is None]
    if missing:
        if not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
            return "no Slurm here, and only Debian's packages are known"
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
            if subprocess.run(["apt-get", "-qq", *words], env=environment, capture_output=True).returncode:
                return f"apt-get cannot install {', '.join(missing)}"
    try:
        _make_device(Path(folder) / "device")
    except OSError:
        return "no device nodes can be made here (mknod)"
    return None


def _make_device(path):
    # gres.conf takes device nodes only; a clone of /dev/null serves.
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.1)


class Slurm:
    """A running Slurm; `environment` (dict) is what its commands need."""

    def __init__(self, folder, gpus, cpus, kill_wait, nodes=1):
        """folder: empty directory; gpus, cpus: what a node claims; kill_wait: seconds from TERM to KILL."""
        self.folder = Path(folder)
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._processes = {}
        host = socket.gethostname().split(".")[0]
        self.nodes = [host, *(f"{host}-{number}" for number in range(2, nodes + 1))]
        self._configure(gpus, cpus, kill_wait)

    def _configure(self, gpus, cpus, kill_wait):
        for name in ("bin", "ctld", "tasks"):
            (self.folder / name).mkdir()
        # The executor plugin starts srun without SLURM_CONF, which other sites have in /etc.
        for command in ("srun", "scontrol", "squeue"):
            wrapper = self.folder / "bin" / command
            conf = self.folder / "slurm.conf"
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which(command)} "$@"\n')
            wrapper.chmod(0o755)
        (self.folder / "tasks").chmod(0o777)
        prolog = self.folder / "prolog"
        prolog.write_text(PROLOG.format(folder=self.folder))
        prolog.chmod(0o755)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        host, nodes, devices = self.nodes[0], [], ["AutoDetect=off"]
        for name in self.nodes:
            claims = {"cpus": cpus, "memory": memory, "gpus": gpus}
            nodes.append(NODE.format(name=name, host=host, port=_free_port(), **claims))
            for number in range(gpus):
                device = self.folder / f"gpu-{name}-{number}"
                _make_device(device)
                devices.append(f"NodeName={name} Name=gpu Type=a100 File={device}")
        (self.folder / "slurm.conf").write_text(
            SLURM_CONF.format(
                host=host,
                folder=self.folder,
                ctld_port=_free_port(),
                nodes="\n".join(nodes),
                kill_wait=kill_wait,
            )
        )
        (self.folder / "gres.conf").write_text("\n".join(devices) + "\n")
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o400)

    def _launch(self, daemon, *arguments):
        with open(self.folder / f"{daemon}.out", "ab") as out:
            self._processes[(daemon, *arguments)] = subprocess.Popen(
                [shutil.which(daemon), *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def start(self):
        """Start the daemons; returns when the nodes are idle."""
        files = {name: str(self.folder / f"munge.{name}") for name in ("socket", "key", "pid", "log", "seed")}
        flags = [
            f"--{flag}={files[name]}"
            for flag, name in [
                ("socket", "socket"),
                ("key-file", "key"),
                ("pid-file", "pid"),
                ("log-file", "log"),
                ("seed-file", "seed"),
            ]
        ]
        self._launch("munged", "--foreground", "--force", *flags)
        _wait_for(Path(files["socket"]).exists, 20, f"munged, see {self.folder}/munged.out")
        self._launch("slurmctld", "-D")
        for name in self.nodes:
            self._launch("slurmd", "-D", "-N", name)

        def idle():
            return self.ask("sinfo", "-h", "-p", "cpu", "-N", "-o", "%T").split() == ["idle"] * len(
                self.nodes
            )

        _wait_for(idle, 60, f"slurmd, see {self.folder}")

    def stop(self):
        """Cancel every job and end the daemons that `start` began."""
        self.ask("scancel", "--full", "-u", "root")
        with contextlib.suppress(TimeoutError):
            _wait_for(lambda: not self.ask("squeue", "-h", "-t", "R,CG"), 20, "the jobs' end")
        for started in sorted(self._processes, key=lambda started: DAEMONS.index(started[0])):
            process = self._processes.pop(started)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, *words):
        """What a command of Slurm's says (str), nothing if it fails."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def snakemake(self, directory, *arguments):
        """Run Snakemake in `directory` through the profile slurm; the finished process."""
        return subprocess.run(
            ["snakemake", "--profile", "slurm", *arguments],
            cwd=directory,
            env=self.environment,
            capture_output=True,
            text=True,
        )

    def jobs(self):
        """Every job so far (list of dict), as scontrol shows it; `Rule` is the rule that it ran."""
        found = []
        for line in self.ask("scontrol", "show", "job", "-d", "-o").splitlines():
            job = dict(re.findall(r"(?:^|\s)([A-Za-z:/_]+)=(\S*)", line))
            if "JobId" in job:
                job["Rule"] = re.sub(r"^(rule|group)_|_wildcards_.*", "", job.get("Comment", ""))
                found.append(job)
        return found

    def devices(self, job):
        """CUDA_VISIBLE_DEVICES (str) of a job's first step, as Slurm set it; "" where it set none."""
        found = ""
        for path in sorted((self.folder / "tasks").glob(f"{job['JobId']}.*")):
            given = dict(line.partition("=")[::2] for line in path.read_text().splitlines())
            found = given.get("CUDA_VISIBLE_DEVICES", "") or found
        return "" if found == "NoDevFiles" else found

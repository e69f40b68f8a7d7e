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

import psutil
import pytest
from project_copy import PRETENDED_GPUS

PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
ACCOUNTING = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}
# In the order in which they are stopped; of slurmd, one a node.
DAEMONS = ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged")

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
SlurmdTimeout=30
OverTimeLimit=0
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
DefMemPerCPU=256
GresTypes=gpu
{accounting}
{nodes}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=24:00:00 PriorityTier=1
PartitionName=gpu Nodes=ALL MaxTime=24:00:00 PriorityTier=1
PartitionName=main Nodes=ALL MaxTime=48:00:00 PriorityTier=1
PartitionName=a100 Nodes=ALL MaxTime=24:00:00 PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=24:00:00 PriorityTier=10
"""
TO_DATABASE = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
"""
SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=root
StorageLoc=slurm
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
        reason = why_not(folder, claims.get("accounting", False))
        if reason is not None:
            pytest.skip(reason)
        here = Slurm(folder, **claims)
        here.start()
        yield here
    finally:
        if here is not None:
            here.stop()
        shutil.rmtree(folder, ignore_errors=True)


def why_not(folder, accounting):
    """Why no Slurm can be started here (str), None if it can: then its packages are installed."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return "this machine has GPUs, which jobs would take for those that this Slurm makes up"
    if os.geteuid() != 0:
        return "a real Slurm needs root"
    packages = PACKAGES | ACCOUNTING if accounting else PACKAGES
    missing = [package for command, package in packages.items() if shutil.which(command) is None]
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


def wait_for(condition, seconds, what):
    """The first true value of condition(); TimeoutError after so many seconds, which says `what` (str)."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.1)


class Slurm:
    """A running Slurm; `environment` (dict) is what its commands need."""

    def __init__(self, folder, gpus, cpus, kill_wait, nodes=1, accounting=False):
        """folder: empty directory; gpus, cpus: what a node claims; kill_wait: seconds from TERM to KILL.

        accounting: whether jobs go into a database, for sacct.
        """
        self.folder = Path(folder)
        self.accounting = accounting
        self.environment = {
            **os.environ,
            "PYTHONPATH": PRETENDED_GPUS,
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
        database, keep = {name: _free_port() for name in ("port", "database_port")}, ""
        if self.accounting:
            keep = TO_DATABASE.format(folder=self.folder, port=database["port"])
            conf = self.folder / "slurmdbd.conf"
            conf.write_text(SLURMDBD_CONF.format(folder=self.folder, host=self.nodes[0], **database))
            conf.chmod(0o600)
            self.database_port = database["database_port"]
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
                accounting=keep,
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
        wait_for(Path(files["socket"]).exists, 20, f"munged, see {self.folder}/munged.out")
        if self.accounting:
            self._start_database()
        self._launch("slurmctld", "-D")
        for name in self.nodes:
            self._launch("slurmd", "-D", "-N", name)

        def idle():
            return self.ask("sinfo", "-h", "-p", "cpu", "-N", "-o", "%T").split() == ["idle"] * len(
                self.nodes
            )

        wait_for(idle, 60, f"slurmd, see {self.folder}")

    def _start_database(self):
        data = self.folder / "database"
        data.mkdir()
        here = [f"--datadir={data}", "--user=root"]
        subprocess.run(["mariadb-install-db", *here], check=True, capture_output=True)
        socket_file = self.folder / "database.socket"
        tcp = ["--bind-address=127.0.0.1", f"--port={self.database_port}", f"--socket={socket_file}"]
        # Whoever reaches the port is root there, which is nobody but this machine, for a test's time.
        self._launch("mariadbd", "--no-defaults", "--skip-grant-tables", *here, *tcp)
        wait_for(socket_file.exists, 60, f"mariadbd, see {self.folder}/mariadbd.out")
        self._launch("slurmdbd", "-D")
        wait_for(lambda: "here" in self._clusters(), 60, f"slurmdbd, see {self.folder}/slurmdbd.out")

    def _clusters(self):
        self.ask("sacctmgr", "-i", "add", "cluster", "here")
        return self.ask("sacctmgr", "-nP", "show", "cluster", "format=cluster").split()

    def stop(self):
        """Cancel every job and end the daemons that `start` began."""
        self.ask("scancel", "--full", "-u", "root")
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: not self.ask("squeue", "-h", "-t", "R,CG"), 20, "the jobs' end")
        for started in sorted(self._processes, key=lambda started: DAEMONS.index(started[0])):
            process = self._processes.pop(started)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def cut_power(self, node):
        """SIGKILL for all that runs on a node (str), its slurmd first: nobody says goodbye."""
        slurmd = self._processes.pop(("slurmd", "-D", "-N", node))
        running = [
            job["JobId"] for job in self.jobs() if (job["JobState"], job["NodeList"]) == ("RUNNING", node)
        ]
        steps = [
            process
            for process in psutil.process_iter(["cmdline"])
            if re.match(rf"slurmstepd: \[({'|'.join(running)})\.", " ".join(process.info["cmdline"] or ""))
        ]
        slurmd.kill()
        slurmd.wait()
        for step in steps:
            step.suspend()  # or it would report the end of its children
        for process in [child for step in steps for child in step.children(recursive=True)] + steps:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def ask(self, *words):
        """What a command of Slurm's says (str), nothing if it fails."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def start_snakemake(self, directory, *arguments, **variables):
        """A Snakemake (Popen) that works in `directory` through the profile slurm, in the background.

        variables: of its environment, beside those that Slurm needs. What it says, errors too, is in stdout.
        """
        return subprocess.Popen(
            ["snakemake", "--profile", "slurm", *arguments],
            cwd=directory,
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def snakemake(self, directory, *arguments, **variables):
        """Run it to a good end; what it said (str), the end of which is the message of an AssertionError."""
        driver = self.start_snakemake(directory, *arguments, **variables)
        said, _ = driver.communicate()
        assert driver.returncode == 0, said[-5000:]
        return said

    def jobs(self):
        """Every job so far (list of dict), as scontrol shows it; `Rule` is the rule that it ran."""
        found = []
        for line in self.ask("scontrol", "show", "job", "-d", "-o").splitlines():
            job = dict(re.findall(r"(?:^|\s)([A-Za-z:/_]+)=(\S*)", line))
            if "JobId" in job:
                job["Rule"] = re.sub(r"^(rule|group)_|_wildcards_.*", "", job.get("Comment", ""))
                found.append(job)
        return found

    def jobs_of(self, directory, rule):
        """Those of a rule in a folder, the first one first."""
        found = [job for job in self.jobs() if job["Rule"] == rule and job["WorkDir"] == str(directory)]
        return sorted(found, key=lambda job: int(job["JobId"]))

    def devices(self, job):
        """CUDA_VISIBLE_DEVICES (str) of a job's first step, as Slurm set it; "" where it set none."""
        found = ""
        for path in sorted((self.folder / "tasks").glob(f"{job['JobId']}.*")):
            given = dict(line.partition("=")[::2] for line in path.read_text().splitlines())
            found = given.get("CUDA_VISIBLE_DEVICES", "") or found
        return "" if found == "NoDevFiles" else found

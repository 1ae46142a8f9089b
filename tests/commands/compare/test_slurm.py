"""``--cluster slurm`` on a real Slurm of one node, which the fixture starts."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from classy_gc.commands import main
from tests import forked
from tests.commands.compare.test_compare import arguments, hooked, logs, tiny

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmdParameters=config_overrides
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
SlurmdPort={other_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
KillWait=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def of_process(pid, name):
    """What the kernel says of a process, which may have ended by now."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
            pytest.skip(f"{program} is not installed: apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("slurmd starts jobs as root only")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    ports = {"port": free_port(), "other_port": free_port()}
    conf.write_text(CONF.format(folder=folder, host=host, **ports))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    monkeypatch.setenv("SLURM_CONF", str(conf))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    names = {"key-file": "key", "socket": "socket", "pid-file": "pid"}
    names |= {"log-file": "log", "seed-file": "seed"}
    munge = [f"--{flag}={folder}/munge.{end}" for flag, end in names.items()]
    commands = (
        ["/usr/sbin/munged", "--force", "--foreground", *munge],
        ["/usr/sbin/slurmctld", "-D", "-f", str(conf)],
        ["/usr/sbin/slurmd", "-D", "-f", str(conf)],
    )
    log = (folder / "daemons.log").open("wb")
    daemons = []
    try:
        for command in commands:
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            if command is commands[0]:
                wait_for("munge", (folder / "munge.socket").exists)
        wait_for("an idle node", lambda: "idle" in run("sinfo", "--noheader", "--format=%T"))
        yield
    finally:
        run("scancel", "--me")  # what a failed test has left, or it would outlast its daemons
        wait_for("an empty queue", lambda: not run("squeue", "--noheader"))
        for daemon in daemons[::-1]:
            daemon.terminate()
            daemon.wait(30)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def wait_for(what, condition, process=None):
    """Waits up to 400 s: on a busy machine a job needs a minute to import torch alone."""
    deadline = time.monotonic() + 400
    while not condition():
        ended = process is not None and not process.is_alive()
        if ended or time.monotonic() > deadline:
            said = [*Path().glob("errors"), *Path().rglob("output.log"), *Path().rglob("*.err")]
            logs = [f"{file}:\n{file.read_text()[-2000:]}" for file in said]
            pytest.fail("\n".join([f"waited in vain for {what}", run("squeue"), *logs]))
        time.sleep(0.1)


def epochs(arm):
    """The epochs that a run has tested, in the order of its log."""
    return [x["epoch"] for x in logs()[arm, 0] if x.get("phase") == "test"]


def starts(arm):
    return sum(x["kind"] == "provenance" for x in logs().get((arm, 0), []))


def test_jobs_that_slurm_refuses_are_one_line(here, monkeypatch, capsys):
    pytest.importorskip("submitit")
    for name in ("srun", "sbatch"):
        program = Path("bin", name)
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\necho sbatch: error: invalid partition >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(here / "bin"), prepend=os.pathsep)
    command = arguments(tiny(), "--vary", "optimizer.use_gc=false,true", "--cluster", "slurm")
    with pytest.raises(SystemExit) as exit_:
        main(command)
    assert exit_.value.code == 2
    wanted = "\nclassy-gc compare: error: --cluster slurm: sbatch: error: invalid partition\n"
    assert capsys.readouterr().err.endswith(wanted)  # submitit shows those of sbatch first


def test_a_job_that_is_preempted_goes_on_and_one_that_is_killed_does_next_time(slurm, here, capfd):
    config = hooked(do="hold", epochs=6)  # in the fourth, until there is a file "go"
    command = arguments(config, "--vary", "optimizer.use_gc=false,true", "--seeds", 1)
    command += ["--cluster", "slurm", "--slurm_partition", "main", "--slurm_time", "10"]
    process = forked.start(forked.command, *command, cwd=here, output=("printed", "errors"))
    try:
        off, on = "use_gc=false", "use_gc=true"
        wait_for(
            "three epochs of both",
            lambda: all((arm, 0) in logs() and len(epochs(arm)) == 3 for arm in (off, on)),
            process,
        )
        jobs = sorted(run("squeue", "--noheader", "--array", "--format=%i").split())
        run("scancel", "--signal=USR2", jobs[0])  # as a preemption does
        task = f"SLURM_ARRAY_TASK_ID={jobs[1].partition('_')[2]}\0"
        killed = [
            int(pid)
            for pid in run("pgrep", "-f", "submitit.core._submit").split()
            if task in of_process(pid, "environ") and str(here) in of_process(pid, "cmdline")
        ]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert killed
        wait_for(
            "the preempted job to be queued again",
            lambda: "JOB REQUEUE" in " ".join(x.read_text() for x in Path("out").rglob("*.err")),
            process,
        )
        Path("go").touch()
        wait_for("the command's end", lambda: not process.is_alive())
        assert process.exitcode == 1
    finally:
        process.kill()
        process.join()
    printed = Path("printed").read_text()
    assert re.search(rf"failed: {on}, seed 0: job \d+_1 was killed or failed", printed)
    assert epochs(off) == list(range(1, 7))
    assert starts(off) == 2
    assert epochs(on) == [1, 2, 3]

    wanted = json.loads(Path(f"out/runs/{on}/seed_0/config.json").read_text())
    assert main(command) == 0
    assert epochs(on) == list(range(1, 7))
    assert starts(on) == 2  # from its checkpoint, not anew
    assert json.loads(Path(f"out/runs/{on}/seed_0/config.json").read_text()) == wanted
    assert json.loads(Path("out/results.json").read_text())["failed"] == []

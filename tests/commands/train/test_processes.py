import signal

import pytest

from classy_gc.commands.train.processes import delay_interrupts


def test_ctrl_c_waits_while_workers_start_which_inherit_that():
    masks = []

    def create():
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        signal.raise_signal(signal.SIGINT)
        masks.append("went on")

    with pytest.raises(KeyboardInterrupt):
        delay_interrupts(create)()
    assert signal.SIGINT in masks[0]
    assert masks[1:] == ["went on"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])

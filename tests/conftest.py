import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Threads that wait for each other cost more than tensors as small as these do."""
    torch.set_num_threads(1)

import itertools
import sys

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from classy_gc.core.measures import row_mean_norms, row_sums

from .processes import process_group, results_of

# Rows that two processes cannot share equally, and a single row.
SHAPES = [(5, 7), (8, 4, 3), (1, 6)]
PLACEMENTS = {"whole rows": Shard(0), "parts of rows": Shard(1), "copies": Replicate()}
CASES = list(itertools.product(SHAPES, PLACEMENTS))


def tensors(shape):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) + 0.5 for _ in range(2)]


def main(path):
    with process_group(path) as results:
        mesh = init_device_mesh("cpu", (2,))
        for shape, placement in CASES:
            x, start = (distribute_tensor(x, mesh, [PLACEMENTS[placement]]) for x in tensors(shape))
            results[shape, placement] = row_mean_norms(x, row_sums(start))


if __name__ == "__main__":
    main(sys.argv[1])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return results_of(__name__, tmp_path_factory)


@pytest.mark.parametrize(("shape", "placement"), CASES)
def test_sharded_weights_have_the_norms_of_whole_ones(results, shape, placement):
    x, start = (x.double().flatten(1) for x in tensors(shape))
    means = (x - start).mean(1, keepdim=True).expand_as(x)
    wanted = torch.stack([means.norm(), x.norm()]).float()
    torch.testing.assert_close(results[shape, placement], wanted)

import matplotlib.image
import numpy as np
import pytest


def check_picture(path, height):
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (pytest.approx(150 * height, abs=2), 1350)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 10

"""Maps in files of each format."""

import numpy as np
import rasterio
import rasterio.warp
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine

UTM = CRS.from_epsg(32633)
PLACE = Affine(0.5, 0, 458000, 0, -0.5, 5551000)
VALUES = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
ALL = slice(0, 3), slice(0, 4)


def tiff(path, values=VALUES, crs=UTM, transform=PLACE, **options):
    values = np.atleast_3d(values.T).T
    count, height, width = values.shape
    size = (width, height, count)
    with rasterio.open(path, "w", "GTiff", *size, crs, transform, values.dtype, **options) as file:
        file.write(values)
    return path


def png(path, values, mode=None):
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)
    return path


def saved(path, values, **arrays):
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        np.savez(path, values, **arrays)
    return path


def truncated(path, values):
    saved(path, values)
    path.write_bytes(path.read_bytes()[:-30])


def damaged(path, values):
    np.savez_compressed(path, np.tile(values, (9, 9)))
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)

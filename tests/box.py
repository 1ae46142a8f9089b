"""``box://``: a local folder behind a scheme, as of remote storage."""

from fvcore.common.file_io import NativePathHandler, PathHandler


class Box(PathHandler):
    def __init__(self, folder):
        super().__init__()
        self.folder, self.native = folder, NativePathHandler()

    def _get_supported_prefixes(self):
        return ["box://"]

    def _local(self, path):
        return str(self.folder / path.removeprefix("box://"))

    def _copy(self, source, target, *args):
        return self.native._copy(self._local(source), self._local(target), *args)


def _forward(name):
    def method(self, path, *args, **kwargs):
        return getattr(self.native, name)(self._local(path), *args, **kwargs)

    setattr(Box, name, method)


for name in ("_open", "_exists", "_isfile", "_isdir", "_ls", "_mkdirs", "_rm"):
    _forward(name)

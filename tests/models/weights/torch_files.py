"""Writes PyTorch files without PyTorch, in both formats."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage", "f2": "HalfStorage"}


class _Pickler(pickle._Pickler):
    """Writes references as global names, and arrays as PyTorch writes tensors."""

    def __init__(self, file, view=()):
        super().__init__(file, protocol=2)
        self.storages, self._view = {}, view

    def save(self, value, save_persistent_id=True):
        if isinstance(value, types.SimpleNamespace):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif hasattr(value, "__array__"):
            self._save_tensor(value)
        else:
            super().save(value, save_persistent_id)

    def _save_tensor(self, array):
        key = str(len(self.storages))
        self.storages[key] = array
        self.save(name("torch._utils", "_rebuild_tensor_v2"))
        self.write(pickle.MARK)
        kind = name("torch", _STORAGES[array.dtype.str[1:]])
        super().save(("storage", kind, key, "cpu", array.size, *self._view))
        self.write(pickle.BINPERSID)
        strides = tuple(step // array.itemsize for step in array.strides)
        for part in (0, array.shape, strides, False, collections.OrderedDict()):
            self.save(part)
        self.write(pickle.TUPLE + pickle.REDUCE)


def name(module, text):
    """What is pickled as the global `module.text`."""
    return types.SimpleNamespace(module=module, name=text)


def write(path, content, legacy=False):
    """Writes objects, arrays among them, as `torch.save` does.

    Args:
      path: of the file.
      content: dicts, lists, numbers, text, contiguous arrays, and what `name` gives.
      legacy: whether to write the format before PyTorch 1.6.
    """
    assert sys.byteorder == "little"
    table = io.BytesIO()
    pickler = _Pickler(table, (None,) if legacy else ())
    pickler.dump(content)
    if legacy:
        with open(path, "wb") as file:
            for part in (_MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}):
                pickle.dump(part, file, protocol=2)
            file.write(table.getvalue())
            pickle.dump(list(pickler.storages), file, protocol=2)
            for array in pickler.storages.values():
                file.write(struct.pack("<q", array.size) + array.tobytes("A"))
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", table.getvalue())
        archive.writestr("weights/version", "3\n")
        archive.writestr("weights/byteorder", "little")
        for key, array in pickler.storages.items():
            archive.writestr(f"weights/data/{key}", array.tobytes("A"))

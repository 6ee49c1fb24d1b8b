"""The data in this package: MNIST, unpacked into the cache once, and the small digits; both checked."""

from __future__ import annotations

import gzip
import hashlib
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from paramtrans.errors import DataError
from paramtrans.storage.files import write_bytes

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""Of the files as torchvision reads them, uncompressed."""
DIGITS, DIGITS_MD5 = "digits.csv.gz", "9b335364a7bfd63947c7480a5bd51f2d"


def extract(root: Path) -> Path:
    """Unpack what is missing or damaged below `root` as torchvision lays it out; returns `root`."""
    for name, md5 in MD5.items():
        path = _raw(root) / name
        if not (path.is_file() and _md5(path.read_bytes()) == md5):
            packed = files("paramtrans_mnist").joinpath("data", f"{name}.gz")
            try:
                write_bytes(path, gzip.decompress(packed.read_bytes()))
            except (OSError, EOFError) as error:
                raise DataError(f"mnist: the shipped {name}.gz cannot be unpacked ({error}); install again") from error
    return root


def digits() -> tuple[Tensor, Tensor]:
    """The small digits: bytes `[1797, 8, 8]` from 0 to 16, and labels `[1797]`; `DataError` if damaged."""
    packed = files("paramtrans_mnist").joinpath("data", DIGITS)
    try:
        content = packed.read_bytes()
    except OSError as error:
        raise DataError(f"digits: the shipped {DIGITS} cannot be read ({error}); install again") from error
    if _md5(content) != DIGITS_MD5:
        raise DataError(f"digits: the shipped {DIGITS} is damaged; install again")
    rows = torch.from_numpy(np.loadtxt(BytesIO(gzip.decompress(content)), delimiter=",", dtype=np.uint8))
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].long()


def check(root: Path) -> None:
    """Raise `DataError` unless `root` holds the whole of MNIST, byte for byte."""
    for name, md5 in MD5.items():
        path = _raw(root) / name
        if not path.is_file():
            raise DataError(f"mnist: {path} is missing; task.root must be a folder with MNIST/raw/{name} in it")
        if _md5(path.read_bytes()) != md5:
            raise DataError(f"mnist: {path} is damaged (MD5 is not {md5}); replace it, or leave out task.root")


def _raw(root: Path) -> Path:
    return root / "MNIST" / "raw"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()

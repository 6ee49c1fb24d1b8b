"""Images from files, as calibration inputs are made of."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from paramtrans.errors import DataError, StoreError
from paramtrans.storage import outside
from paramtrans.utils.boundary import reason

IMAGES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
"""Endings of image files, each with the one format that such a file is read as."""
MAX_IMAGE, MAX_PIXELS = 2**28, 2**26
"""Bytes of an image, and pixels of one, at most."""


def read_image(path: Path) -> Any:
    """An image in RGB, as Pillow holds it.

    Raises:
        DataError: the file is no image, or has more than `MAX_IMAGE` bytes or `MAX_PIXELS` pixels.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(outside.content(path, MAX_IMAGE)), formats=[IMAGES[path.suffix.lower()]]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path}: {image.width}×{image.height} pixels are too many; make it smaller")
            return image.convert("RGB")
    except StoreError as error:
        raise DataError(str(error)) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image: {reason(error)}") from error

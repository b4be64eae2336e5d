"""Pictures without a library: drawn and read as PPM, written as PNG for browsers."""

import struct
import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """Rows of red, green and blue bytes."""

    width: int
    height: int
    pixels: bytes


def draw(hue: int, size: int = 256) -> bytes:
    """Return a picture of a ball, in a colour of its own (0 to 255), as PPM."""
    pixels = bytearray()
    for y in range(size):
        for x in range(size):
            light = max(0, 255 - (((x - size * 0.4) ** 2 + (y - size * 0.35) ** 2) ** 0.5) * 510 / size)
            inside = (x - size / 2) ** 2 + (y - size / 2) ** 2 < (size * 0.45) ** 2
            colour = (hue, 255 - hue, 160) if inside else (238, 238, 238)
            pixels += bytes(int(part * (light / 255 if inside else 1)) for part in colour)
    return b"P6 %d %d 255\n" % (size, size) + bytes(pixels)


def read_ppm(data: bytes) -> Picture:
    """Return the picture that `draw` has made."""
    head, _, pixels = data.partition(b"\n")
    magic, width, height, depth = head.split()
    if magic != b"P6" or depth != b"255" or len(pixels) != int(width) * int(height) * 3:
        raise ValueError("expected a picture in the format P6")
    return Picture(int(width), int(height), pixels)


def shrink(picture: Picture, factor: int) -> Picture:
    """Return the picture with each square of *factor* pixels as one, in its mean colour."""
    width, height = picture.width // factor, picture.height // factor
    pixels = bytearray()
    for y in range(height):
        rows = [picture.pixels[(y * factor + row) * picture.width * 3 :][: picture.width * 3] for row in range(factor)]
        for x in range(width):
            square = [row[x * factor * 3 : (x + 1) * factor * 3] for row in rows]
            pixels += bytes(sum(sum(part[channel::3]) for part in square) // factor**2 for channel in range(3))
    return Picture(width, height, bytes(pixels))


def as_png(picture: Picture) -> bytes:
    """Return the picture as PNG."""
    stride = picture.width * 3
    rows = b"".join(b"\0" + picture.pixels[at : at + stride] for at in range(0, len(picture.pixels), stride))
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

"""Keep freed memory instead of giving it back to the system at once.

A step of a sampler frees and asks for the same megabytes again and again. glibc takes blocks of that size
from the system each time and gives them back each time, and the system fills every new page with zeros: a
tenth of the time of a walk at 256 x 256 pixels, without which the peak of memory is the same. Only processes
of our own are told so, those that sample or train; a program that uses the library decides for itself.
"""

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> bool:
    """Tell the C library's allocator; False where it knows no such thing (only glibc does)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))

"""Keep resident memory near what is in use."""

import ctypes

_libc = ctypes.CDLL(None)


def return_freed_memory() -> None:
    """Give freed blocks back to the system.

    Tensors of ever new sizes leave glibc's heap in pieces that later, larger ones do not
    fit in, so that the process grows far beyond what it uses. Other C libraries have no such
    call and need none here.
    """
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)

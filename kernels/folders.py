"""The user's cache folder, where compiled kernels and downloaded data are kept."""

import os
from pathlib import Path


def user_cache() -> Path:
    """The folder for fastmlp in the user's cache, as the operating system has it; it need not exist yet.

    In a checkout, platformdirs may be missing. It is then ``$XDG_CACHE_HOME/fastmlp``, or ``~/.cache/fastmlp``, which
    on Linux is the same folder.

    Raises
    ------
    OSError
        If no home folder is known.
    """
    try:
        import platformdirs
    except ImportError:
        named = os.environ.get("XDG_CACHE_HOME", "").strip()
        # A relative one is to be ignored, says the XDG Base Directory Specification.
        root = os.path.join(named if os.path.isabs(named) else os.path.expanduser("~/.cache"), "fastmlp")
    else:
        try:
            root = platformdirs.user_cache_dir("fastmlp")
        except RuntimeError:  # no home folder is known; versions of platformdirs differ in how they say so
            root = "~"
    if root.startswith("~"):
        raise OSError("no home folder is known")
    return Path(root)

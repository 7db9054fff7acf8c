"""The versions of kdsearch and of the installed packages."""

from __future__ import annotations

__version__ = "0.1.0"


def commit_of_checkout() -> str:
    """Returns the commit of kdsearch's own checkout; empty if there is no checkout or git is not installed."""
    import subprocess  # not needed by --version
    from pathlib import Path

    folder = Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    except OSError:
        return ""
    return done.stdout.strip()


def installed_packages() -> str:
    """Lists every installed package in pip's requirements format, after a comment with Python and the platform."""
    import importlib.metadata  # slow to import, and not needed by --version
    import platform

    found = {(dist.name, dist.version) for dist in importlib.metadata.distributions() if dist.name}
    lines = [f"{name}=={version}" for name, version in sorted(found, key=lambda entry: entry[0].lower())]
    return "\n".join([f"# Python {platform.python_version()}, {platform.platform()}", *lines, ""])

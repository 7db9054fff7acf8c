"""The release of kdsearch, and those of the packages it runs with."""

from __future__ import annotations

__version__ = "0.1.0"


def commit_of_checkout() -> str:
    """The commit of kdsearch's own checkout; empty where it does not run from one, or where git is not installed."""
    import subprocess  # likewise not needed by --version
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
    """Python, the platform, and every installed package in the form that pip reads."""
    import importlib.metadata  # takes longer to import than all of kdsearch that --version needs
    import platform

    found = {(dist.name, dist.version) for dist in importlib.metadata.distributions() if dist.name}
    lines = [f"{name}=={version}" for name, version in sorted(found, key=lambda entry: entry[0].lower())]
    return "\n".join([f"# Python {platform.python_version()}, {platform.platform()}", *lines, ""])

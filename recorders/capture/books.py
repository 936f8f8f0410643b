"""The hashes of the resolve and prepare functions of every release (0.5.9 to 0.5.23).

They tell which release's books a server keeps.
"""

from __future__ import annotations

from collections.abc import Mapping

UNKNOWN = "unknown"

# release: (resolve, prepare), see `fingerprint.node_hash`
BOOKS: Mapping[str, tuple[str, str]] = {
    "0.5.9": ("2c41b48d9dca81a8", "6a0c11c0c8e55466"),
    "0.5.10": ("2c41b48d9dca81a8", "6a0c11c0c8e55466"),
    "0.5.10.post1": ("2c41b48d9dca81a8", "6a0c11c0c8e55466"),
    "0.5.11": ("4ef1f23531993d46", "b90f5e90c0652b57"),
    "0.5.12": ("543b470a05ca5480", "79d1f70945bae907"),
    "0.5.12.post1": ("543b470a05ca5480", "79d1f70945bae907"),
    "0.5.13": ("85b8aa1095144068", "0a613ff9a43b7cdd"),
    "0.5.13.post1": ("85b8aa1095144068", "0a613ff9a43b7cdd"),
    "0.5.14": ("868b329408f1f2e8", "4c1d5ef757865a79"),
    "0.5.15": ("a75ca60f0809dc50", "1d1badf4a3392cdd"),
    "0.5.15.post1": ("a75ca60f0809dc50", "1d1badf4a3392cdd"),
    "0.5.16": ("9a242bafa7751b8d", "689215d8474dad0a"),
    "0.5.17": ("fc0f057f89e3a375", "3939d52fc6280f73"),
    "0.5.18": ("fc0f057f89e3a375", "3939d52fc6280f73"),
    "0.5.19": ("388932fdbe5f76fd", "83c0900bacc90097"),
    "0.5.20": ("e543110574ba6a27", "83c0900bacc90097"),
    "0.5.21": ("e543110574ba6a27", "83c0900bacc90097"),
    "0.5.22": ("e543110574ba6a27", "b875803a334391e1"),
    "0.5.23": ("4e39d5f24aacd87e", "630ae5242daff719"),
}


def books_release(resolve: str | None, prepare: str | None, version: str) -> str:
    """Return the release that these two functions come from, or "unknown".

    If several releases share both functions, return `version` if it is one of them, else the oldest.
    """
    matching = [release for release, pair in BOOKS.items() if pair == (resolve, prepare)]
    if version in matching:
        return version
    return matching[0] if matching else UNKNOWN

"""Places that are not folders of this machine: whatever fsspec opens by a URL, like `s3://bucket/run` or `hf://…`.

A run never works there: results are mirrored (`mirror.py`), and inputs are fetched before they are looked into. URLs
hold no secrets: credentials come from the environment, as each kind of storage has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.core import url_to_fs
from fsspec.registry import known_implementations

from .errors import AutoIFError, RecipeError, StopRun

_SCHEME = re.compile(r"\A[a-z][a-z0-9+.-]*\Z")
_READ_ONLY = {"http", "https"}
_EXTRAS = {"s3": "s3", "s3a": "s3"}
_KEYS = {
    **dict.fromkeys(("s3", "s3a"), "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)"),
    **dict.fromkeys(("gs", "gcs"), "GOOGLE_APPLICATION_CREDENTIALS"),
    **dict.fromkeys(("az", "abfs"), "AZURE_STORAGE_CONNECTION_STRING"),
    "hf": "HF_TOKEN",
}
# They have no folders: one that is named begins to exist with its first file.
_OBJECT_STORES = {*_KEYS, "memory"}
# What tells one version of a file from another, as the kinds of storage call it.
_VERSIONS = {"etag", "lastmodified", "last-modified", "last_modified", "mtime", "created", "oid", "blob_id", "md5hash"}


def is_url(text: str) -> bool:
    """Whether a recipe means something else than a path of this machine."""
    return "://" in text


def check_url(url: str, written: bool) -> None:
    """Looks at a URL, and for what opens it. Asks no server.

    Args:
        written: whether files will be written there, too.

    Raises:
        ValueError: it cannot be used; the message never holds a secret.
    """
    scheme = url.split("://")[0]
    if not _SCHEME.match(scheme):
        raise ValueError("a URL must be like s3://bucket/folder, of one kind of storage")
    parts = urlsplit(url)
    if parts.username is not None or parts.query:  # not shown: it may be a password
        where = f"they go into {_KEYS[scheme]}" if scheme in _KEYS else "they go into the environment"
        raise ValueError(f"a URL must not hold a user, a password or a query: {where}")
    if not (parts.netloc or parts.path.strip("/")):
        raise ValueError(f"'{url}' names no place: write it like {scheme}://bucket/folder")
    if written and scheme in _KEYS and scheme != "hf" and not parts.path.strip("/"):
        raise ValueError(f"name a folder in it that holds nothing else: {url.rstrip('/')}/run")
    if scheme not in fsspec.available_protocols():
        raise ValueError(f"'{scheme}://' is no kind of storage that fsspec knows: s3, hf, gs, az and file are some")
    if written and scheme in _READ_ONLY:
        raise ValueError(f"nothing can be written to {scheme}://: s3, hf, gs, az and file are kinds that take files")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = f"pip install 'autoif-blocks[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else ""
        hint = extra or known_implementations.get(scheme, {}).get("err") or str(error)
        raise ValueError(f"{scheme}:// needs a package that is not installed: {hint}") from error


def work_folder(work_dir: str | Path | None = None) -> Path:
    """Where runs into remote places work, and fetched inputs are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(work_dir or os.environ.get("AUTOIF_WORK_DIR") or f"{cache}/autoif").expanduser().absolute()


def local_folder(url: str, work_dir: str | Path | None = None) -> Path:
    """The folder of this machine that stands for a remote one."""
    return work_folder(work_dir) / "runs" / _named(url)


def fetch(url: str, work_dir: str | Path | None = None) -> Path:
    """A copy of a file on this machine; what is there from before is used as long as the file is the same.

    Raises:
        ValueError: it cannot be had; the message says what to do.
    """
    check_url(url, written=False)
    with _explained(url, ValueError):
        fs, path = _opened(url)
        info = fs.info(path)
    if info["type"] != "file":
        raise ValueError(f"{url} is a folder: name a file in it")
    target = work_folder(work_dir) / "inputs" / _named(url) / PurePosixPath(path).name
    with _explained(url, ValueError):
        _get_new(fs, path, info, target)
    return target


def copy_of(url: str, wanted: Callable[[str], bool], work_dir: str | Path | None = None) -> Path:
    """A folder of this machine with what is in a remote one, as far as it is wanted; what is there from before is used
    as long as it is the same.

    Args:
        wanted: is told a file's path below the folder.

    Raises:
        RecipeError: the URL cannot be used.
        StopRun: the folder cannot be read.
    """
    try:
        check_url(url, written=False)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    folder = work_folder(work_dir) / "copies" / _named(url)
    with _explained(url, StopRun):
        fs, root = _opened(url)
        start = f"{root.rstrip('/')}/"
        found = {path.removeprefix(start): info for path, info in fs.find(root, detail=True).items()}
        for name, info in found.items():
            if wanted(name) and not {"", ".."} & set(name.split("/")):  # whatever it is called, it stays in the folder
                _get_new(fs, f"{start}{name}", info, folder / name)
    for path in [*folder.rglob("*")]:
        if path.is_file() and path.relative_to(folder).as_posix() not in found and not path.name.endswith(".version"):
            path.unlink()
    return folder


def listed(url: str) -> list[str]:
    """The URLs of the files in a folder, in order.

    Raises:
        ValueError: it cannot be had; the message says what to do.
    """
    check_url(url, written=False)
    with _explained(url, ValueError):
        fs, root = _opened(url)
        found = fs.ls(root, detail=True)
    names = (PurePosixPath(row["name"]).name for row in found if row["type"] == "file")
    return sorted(f"{url.rstrip('/')}/{name}" for name in names)


class Remote:
    """A remote folder; files in it are named by their path below it. Whatever fails raises StopRun, and says why."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with self._explained():
            self._fs, root = _opened(self.url)
        self._root = root.rstrip("/")
        self._folders = self.url.split("://")[0] not in _OBJECT_STORES

    def files(self) -> list[str]:
        """The names of all files, in order."""
        with self._explained():
            self._fs.invalidate_cache()
            found = self._fs.find(self._root)
        start = f"{self._root}/"
        names = (path.removeprefix(start) for path in found if path.startswith(start))
        # An object store lets anything be a name; none leads out of the folder that it is copied to.
        return sorted(name for name in names if not {"", ".", ".."} & set(name.split("/")))

    def get(self, name: str, target: Path) -> None:
        """Brings a file; it appears whole or not at all."""
        with self._explained():
            _get(self._fs, self._path(name), target)

    def put(self, source: Path, name: str) -> None:
        """Sends a file."""
        with self._explained():
            self._make_room(name)
            self._fs.put_file(str(source), self._path(name))

    def read(self, name: str) -> dict[str, Any]:
        """The object of a small JSON file; empty if there is no such file."""
        with self._explained():
            self._fs.invalidate_cache()
            try:
                found = json.loads(self._fs.cat_file(self._path(name)))
            except (FileNotFoundError, ValueError):
                return {}
        return found if isinstance(found, dict) else {}

    def write(self, name: str, content: bytes) -> None:
        """Puts a small file there."""
        with self._explained():
            self._make_room(name)
            self._fs.pipe_file(self._path(name), content)

    def delete(self, names: Collection[str]) -> None:
        """Deletes files; that one is not there is no failure."""
        for name in names:
            with self._explained(), contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_room(self, name: str) -> None:
        if self._folders:  # where there are none, this would make a bucket of a name that was mistyped
            self._fs.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return _explained(self.url, StopRun)


def _named(url: str) -> str:
    """A name for a URL that a person recognises and no other URL has."""
    clean = url.rstrip("/")
    word = re.sub(r"[^\w.-]+", "-", PurePosixPath(clean).name).strip(".-")[:40] or "run"
    return f"{word}-{blake2b(clean.encode(), digest_size=6).hexdigest()}"


def _opened(url: str) -> tuple[Any, str]:
    fs, path = url_to_fs(url, use_listings_cache=False)
    return fs, str(path)


def _get(fs: Any, path: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        fs.get_file(path, str(aside))
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _get_new(fs: Any, path: str, info: Mapping[str, Any], target: Path) -> None:
    """Brings a file, unless it is there and nothing says that it is another by now."""
    version = {key: str(value) for key, value in sorted(info.items()) if key.lower() in _VERSIONS and value}
    kept = target.with_name(f".{target.name}.version")
    told = json.dumps({**version, "size": info.get("size")})
    if version and target.is_file() and kept.is_file() and kept.read_text() == told:
        return
    kept.unlink(missing_ok=True)
    _get(fs, path, target)
    kept.write_text(told)


@contextlib.contextmanager
def _explained(url: str, kind: type[Exception]) -> Iterator[None]:
    """Turns what an implementation of fsspec, or what it stands on, may raise into a sentence."""
    try:
        yield
    except AutoIFError:
        raise
    except Exception as error:  # each kind of storage has failures of its own
        raise kind(_told(error, url)) from error


def _told(error: Exception, url: str) -> str:
    # A server's address may hold a password, and a signed one a signature.
    said = re.sub(r"\?\S+", "?…", re.sub(r"//[^/\s@]+@", "//…@", " ".join(str(error).split())))[:200]
    keys = _KEYS.get(url.split("://")[0])
    if isinstance(error, FileNotFoundError):
        return f"there is no {url}{f': {said}' if ' ' in said and '[Errno' not in said else ''}"
    if "Credentials" in type(error).__name__ or "locate credentials" in said:
        return f"no credentials for {url} ({said}): set {keys or 'those that its server wants'}"
    if isinstance(error, PermissionError) or "403" in said or "401" in said:
        return f"{url} refuses us ({said}){f': check {keys}' if keys else ''}"
    return f"cannot reach {url}: {said or type(error).__name__}"

"""A remote output directory: the run works in a folder of this machine, and what it puts in place is sent there.

    begin     the place is claimed; what another machine has put there since this one last did is brought here
    meanwhile new completions, and files that have changed, are sent every `send_interval` seconds
    end       the same once more; of a run that has come to its end, the whole cache, too

The local folder stays: it has what could not be sent, and the same command continues from it. A `run.json` never
speaks of files that are not there yet. Completions of two machines are put together, files are not: what was sent last
counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .cache import FILE_NAME
from .cache_mirror import CacheMirror
from .claim import Claim
from .errors import RecipeError, StopRun
from .outputs import CACHE_LOCK, held, write_json
from .state import read_object
from .status import look
from .stopping import every
from .storage import Remote, local_folder

if TYPE_CHECKING:
    from .recipe import Recipe

KEPT = ".remote.json"
"""in a local folder: what it knows of the place that it stands for"""
STATUS = ".status.json"
"""in a remote place: how far the run is, for `autoif status` elsewhere"""
_CACHE = "cache"
_RUN = "run.json"
_RELEASE_WITHIN = 5.0  # seconds: who cannot be reached has been tried long enough

Tell = Callable[[str], None]


class Mirror:
    """What a run that works here has to do with places elsewhere: with a recipe of local paths, nothing."""

    def __init__(self, places: Sequence[_Place], tell: Tell) -> None:
        self._places = places
        self._tell = tell
        self._lock = threading.Lock()
        self._failing = False

    def begin(self) -> None:
        """Claims the places, and brings what is newer there than here."""
        for place in self._places:
            place.begin(self._tell)

    def watch(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Sends what is new every so many seconds."""
        return every(seconds, self._try, "autoif-mirror") if self._places else contextlib.nullcontext()

    def send(self, whole_cache: bool = False) -> None:
        """Sends what has changed.

        Raises:
            StopRun: that is not possible now; all is kept here.
        """
        with self._lock:
            for place in self._places:
                try:
                    place.send(whole_cache, self._tell)
                except StopRun as error:
                    self._failing = True
                    raise StopRun(
                        f"{error}. What it does not have yet is kept in {place.folder}: the same command sends it"
                    ) from error
            self._failing = False

    def forget_completions(self) -> None:
        """Deletes those that are elsewhere."""
        for place in self._places:
            if place.cache is not None:
                place.cache.delete()

    def release(self) -> None:
        """Lets go of the places; where that is not possible, others will notice after a while."""
        for place in self._places:
            releasing = threading.Thread(target=place.release, daemon=True)
            releasing.start()
            releasing.join(_RELEASE_WITHIN)

    def _try(self) -> None:
        """One failure costs nothing: there is a next time, and the end."""
        before = self._failing
        try:
            self.send()
        except StopRun as error:
            if not before:
                self._tell(f"the run goes on, but {error}, or this one in a while")


@contextlib.contextmanager
def mirrored(recipe: Recipe, tell: Tell) -> Iterator[Mirror]:
    """Mirrors what the block does in the recipe's folders. A block that is interrupted sends what it wants sent itself:
    who presses Ctrl-C twice does not want to wait.

    Raises:
        StopRun: a place cannot be reached, or another run is using it.
    """
    places = []
    if recipe.output_url:
        cache = recipe.cache_dir if recipe.cache_dir == recipe.output_dir / _CACHE else None
        places.append(_Place(recipe.output_url, recipe.output_dir, cache, True, recipe.send_interval))
    if recipe.cache_url:
        places.append(_Place(recipe.cache_url, recipe.cache_dir, recipe.cache_dir, False, recipe.send_interval))
    mirror = Mirror(places, tell)
    try:
        mirror.begin()
        try:
            with mirror.watch(recipe.send_interval):
                yield mirror
        except RecipeError:  # nothing has been done
            raise
        except Exception as error:
            try:
                mirror.send()
            except StopRun as second:
                raise StopRun(f"{error}\nand {second}") from error
            raise
        try:
            mirror.send(whole_cache=True)
        except StopRun as error:
            raise StopRun(f"the run is complete, but {error}") from error
    finally:
        mirror.release()


@contextlib.contextmanager
def mirrored_cache(where: Recipe | str, tell: Tell) -> Iterator[Path]:
    """Brings a remote cache, of a recipe or by its URL or that of an output directory; gives its folder here. What the
    block changes is sent at its end.

    Raises:
        StopRun: it cannot be reached, or a run is using it.
    """
    if isinstance(where, str):
        shared = FILE_NAME in Remote(where).files()
        url, folder = where.rstrip("/"), local_folder(where)
    else:
        shared = bool(where.cache_url)
        url, folder = (where.cache_url, where.cache_dir) if shared else (where.output_url, where.output_dir)
    cache = folder if shared else folder / _CACHE
    with held(cache, CACHE_LOCK, "try again later", url):
        pass  # no run of this machine is using it; the claim tells of others
    place = _Place(url, folder, cache)
    mirror = Mirror([place], tell)
    try:
        place.begin(tell)
        yield cache
        mirror.send(whole_cache=True)
    finally:
        mirror.release()


class _Place:
    """A remote place and the folder that stands for it: with its cache, its results, or both."""

    def __init__(
        self, url: str, folder: Path, cache: Path | None, results: bool = False, interval: float = 60.0
    ) -> None:
        self.folder = folder
        self._remote = Remote(url)
        self._kept = Kept(self.folder)
        self._claim = Claim(self._remote, self._kept.id, interval)
        self._held = False
        self._results = Results(self._remote, folder, self._kept) if results else None
        self._whole = results or cache == folder
        there = self._remote if cache == folder else Remote(f"{url}/{_CACHE}")
        self.cache = CacheMirror(there, cache, self._kept.data, self._kept.save) if cache else None

    def begin(self, tell: Tell) -> None:
        self._kept.save()
        said = self._claim.take()
        self._held = True
        if said:
            tell(said)
        if not self._claim.ours:
            brought = self._results.bring() if self._results else 0
            if brought:
                tell(f"brought {brought} files from {self._remote.url} to {self.folder}")
            for said in self.cache.bring() if self.cache else ():
                tell(said)
            if self._whole:
                self._claim.written()

    def send(self, whole_cache: bool, tell: Tell) -> None:
        self._claim.renew()
        if self.cache and not whole_cache:
            self.cache.send_new()
        if self._results:
            self._results.send()
        if self.cache and whole_cache:
            self.cache.send_whole(tell)

    def release(self) -> None:
        if self._held:
            with contextlib.suppress(StopRun):
                self._claim.renew()
                self._claim.release()


class Kept:
    """What a local folder knows of the place that it stands for, from one command to the next."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEPT
        self.data: dict[str, Any] = read_object(self._path) or {"id": uuid4().hex, "sent": {}}

    @property
    def id(self) -> str:
        return str(self.data["id"])

    def save(self) -> None:
        write_json(self._path, self.data)


class Results:
    """The files of an output directory, without its cache."""

    def __init__(self, remote: Remote, folder: Path, kept: Kept) -> None:
        self._remote = remote
        self._folder = folder
        self._kept = kept

    def bring(self) -> int:
        """Makes the files here those that are there; returns how many came. Nothing is there where no run has put
        anything yet, or somebody has deleted it: then what is here stays, and counts as not sent."""
        there = [name for name in self._remote.files() if _wanted(name)]
        sent = self._kept.data["sent"] = {}
        if _RUN in there:
            for name in there:
                self._remote.get(name, self._folder / name)
                if name != _RUN:
                    sent[name] = [*_state(self._folder / name), _digest(self._folder / name)]
            for name in self._here():
                if name not in there:
                    (self._folder / name).unlink()
        self._kept.save()
        return len(there) if _RUN in there else 0

    def send(self) -> None:
        """Sends what has changed since it was sent, `run.json` last, and deletes what is not here any more."""
        sent: dict[str, Any] = self._kept.data["sent"]
        # As it is before the others are looked at: it must not tell of those that appear meanwhile.
        run = self._folder / _RUN
        content = run.read_bytes() if run.is_file() else None
        here = self._here()
        try:
            for name in here:
                if name != _RUN:
                    self._send(name, sent)
            if content is not None and sent.get(_RUN) != (digest := hashlib.blake2b(content).hexdigest()):
                self._remote.write(_RUN, content)
                sent[_RUN] = digest
            for name in set(sent) - set(here):
                self._remote.delete([name])
                del sent[name]
            with contextlib.suppress(RecipeError, KeyError, TypeError, OSError):  # not begun, or just ended
                self._remote.write(STATUS, json.dumps(asdict(look(self._folder))).encode())
        finally:
            self._kept.save()

    def _send(self, name: str, sent: dict[str, Any]) -> None:
        path = self._folder / name
        *state, digest = sent.get(name, [None])
        try:
            if (now := _state(path)) == state:
                return
            if (fresh := _digest(path)) != digest:  # a run that replays writes the same again
                self._remote.put(path, name)
        except (StopRun, FileNotFoundError):
            if path.exists():
                raise
            return  # replaced by nothing meanwhile
        sent[name] = [*now, fresh]

    def _here(self) -> list[str]:
        names = (str(path.relative_to(self._folder)) for path in self._folder.rglob("*") if path.is_file())
        return sorted(name for name in names if _wanted(name))


def _wanted(name: str) -> bool:
    """Whether a file is a result or a log: not of the cache, nor work in progress, nor a note like the claim's."""
    return not any(part.startswith(".") for part in name.split("/")) and not name.startswith(f"{_CACHE}/")


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()

"""YAML text becomes plain values and a table of where each one was written, in one pass. Used by read and lock.

The C parser's events are read one by one (a third of the cost of loading, and nothing is decided silently): duplicate
keys, ambiguous words, tags, merge keys and alias bombs are refused here, each at its line.
"""

import copy
import re
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NoReturn, TypeAlias

from yaml import YAMLError
from yaml._yaml import CParser
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from pipeline.core.diagnostic import Diagnostic, Where, error
from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.manifest.plain import Trap, resolve
from pipeline.manifest.syntax import describe_syntax, indenting_tabs, stray_tabs, without_indenting_tabs

Path: TypeAlias = tuple[str | int, ...]

MOST_ALIASED_NODES = 10_000  # values that aliases may stand for, all together
DEEPEST = 32  # levels of nesting


class Spot(NamedTuple):
    """Where a key (or a list's item) and its value begin; zero-based, as the parser counts."""

    line: int
    column: int
    value_line: int
    value_column: int
    value_index: int


@frozen
class Tree:
    """A parsed text: its values, where they stand, and what was wrong with it."""

    file: str
    text: str
    data: Json
    spots: dict[Path, Spot]
    aliased: dict[Path, Path]  # a place written as an alias → the anchored place
    problems: tuple[Diagnostic, ...]
    reported: frozenset[Path]  # places that have a problem already
    whole: bool  # False: the text broke off at a syntax error

    def where(self, *path: str | int) -> Where:
        """The place of a key or a list's item; of the nearest one above it when it was not written."""
        spot = self._spot(path)
        return Where(self.file, spot.line + 1, spot.column + 1)

    def where_value(self, *path: str | int) -> Where:
        """The place of the value behind a key."""
        spot = self._spot(path)
        return Where(self.file, spot.value_line + 1, spot.value_column + 1)

    def word(self, *path: str | int) -> str:
        """The unquoted word behind a key, as it was written: 1.10 is not 1.1."""
        found = re.compile(r"[^\s,\[\]{}]*").match(self.text, self._spot(path).value_index)
        return found.group() if found else ""

    def _spot(self, path: Path) -> Spot:
        for length in range(len(path), 0, -1):
            if spot := self.spots.get(path[:length]):
                return spot
            if origin := self.aliased.get(path[: length - 1]):
                return self._spot(origin + path[length - 1 :])
        return Spot(0, 0, 0, 0, 0)


def parse(text: str, file: str) -> Tree:
    """Read one document; every problem is kept, none raised. Tabs in indentation hide nothing else."""
    tree = _parse(text, file)
    if not tree.whole and (tabs := indenting_tabs(text, file)):
        again = (_parse(spaced, file) for spaced in without_indenting_tabs(text))
        if readable := next((each for each in again if each.whole), None):
            return replace(readable, problems=(*tabs, *readable.problems))
    return tree


def _parse(text: str, file: str) -> Tree:
    builder = _Builder(file)
    whole = True
    try:
        parser = CParser(text)
        while (event := parser.get_event()) is not None:
            builder.take(event)
    except _TooMuch:
        whole = False
    except YAMLError as problem:
        whole = False
        builder.problems.append(describe_syntax(problem, text, file))
    if whole and "\t" in text:
        builder.problems.extend(stray_tabs(text, file, builder.scalars))
    problems, reported = tuple(builder.problems), frozenset(builder.reported)
    return Tree(file, text, builder.root, builder.spots, builder.aliased, problems, reported, whole)


class _TooMuch(Exception):
    """The text is not worth reading on."""


@dataclass
class _Frame:
    """A mapping or list that is being filled."""

    values: dict[str, Json] | list[Json]
    path: Path
    anchor: str | None
    start_count: int  # nodes read before it
    wants_key: bool  # a mapping whose next node is a key
    key: str = ""  # the key whose value comes next
    key_spot: tuple[int, int] = (0, 0)
    skip: bool = False  # that value belongs to a refused key


@dataclass
class _Anchored:
    path: Path
    value: Json
    nodes: int


@dataclass
class _Builder:
    file: str
    root: Json = None
    spots: dict[Path, Spot] = field(default_factory=dict)
    aliased: dict[Path, Path] = field(default_factory=dict)
    scalars: list[tuple[int, int]] = field(default_factory=list)  # text spans of scalars, for tabs
    problems: list[Diagnostic] = field(default_factory=list)
    reported: set[Path] = field(default_factory=set)
    frames: list[_Frame] = field(default_factory=list)
    anchors: dict[str, _Anchored | None] = field(default_factory=dict)  # None: still open
    nodes: int = 0
    aliased_nodes: int = 0
    documents: int = 0

    def take(self, event: Any) -> None:  # Any: an event always has marks here, which its stub leaves open
        if isinstance(event, ScalarEvent):
            self._scalar(event)
        elif isinstance(event, MappingStartEvent):
            self._open(event, {})
        elif isinstance(event, SequenceStartEvent):
            self._open(event, [])
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._close()
        elif isinstance(event, AliasEvent):
            self._alias(event)
        elif isinstance(event, DocumentStartEvent):
            self._document(event)

    def _scalar(self, event: Any) -> None:
        mark = event.start_mark
        self.scalars.append((mark.index, event.end_mark.index))
        value: Json = event.value
        trap: Trap | None = None
        if event.tag is not None:
            trap = Trap(f"tag {event.tag} is not supported", "quote text, and leave tags out")
        elif event.implicit[0]:
            resolved = resolve(event.value)
            if isinstance(resolved, Trap):
                trap = resolved
            else:
                value = resolved
        if self._wants_key():
            self._key(value, trap, mark)
            return
        path = self._place(value, mark)
        if trap:
            self._refuse(path, trap, mark)
        if event.anchor:
            self.anchors[event.anchor] = _Anchored(path, value, 1)

    def _open(self, event: Any, values: "dict[str, Json] | list[Json]") -> None:
        mark = event.start_mark
        if len(self.frames) >= DEEPEST:
            self._give_up(f"nested deeper than {DEEPEST} levels", mark)
        if self._wants_key():
            self._key(values, Trap("a key must be text", "write one word before the colon"), mark)
        if event.anchor:
            self.anchors[event.anchor] = None
        count = self.nodes
        path = self._place(values, mark)
        if event.tag is not None:
            self._refuse(path, Trap(f"tag {event.tag} is not supported", "leave the tag out"), mark)
        self.frames.append(_Frame(values, path, event.anchor, count, isinstance(values, dict)))

    def _close(self) -> None:
        frame = self.frames.pop()
        if frame.anchor:
            self.anchors[frame.anchor] = _Anchored(frame.path, frame.values, self.nodes - frame.start_count)

    def _alias(self, event: Any) -> None:
        mark, name = event.start_mark, event.anchor
        if self._wants_key():
            self._key(None, Trap(f"*{name} cannot be a key", "write the key itself"), mark)
            return
        origin = self.anchors.get(name)
        if origin is None:
            what = "refers to itself" if name in self.anchors else "has no anchor before it"
            path = self._place(None, mark)
            self._refuse(
                path, Trap(f"alias *{name} {what}", f"write &{name} where the value is first given"), mark
            )
            return
        self.aliased_nodes += origin.nodes
        self.nodes += origin.nodes
        if self.aliased_nodes > MOST_ALIASED_NODES:
            self._give_up(f"aliases stand for more than {MOST_ALIASED_NODES:,} values", mark)
        self.aliased[self._place(copy.deepcopy(origin.value), mark)] = origin.path

    def _document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            self._give_up("a second document begins here", event.start_mark, "keep one document in a file")

    def _wants_key(self) -> bool:
        return bool(self.frames) and self.frames[-1].wants_key

    def _key(self, value: Json, trap: Trap | None, mark: Any) -> None:
        """Remember the key whose value comes next; a refused key's value is read and dropped."""
        frame = self.frames[-1]
        frame.wants_key = False
        frame.key_spot = (mark.line, mark.column)
        name = value if isinstance(value, str) else "null" if value is None else str(value)
        frame.key = name
        if trap is None and not isinstance(value, str):
            trap = Trap(f"key {name} must be text", f'quote it: "{name}"')
        if trap is None and name == "<<":
            trap = Trap("merge keys (<<) are not supported", "use `defaults:`, or write the fields out")
        if trap is None and (first := self.spots.get((*frame.path, name))) and name in frame.values:
            trap = Trap(f'key "{name}" is already on line {first.line + 1}', "keep one of the two")
        frame.skip = trap is not None
        if trap:
            self._report(trap, mark)

    def _place(self, value: Json, mark: Any) -> Path:
        """Put a value where it belongs and write down where it stands."""
        self.nodes += 1
        if not self.frames:
            self.root = value
            return ()
        frame = self.frames[-1]
        if isinstance(frame.values, list):
            path = (*frame.path, len(frame.values))
            frame.values.append(value)
            spot = Spot(mark.line, mark.column, mark.line, mark.column, mark.index)
        else:
            frame.wants_key = True
            path = (*frame.path, frame.key)
            if frame.skip:
                return (*path, "")  # below a refused key: kept nowhere
            frame.values[frame.key] = value
            spot = Spot(*frame.key_spot, mark.line, mark.column, mark.index)
        self.spots[path] = spot
        return path

    def _refuse(self, path: Path, trap: Trap, mark: Any) -> None:
        """A value that is not taken as it stands: nothing more shall be said of it."""
        self.reported.add(path)
        self._report(trap, mark)

    def _report(self, trap: Trap, mark: Any) -> None:
        self.problems.append(error(trap.summary, Where(self.file, mark.line + 1, mark.column + 1), trap.hint))

    def _give_up(self, summary: str, mark: Any, hint: str | None = None) -> NoReturn:
        self._report(Trap(summary, hint or "write the values out"), mark)
        raise _TooMuch

"""Java's object serialisation read as data: an object becomes a record of its fields.

The grammar is that of the *Java Object Serialization Specification*, protocol version 2, chapter 6. No class is looked
up and nothing is executed; what a class writes by itself after its fields is kept as a list. Nothing recurses, so the
depth of a tree does not matter; the number of objects and their nesting are limited.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from gpu_tomoclass.errors import ModelError

MAGIC = b"\xac\xed\x00\x05"
FIRST_HANDLE = 0x7E0000
MAX_OBJECTS = 2_000_000  # records in memory are up to a hundred times larger than in the file
MAX_NESTING = 20_000  # Java itself overflows its stack at a few thousand

TC_NULL, TC_REFERENCE, TC_CLASSDESC, TC_OBJECT, TC_STRING, TC_ARRAY = 0x70, 0x71, 0x72, 0x73, 0x74, 0x75
TC_BLOCKDATA, TC_ENDBLOCKDATA, TC_BLOCKDATALONG, TC_LONGSTRING = 0x77, 0x78, 0x7A, 0x7C
REFUSED = {
    0x76: "a class", 0x79: "a reset", 0x7B: "an exception", 0x7D: "a proxy class", 0x7E: "an enum constant"
}  # fmt: skip
SC_WRITE_METHOD, SC_SERIALIZABLE = 1, 2

PRIMITIVES = {"B": ">i1", "C": ">u2", "D": ">f8", "F": ">f4", "I": ">i4", "J": ">i8", "S": ">i2", "Z": ">u1"}
_UNPACK = {"B": ">b", "C": ">H", "D": ">d", "F": ">f", "I": ">i", "J": ">q", "S": ">h", "Z": ">?"}

Step = Generator[Any, Any, Any]
"""A generator that yields the generator whose result it needs next: what would be a recursive call."""


@dataclass(eq=False, repr=False)
class JavaClass:
    """A class as the stream describes it."""

    name: str
    handle: int
    flags: int = 0
    fields: tuple[tuple[str, str], ...] = ()  # (type code, name)
    parent: JavaClass | None = None
    complete: bool = False

    def lineage(self) -> list[JavaClass]:
        """The class with its ancestors, the eldest first, as their fields are stored."""
        line: list[JavaClass] = []
        one: JavaClass | None = self
        while one is not None:
            line.append(one)
            one = one.parent
        return line[::-1]


@dataclass(eq=False, repr=False)
class JavaObject:
    """An object: its class's name, its fields, and what the class wrote by itself (objects, and bytes for raw data)."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    written: list[Any] = field(default_factory=list)


class JavaReader:
    """Reads the top-level objects of a stream one after the other.

    Strings become str, arrays of numbers NumPy arrays (native byte order), arrays of objects lists.

    Parameters
    ----------
    data : bytes
        The whole stream.
    check_class : callable
        Called with the name of each class when it first appears; raises a ModelError for a class that is not wanted.
    shortcut : callable, optional
        Called with the reader and the class before an object of an already known class is read in the general way.
        Returns None, having changed nothing, or what takes the object's place, having called :meth:`skip`.

    Raises
    ------
    ModelError
        From every method, if the stream is none, ends early, or holds what is not expected.
    """

    def __init__(
        self,
        data: bytes,
        *,
        check_class: Callable[[str], None],
        shortcut: Callable[[JavaReader, JavaClass], Any] | None = None,
    ) -> None:
        self.data = data
        self.position = 0
        self.next_handle = FIRST_HANDLE
        self.known: dict[int, Any] = {}
        self.classes: dict[str, JavaClass] = {}
        self._check_class = check_class
        self._shortcut = shortcut
        self._n_objects = 0
        self._dispatch: dict[int, Callable[[], Step]] = {
            TC_CLASSDESC: self._class,
            TC_OBJECT: self._object,
            TC_ARRAY: self._array,
        }
        if data[:4] != MAGIC:
            raise ModelError("is not a Java object stream (version 2 of the serialisation protocol)")
        self.position = 4

    @property
    def at_end(self) -> bool:
        return self.position >= len(self.data)

    def read(self) -> Any:
        """The next top-level object."""
        stack: list[Step] = [self._content()]
        value: Any = None
        while stack:
            try:
                request = stack[-1].send(value)
            except StopIteration as done:
                stack.pop()
                value = done.value
            else:
                if len(stack) >= MAX_NESTING:
                    self._refuse(f"objects are nested more than {MAX_NESTING} deep")
                stack.append(request)
                value = None
        return value

    def skip(self, n_bytes: int, *, n_handles: int) -> None:
        """Move past objects that were understood without the reader; they cannot be referred to afterwards."""
        self.position += n_bytes
        self.next_handle += n_handles

    def refuse_end(self) -> NoReturn:
        """Say that the stream ends too early."""
        raise ModelError(
            f"ends at byte {len(self.data)} in the middle of an object",
            do="copy the file again or save the classifier again in Fiji",
        )

    # --- the grammar ---------------------------------------------------------------------------------------------

    def _content(self) -> Step:
        """Anything that may stand where an object is expected."""
        tag = self._take(1)[0]
        if tag == TC_NULL:
            return None
        if tag == TC_REFERENCE:
            handle = self._number(">i")
            if handle not in self.known:
                self._refuse(f"there is no object {handle - FIRST_HANDLE} to refer to")
            return self.known[handle]
        self._n_objects += 1
        if self._n_objects > MAX_OBJECTS:
            self._refuse(f"there are more than {MAX_OBJECTS} objects")
        if tag in (TC_STRING, TC_LONGSTRING):
            handle = self._new_handle()
            self.known[handle] = text = self._text(self._number(">H" if tag == TC_STRING else ">q"))
            return text
        if tag in self._dispatch:
            return (yield self._dispatch[tag]())
        self._refuse(f"found {REFUSED.get(tag, f'the byte {tag:#04x}')} where an object belongs")

    def _class(self) -> Step:
        name = self._text(self._number(">H"))
        self._check_class(name)
        self._take(8)  # the class's version; its fields are checked instead
        java_class = JavaClass(name, self._new_handle())
        self.known[java_class.handle] = self.classes[name] = java_class
        java_class.flags = self._take(1)[0]
        if not java_class.flags & SC_SERIALIZABLE or java_class.flags & ~(SC_SERIALIZABLE | SC_WRITE_METHOD):
            self._refuse(f"{name} is stored in a way that only its own code can read (flags {java_class.flags:#04x})")
        fields = []
        for _ in range(self._number(">H")):
            code = chr(self._take(1)[0])
            fields.append((code, self._text(self._number(">H"))))
            if code in "L[":
                if not isinstance((yield self._content()), str):
                    self._refuse(f"{name}.{fields[-1][1]} has no type")
            elif code not in PRIMITIVES:
                self._refuse(f"{name}.{fields[-1][1]} has the unknown type {code!r}")
        java_class.fields = tuple(fields)
        if self._take(1)[0] != TC_ENDBLOCKDATA:
            self._refuse(f"{name} is annotated")
        parent = yield self._content()
        if parent is not None and not (isinstance(parent, JavaClass) and parent.complete):
            self._refuse(f"{name} extends something that is no class")
        java_class.parent = parent
        java_class.complete = True
        return java_class

    def _class_of(self, what: str) -> Step:
        java_class = yield self._content()
        if not (isinstance(java_class, JavaClass) and java_class.complete):
            self._refuse(f"{what} has no class")
        return java_class

    def _object(self) -> Step:
        start = self.position - 1
        java_class = yield self._class_of("an object")
        if self._shortcut is not None and start + 6 == self.position:  # the tag and a reference to its class
            self.position = start
            instead = self._shortcut(self, java_class)
            if instead is not None:
                return instead
            self.position = start + 6
        result = JavaObject(java_class.name)
        self.known[self._new_handle()] = result
        for one in java_class.lineage():
            for code, name in one.fields:
                if code in PRIMITIVES:
                    result.fields[name] = self._number(_UNPACK[code])
                else:
                    result.fields[name] = yield self._content()
            if one.flags & SC_WRITE_METHOD:
                yield self._written(result.written)
        return result

    def _written(self, into: list[Any]) -> Step:
        """Content that a class's own method wrote, up to the end mark."""
        while True:
            tag = self._peek()
            if tag == TC_ENDBLOCKDATA:
                self.position += 1
                return
            if tag in (TC_BLOCKDATA, TC_BLOCKDATALONG):
                self.position += 1
                into.append(bytes(self._take(self._number(">B" if tag == TC_BLOCKDATA else ">i"))))
            else:
                into.append((yield self._content()))

    def _array(self) -> Step:
        java_class = yield self._class_of("an array")
        handle = self._new_handle()
        n = self._number(">i")
        code = java_class.name[1:2]
        if not java_class.name.startswith("[") or n < 0:
            self._refuse(f"an array of {n} elements is of the class {java_class.name:.80}")
        if code in PRIMITIVES:
            stored = np.dtype(PRIMITIVES[code])
            values = np.frombuffer(self._take(n * stored.itemsize), dtype=stored)
            self.known[handle] = array = values.astype(stored.newbyteorder("="))
            return array
        items: list[Any] = []
        self.known[handle] = items
        for _ in range(n):  # not reserved beforehand: n is only what the file says
            items.append((yield self._content()))
        return items

    # --- bytes ---------------------------------------------------------------------------------------------------

    def _new_handle(self) -> int:
        self.next_handle += 1
        return self.next_handle - 1

    def _peek(self) -> int:
        if self.at_end:
            self._take(1)
        return self.data[self.position]

    def _take(self, n: int) -> bytes:
        end = self.position + n
        if n < 0 or end > len(self.data):
            self.refuse_end()
        part = self.data[self.position : end]
        self.position = end
        return part

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _text(self, n: int) -> str:
        """Java's "modified UTF-8": zero as two bytes, other planes as pairs of surrogates."""
        raw = self._take(n).replace(b"\xc0\x80", b"\0")
        try:
            return raw.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeError as error:
            self._refuse(f"a text cannot be read ({error})")

    def _refuse(self, what: str) -> NoReturn:
        raise ModelError(f"the Java object stream is not readable near byte {self.position}: {what}")

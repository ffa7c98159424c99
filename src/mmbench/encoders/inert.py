"""Reading pickles without Python's unpickler: nothing is imported, called or executed.

Python's own unpickler reserves memory by numbers in the file (9 bytes suffice for 16 GB), and hashes the keys of dictionaries, which
may be nested so that it never ends. Here every instruction makes one object at most, no more is read than the file holds, and the
number of instructions is limited.
"""

from __future__ import annotations

import pickle
import pickletools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

INSTRUCTIONS = 200_000
"""What a pickle may have at most; a checkpoint of the largest published size has some 33,000."""

PLAIN = {
    *((module, name) for module in ("builtins", "__builtin__") for name in
      ("dict", "list", "tuple", "set", "frozenset", "object", "int", "float", "complex", "bool", "bytes", "bytearray", "str", "slice")),
    ("collections", "OrderedDict"), ("collections", "defaultdict"), ("collections", "deque"), ("_codecs", "encode"),
    ("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor"), ("functools", "partial"), ("types", "SimpleNamespace"),
}  # fmt: skip
"""What of the standard library a pickled checkpoint may name; of other packages it may name anything."""

MARK = object()
"""Lies on the stack where a list of items begins."""


@dataclass(eq=False)
class Held:
    """Stands for whatever a pickle imports or makes: its name, what it was called with, and the state that it was given."""

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None


class Bounded:
    """A file that refuses to be asked for more than it holds."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        self.readline = stream.readline

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > (left := self.size - self.stream.tell()):
            raise pickle.UnpicklingError(f"it states {count:,} bytes where the file has {left:,} left")
        return self.stream.read(count)


def read_inert(path: Path) -> Any:
    """What a pickle describes, made of lists, tuples, dictionaries, plain values and ``Held``; sets become lists.

    Raises:
        Exception: of many kinds, if the pickle is damaged, names what no checkpoint needs or has too many instructions.
    """
    machine = Machine()
    with path.open("rb") as stream:
        source: Any = Bounded(stream, path.stat().st_size)
        for count, (opcode, value, _) in enumerate(pickletools.genops(source)):
            if count == INSTRUCTIONS:
                raise pickle.UnpicklingError(f"it has more than {INSTRUCTIONS:,} instructions: do not trust this file")
            machine.step(opcode.name, value)
    return machine.stack[-1]


class Machine:
    """The stack and the memo on which a pickle's instructions work."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def take(self, count: int) -> list[Any]:
        """Take the last ``count`` items off the stack."""
        if not 0 < count <= len(self.stack):
            raise pickle.UnpicklingError("an instruction lacks its items")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def take_marked(self) -> list[Any]:
        """Take the items since the last mark off the stack, and the mark."""
        items = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def step(self, name: str, value: Any) -> None:
        """Follow one instruction; ``value`` is what it carries."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                stack.append(MARK)
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.take_marked()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[value] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[value])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(self.take_marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self.take(int(name[-1]))))
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "LIST" | "FROZENSET":
                stack.append(self.take_marked())
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                items = self.take_marked()
                stack.append({})
                self.add(items)
            case "APPEND":
                self.add(self.take(1))
            case "SETITEM":
                self.add(self.take(2))
            case "APPENDS" | "ADDITEMS" | "SETITEMS":
                self.add(self.take_marked())
            case "GLOBAL" | "STACK_GLOBAL" | "INST" | "OBJ" | "REDUCE" | "NEWOBJ" | "NEWOBJ_EX" | "BUILD":
                self.make(name, value)
            case _:
                if value is None:
                    raise pickle.UnpicklingError(f"it has the instruction {name}, which no checkpoint needs")
                stack.append(value)  # a number, a text or bytes

    def add(self, items: list[Any]) -> None:
        """Add items to the list, or keys and values to the dictionary, that is last on the stack.

        What is added to objects of other classes is of no use here, and neither are keys that are no texts: not kept.
        """
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((key, value) for key, value in pairs if isinstance(key, str))

    def make(self, name: str, value: Any) -> None:
        """Follow an instruction that imports, calls or fills something: it is held, and nothing is done."""
        if name in ("GLOBAL", "STACK_GLOBAL"):
            module, imported = value.split(" ", 1) if name == "GLOBAL" else self.take(2)
            self.stack.append(held(module, imported))
        elif name == "BUILD":
            (state,) = self.take(1)
            if not isinstance(self.stack[-1], Held):
                raise pickle.UnpicklingError("it sets the state of what has none")
            self.stack[-1].state = state
        else:
            if name == "INST":
                maker, args = held(*value.split(" ", 1)), self.take_marked()
            elif name == "OBJ":
                maker, *args = self.take_marked()
            else:  # NEWOBJ_EX has keywords too
                maker, args = self.take(3 if name == "NEWOBJ_EX" else 2)[:2]
            if not isinstance(maker, Held) or not isinstance(args, tuple | list):
                raise pickle.UnpicklingError("it calls what is no function")
            self.stack.append(Held(maker.name, tuple(args)))


def held(module: str, name: str) -> Held:
    """What a pickle imports. What checkpoints have no use for, such as ``os.system``, is refused, though it would not be called."""
    if module.partition(".")[0] in sys.stdlib_module_names and (module, name) not in PLAIN:
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint needs: do not trust this file")
    return Held(name)

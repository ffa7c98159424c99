"""Checkpoints: pickles of the published nesting, read without their classes, and pickles that would like to be executed."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mmbench.encoders.checkpoints import load_m3ae, load_m3ae_pickle, to_safetensors
from mmbench.encoders.inert import Held, read_inert
from mmbench.errors import UsageError

MODULE = "flax_as_it_was"  # importable while a pickle is written, not when it is read

Transformation = type("Transformation", (tuple,), {"__module__": MODULE})


class TrainState:
    """As flax's: a frozen data class, pickled through its ``__dict__``."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


class FrozenDict:
    """As flax's: pickled as what it is made of."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return FrozenDict, (self.content,)


class Items(dict):
    """A dictionary of another class, whose items a pickle adds one by one."""


class Series(list):
    """The same for a list."""


class Members(set):
    """The same for a set."""


for _class in (TrainState, FrozenDict, Items, Series, Members):
    _class.__module__ = MODULE


def nested(flat: dict) -> dict:
    """``{"a/b": x}`` as ``{"a": {"b": x}}``."""
    tree: dict = {}
    for path, leaf in flat.items():
        *branches, name = path.split("/")
        place = tree
        for branch in branches:
            place = place.setdefault(branch, {})
        place[name] = leaf
    return tree


def checkpoint(weights: dict, frozen: bool = True) -> dict:
    """Weights (flat) nested as ``m3ae_main.py`` saves them, with the optimiser's state and objects of other classes beside them."""
    moments = nested({path: np.zeros_like(array) for path, array in weights.items()})
    params = {"params": nested(weights)}
    state = TrainState(
        step=np.array(3),
        params=FrozenDict(params) if frozen else params,
        opt_state=(Transformation((moments,)), Items(a=1), Series([1, 2]), Members([1])),
        tokenizer_params=None,
    )
    return {"step": 3, "epoch": 1, "variant": {"m3ae.model_type": "small"}, "state": state}


def write_pickle(path: Path, content, protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    """Write a pickle whose classes are in a module that is gone afterwards."""
    module = ModuleType(MODULE)
    module.__dict__.update({c.__name__: c for c in (TrainState, FrozenDict, Transformation, Items, Series, Members)})
    sys.modules[MODULE] = module
    try:
        path.write_bytes(pickle.dumps(content, protocol))
    finally:
        del sys.modules[MODULE]
    return path


def arrays() -> dict:
    generator = np.random.default_rng(0)
    shapes = {"cls_token": (1, 1, 4), "encoder/Block_0/fc1/kernel": (4, 6), "encoder/Block_0/fc1/bias": (6,)}
    return {key: generator.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


# Reading


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_weights_by_their_paths_without_their_classes(tmp_path, protocol, frozen):
    path = write_pickle(tmp_path / "m3ae.pkl", checkpoint(arrays(), frozen), protocol)
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(path.read_bytes())
    got = load_m3ae_pickle(path)
    assert {key: array.tolist() for key, array in got.items()} == {
        key: array.tolist() for key, array in arrays().items()
    }
    assert {array.dtype for array in got.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("protocol", [4, 5])
def test_orders_and_widths_of_arrays(tmp_path, protocol):
    values = np.arange(6).reshape(2, 3)
    kinds = {
        "columns": np.asfortranarray(values, dtype=np.float32),
        "strided": np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2] / 2,
        "half": values.astype(np.float16),
        "double": values.astype(np.float64),
        "big": values.astype(">f4"),
    }
    got = load_m3ae_pickle(write_pickle(tmp_path / "m3ae.pkl", checkpoint(kinds), protocol))
    assert all(np.array_equal(array, values) for array in got.values())
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in got.values())


def test_functions_pickled_by_value_are_not_made(tmp_path):
    cloudpickle = pytest.importorskip("cloudpickle")
    made = []

    def update(gradient):
        return made.append(gradient)

    content = {"state": {"tx": (update, lambda: made), "params": {"params": nested(arrays())}}}
    (tmp_path / "m3ae.pkl").write_bytes(cloudpickle.dumps(content))
    assert load_m3ae_pickle(tmp_path / "m3ae.pkl").keys() == arrays().keys()


# Hostile pickles


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("place", ["top", "leaf", "beside"])
@pytest.mark.parametrize("kind", ["system", "eval", "mkdir", "getattr"])
def test_nothing_is_executed(tmp_path, kind, place, protocol):
    mark = tmp_path / "executed"
    hostile = {
        "system": Call(os.system, f"mkdir {mark}"),
        "eval": Call(eval, f"__import__('os').mkdir({str(mark)!r})"),
        "mkdir": Call(os.mkdir, str(mark)),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
    }[kind]
    content = {"top": hostile, "leaf": checkpoint({"cls_token": hostile}), "beside": [hostile]}[place]
    path = write_pickle(tmp_path / "m3ae.pkl", content, protocol)
    with pytest.raises(UsageError, match=re.escape(str(path))):
        load_m3ae_pickle(path)
    assert not mark.exists()
    if kind != "getattr" and place == "top":  # it would have been
        pickle.loads(path.read_bytes())
        assert mark.exists()


def test_what_stands_beside_the_weights_is_refused_and_not_executed(tmp_path):
    mark = tmp_path / "executed"
    content = {**checkpoint(arrays()), "variant": Call(os.system, f"mkdir {mark}")}
    with pytest.raises(UsageError, match=r"it names (posix|nt|os)\.system, which no checkpoint needs"):
        load_m3ae_pickle(write_pickle(tmp_path / "m3ae.pkl", content))
    assert not mark.exists()


@pytest.mark.parametrize(
    "named",
    ["builtins eval", "builtins getattr", "os system", "subprocess Popen", "shutil rmtree", "importlib import_module"],
)
def test_what_no_checkpoint_needs_is_refused(tmp_path, named):
    (tmp_path / "m3ae.pkl").write_bytes("c{}\n{}\n.".format(*named.split()).encode())
    with pytest.raises(
        UsageError, match=f"it names {named.replace(' ', '.')}, which no checkpoint needs: do not trust"
    ):
        load_m3ae_pickle(tmp_path / "m3ae.pkl")


def test_nothing_is_imported_or_resolved(tmp_path):
    for named in ("builtins dict", "collections OrderedDict", "numpy ndarray", "a.b _frombuffer"):
        (tmp_path / "m3ae.pkl").write_bytes("c{}\n{}\n.".format(*named.split()).encode())
        found = read_inert(tmp_path / "m3ae.pkl")
        assert (type(found), found.name, found.args, found.state) == (Held, named.split()[1], (), None)


def test_reading_imports_no_module(tmp_path):
    sys.modules.pop("__hello__", None)
    (tmp_path / "m3ae.pkl").write_bytes(b"\x80\x04c__hello__\nmain\n)R.")
    with pytest.raises(UsageError, match=r"there is no 'state'|it names __hello__"):
        load_m3ae_pickle(tmp_path / "m3ae.pkl")
    assert "__hello__" not in sys.modules


# Pickles that ask for more than they hold


def small(code: bytes) -> bytes:
    """A pickle of a checkpoint whose weights are what the instructions in ``code`` leave on the stack."""
    head = b"\x80\x04}\x8c\x05state}\x8c\x06params}\x8c\x06params"
    return head + code + b"sss."


def dag(base: bytes, join: bytes, levels: int = 60) -> bytes:
    """Instructions of a nest in which every level holds the one below it twice."""
    return base + b"".join(b"q\x000" + join.replace(b"below", b"h\x00") for _ in range(levels))


FLOAT = (
    b"cnumpy\n_frombuffer\n(B\x04\x00\x00\x00\x00\x00\x80?cnumpy\ndtype\n\x8c\x02f4\x89\x88\x87R"
    b"(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbK\x01\x85\x8c\x01CtR"
)
"""Instructions that make an array of a single 1."""

EMPTY = FLOAT.replace(b"B\x04\x00\x00\x00\x00\x00\x80?", b"B\x00\x00\x00\x00").replace(b"K\x01\x85", b"K\x00\x85")
"""Instructions that make an array of no values."""

HUGE = {
    "memo": b"\x80\x04Kar\xff\xff\xff\x3f.",
    "memo, in digits": b"Kap1073741823\n.",
    "memo, by its size": b"\x80\x04Kaq\xff.",
    "frame": b"\x80\x04\x95" + (1 << 34).to_bytes(8, "little") + b"N.",
    **{
        f"{code!r} of {count}": b"\x80\x05" + code + count.to_bytes(width, "little") + b"abc."
        for code, width in [(b"\x8d", 8), (b"\x8e", 8), (b"\x96", 8), (b"B", 4), (b"X", 4), (b"T", 4), (b"\x8b", 4)]
        for count in (1 << 30, (1 << 8 * width) - 1)
    },
    "bytearray by a call": b"\x80\x04cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R.",
    "keys that are hashed for ever": small(b"}" + dag(b")", b"belowbelow\x86") + b"K\x00s"),
    "sets that are hashed for ever": small(dag(b")", b"(belowbelow\x91")),
    "a long chain of tuples as a key": small(b"}N" + b"\x85" * 190_000 + b"K\x00s"),
    "arguments that are copied": b"\x80\x04c__main__\nf\nq\x00(" + b"N" * 60_000 + b"tq\x01" + b"h\x00h\x01R0" * 30_000 + b"N.",
    "arrays of a huge shape": small(b"}\x8c\x01a" + FLOAT.replace(b"K\x01\x85", b"J\xff\xff\xff\x7f\x85") + b"s"),
    "the same array many times": small(
        FLOAT.replace(b"B\x04\x00\x00\x00", b"B\x00\x00\x10\x00" + b"\x00" * ((1 << 20) - 4)).replace(
            b"K\x01\x85", b"J\x00\x00\x04\x00\x85") + b"q\x010}("
        + b"".join(b"\x8c\x05%05dh\x01" % n for n in range(20_000)) + b"u"
    ),
    "a tree whose branches meet again": small(dag(FLOAT, b"}(\x8c\x01abelow\x8c\x01bbelowu")),
    "a tree of empty names and arrays": small(dag(EMPTY, b"}(\x8c\x00below\x8c\x01bbelowu")),
    "names that grow": small(FLOAT + b"q\x010X\x00\x00\x10\x00" + b"n" * (1 << 20) + b"q\x020h\x01"
                            + b"q\x030}h\x02h\x03s" * 900),
    "too many instructions": b"\x80\x04" + b"}" * 300_000 + b".",
    "lists in lists": small(b"]" * 90_000 + b"a" * 89_999),
}  # fmt: skip


def test_what_a_pickle_states_is_not_reserved(tmp_path):
    """In a process of its own, which may have 256 MB and five seconds of its processor more than it needs to begin with."""
    for number, content in enumerate(HUGE.values()):
        (tmp_path / f"{number}.pkl").write_bytes(content)
    done = subprocess.run([sys.executable, "-c", READ_THEM, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = dict(zip(HUGE, done.stdout.splitlines(), strict=True))
    assert [name for name, line in told.items() if line.isdigit()] == []
    assert "MemoryError" not in done.stdout
    assert "bytes where the file has" in told["b'\\x8e' of 1073741824"]
    assert "more than 200,000 instructions" in told["too many instructions"]


READ_THEM = """
import resource, sys
from pathlib import Path
from mmbench.encoders.checkpoints import load_m3ae
from mmbench.errors import UsageError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
for path in sorted(Path(sys.argv[1]).iterdir(), key=lambda path: int(path.stem)):
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + 6, resource.RLIM_INFINITY))
    try:
        print(len(load_m3ae(path)), flush=True)
    except UsageError as error:
        print(error, flush=True)
"""


# What is refused


def refused(path, match):
    with pytest.raises(UsageError, match=re.escape(str(path)) + match):
        load_m3ae_pickle(path)


def test_every_truncation(tmp_path):
    whole = write_pickle(tmp_path / "m3ae.pkl", checkpoint(arrays())).read_bytes()
    for length in range(0, len(whole), 13):
        (tmp_path / "m3ae.pkl").write_bytes(whole[:length])
        refused(tmp_path / "m3ae.pkl", ": expected a pickled M3AE checkpoint")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "there is no 'state'"),
        ({"epoch": 1}, "there is no 'state'"),
        ({"state": {"step": 1}}, "there is no 'params'"),
        ({"state": TrainState(params={})}, "there is no 'params'"),
        ({"state": {"params": {"params": {"a": {}}}}}, "'a': expected an array of floats, got dict"),
        ({"state": {"params": {"params": {"a": {"b": Items()}}}}}, "'a/b': expected an array of floats, got Items"),
        (checkpoint({"a/b": np.arange(3)}), "'a/b': expected an array of floats, got one of '<i8'"),
        (checkpoint({"a/b": np.array([{}])}), r"'a/b': expected an array of floats, got one of '\|O8'"),
        (checkpoint({"a/b": np.float32(1)}), "'a/b': expected an array of floats, got scalar"),
    ],
)  # fmt: skip
def test_other_layouts(tmp_path, content, match):
    refused(write_pickle(tmp_path / "m3ae.pkl", content), f": .*{match}")


def test_an_array_of_too_few_bytes(tmp_path):
    whole = write_pickle(tmp_path / "m3ae.pkl", checkpoint({"a/b": np.arange(4, dtype=np.float32)})).read_bytes()
    shape = b"K\x04\x85"
    assert whole.count(shape) == 2  # the weights and their moments
    (tmp_path / "m3ae.pkl").write_bytes(whole.replace(shape, b"K\x05\x85"))
    refused(tmp_path / "m3ae.pkl", ": 'a/b': expected an array of floats \\(cannot reshape")


def test_a_tree_that_holds_itself(tmp_path):
    tree: dict = {}
    tree["a"] = tree
    refused(
        write_pickle(tmp_path / "m3ae.pkl", {"state": {"params": {"params": tree}}}),
        ": .*names of arrays have at most 500",
    )


def test_missing_file(tmp_path):
    refused(tmp_path / "none.pkl", ": .*FileNotFoundError")


# safetensors


def test_converted_weights_are_the_same(tmp_path):
    source = write_pickle(tmp_path / "m3ae.pkl", checkpoint(arrays()))
    to_safetensors(source, tmp_path / "m3ae.safetensors")
    one, other = load_m3ae(source), load_m3ae(tmp_path / "m3ae.safetensors")
    assert one.keys() == other.keys() == arrays().keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(torch.equal(one[key], torch.tensor(array)) for key, array in arrays().items())
    with pytest.raises(UsageError, match=r"m3ae\.safetensors exists; delete it"):
        to_safetensors(source, tmp_path / "m3ae.safetensors")


def test_conversion_refuses(tmp_path):
    source = write_pickle(tmp_path / "m3ae.pkl", {"state": None})
    with pytest.raises(UsageError, match=r"m3ae\.bin: expected a name that ends in \.safetensors"):
        to_safetensors(source, tmp_path / "m3ae.bin")
    with pytest.raises(UsageError, match=r"m3ae\.pkl: .* there is no 'params'"):
        to_safetensors(source, tmp_path / "m3ae.safetensors")
    assert not (tmp_path / "m3ae.safetensors").exists()


def test_load_m3ae_refuses(tmp_path):
    with pytest.raises(UsageError, match=r"m3ae\.npz: expected M3AE's weights as \.pkl or, converted, \.safetensors"):
        load_m3ae(tmp_path / "m3ae.npz")
    (tmp_path / "m3ae.safetensors").write_bytes(b"1234567890")
    with pytest.raises(UsageError, match=r"m3ae\.safetensors: expected a \.safetensors file"):
        load_m3ae(tmp_path / "m3ae.safetensors")

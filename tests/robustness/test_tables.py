"""Manifests, tables, records, progress and lists that were changed at random: whatever reads them answers in words.

``MMBENCH_MUTATIONS=5000 python -m pytest tests/robustness/test_tables.py`` tries more of them; 500 are the default.
"""

import collections
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

COUNT = int(os.environ.get("MMBENCH_MUTATIONS", "500"))
MEMORY = 2**30  # what the child may take beside what it has when everything is imported
LISTS = ("casia_surf", "food101", "iemocap", "mvsa")  # those whose tiny copies take no time
ODD = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    "",
    "x",
    "\0",
    "é" * 50,
    [],
    {},
    [None],
    {"a": {"b": []}},
    "../../etc",
    ["train"] * 9,
]
TOKENS = [
    b"\0",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
    b"1e999",
    b"NaN",
    b"-1",
    b'"',
    b"\n",
    b"\r\n",
    b",",
    b"[" * 5000,
    b"9" * 400,
    b"{}",
]


@pytest.mark.slow
def test_every_change_is_answered_in_words():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, __file__, str(COUNT)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert sum(told["answers"].values()) == COUNT
    assert told["raw"] == []
    assert all(told["refused"][kind] > 0 for kind in ("manifest", "table", "record", "predictions", "list")), told


def changed_bytes(rng: np.random.Generator, data: bytes) -> bytes:
    """One to three changes: bits, bytes, spans, tokens, the end."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        size = max(1, len(out))
        at, length = int(rng.integers(size)), int(rng.integers(1, 40))
        match int(rng.integers(7)):
            case 0 if out:
                out[at % len(out)] ^= 1 << int(rng.integers(8))
            case 1 if out:
                out[at % len(out)] = int(rng.integers(256))
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = rng.bytes(length)
            case 4:
                out[at:at] = out[at // 2 : at // 2 + length]
            case 5:
                out[at : at + int(rng.integers(3))] = TOKENS[rng.integers(len(TOKENS))]
            case _:
                del out[int(rng.integers(size)) :]
    return bytes(out)


def changed_json(rng: np.random.Generator, value):
    """A value somewhere in it replaced, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = list(value)[rng.integers(len(value))]
        match int(rng.integers(6)):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, "more": ODD[rng.integers(len(ODD))]}
            case _:
                return {**value, key: changed_json(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = int(rng.integers(len(value)))
        return [*value[:at], changed_json(rng, value[at]), *value[at + 1 :]]
    return ODD[rng.integers(len(ODD))]


def changed_table(rng: np.random.Generator, table):
    """Another cell, column, type or order."""
    name = table.columns[rng.integers(len(table.columns))]
    match int(rng.integers(7)):
        case 0:
            return table.drop(columns=name)
        case 1:
            return table.assign(**{name: [ODD[rng.integers(4)]] * len(table)})
        case 2:
            return table[: rng.integers(len(table))]
        case 3:
            return table.sample(frac=1, random_state=int(rng.integers(1000)))
        case 4:
            return table.assign(**{name: rng.permutation(table[name])})
        case 5:
            return table.assign(label=table["label"] + int(rng.integers(-3, 4)))
        case _:
            return table.assign(**{name: str(rng.integers(3))})


def main(count: int) -> None:
    """Try ``count`` changes and print, as one line of JSON, what came of them."""
    import pandas as pd

    from mmbench.data import DATASETS
    from mmbench.data.preparing.audit import audit
    from mmbench.data.preparing.manifest import verify
    from mmbench.data.preparing.prepare import prepare
    from mmbench.encoders.hashed_text import HashedText
    from mmbench.errors import DataError, StoreError, UsageError
    from mmbench.store import CorruptRecord, Store
    from test_store import make_predictions, make_record
    from toy import Toy, reseal, write_toy

    rng, root = np.random.default_rng(0), Path(tempfile.mkdtemp())
    os.environ["MMBENCH_DATA"] = str(root / "data")
    write_toy(root / "raw", 60)
    prepare(Toy, root / "raw", say=lambda text: None)
    folder, kept = Toy.folder(), root / "kept"
    shutil.copytree(folder, kept)
    for name in LISTS if count <= 500 else [n for n in DATASETS.registered if hasattr(DATASETS[n], "scan")]:
        DATASETS[name].write_demo(root / "lists" / name)
    texts = [p for p in sorted((root / "lists").rglob("*")) if p.suffix in (".csv", ".txt") and p.stat().st_size]
    store, record = Store(root / "store"), make_record()
    store.write(record, make_predictions())
    files = {p.name: p.read_bytes() for p in store.folder(record.key).iterdir() if p.suffix in (".json", ".npz")}

    def restore() -> None:
        for path in kept.iterdir():
            shutil.copy(path, folder)

    def use(refused: bool = False) -> None:
        """All that reads a prepared folder; the first that refuses it ends this."""
        if why := Toy.prepared():
            assert verify(Toy)
            raise UsageError(why)
        Toy.manifest(), [Toy.lacks(p) for p in ("clean", "legacy")], Toy.class_names(), verify(Toy), audit(Toy)
        for protocol in ("clean", "legacy"):
            Toy(protocol, tokenizers={"text": HashedText().tokenize}).setup()

    def manifest() -> None:
        path = folder / "manifest.json"
        if rng.random() < 0.4:
            path.write_bytes(changed_bytes(rng, path.read_bytes()))
        else:
            other = changed_json(rng, json.loads(path.read_bytes()))
            path.write_text(json.dumps(other))
            if isinstance(other, dict) and rng.random() < 0.6:
                reseal(folder)
        use()

    def table() -> None:
        path = folder / "samples.parquet"
        if rng.random() < 0.5:
            path.write_bytes(changed_bytes(rng, path.read_bytes()))
        else:
            other = changed_table(rng, pd.read_parquet(path))
            reseal(folder, other) if rng.random() < 0.6 else other.to_parquet(path, index=False)
        use()

    def stored(name: str) -> Callable[[], None]:
        def change() -> None:
            content = files[name]
            path = store.folder(record.key) / name
            if name == "record.json" and rng.random() < 0.5:  # with a checksum that is right
                first, _, rest = content.partition(b"\n")
                text = json.dumps(changed_json(rng, json.loads(b"{" + rest)), indent=1).encode()
                rest = text.removeprefix(b"{\n")
                path.write_bytes(first[:14] + sha256(rest).hexdigest().encode() + b'",\n' + rest)
            else:
                path.write_bytes(changed_bytes(rng, content))
            try:
                if store.done(record.key) is None:
                    raise CorruptRecord("not done")
            finally:
                for file, whole in files.items():
                    (store.folder(record.key) / file).write_bytes(whole)

        return change

    def progress() -> None:
        """What an earlier call left; its samples are done again where it is not to be trusted."""
        partial = folder.with_name("toy.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(begun, partial)
        name = ("plan.json", "progress.jsonl")[rng.integers(2)]
        (partial / name).write_bytes(changed_bytes(rng, (partial / name).read_bytes()))
        made = prepare(Toy, root / "raw", say=lambda text: None)
        assert made == json.loads((kept / "manifest.json").read_text()), "another result"

    def a_list() -> None:
        path = texts[rng.integers(len(texts))]
        whole, name = path.read_bytes(), path.relative_to(root / "lists").parts[0]
        path.write_bytes(changed_bytes(rng, whole))
        try:
            DATASETS[name].scan(root / "lists" / name)
        finally:
            path.write_bytes(whole)

    # A call that was ended when everything was decoded: the state in which nothing but plan and progress decides.
    begun = root / "begun"
    os.environ["MMBENCH_DATA"] = str(root / "other")
    from mmbench.data.preparing import prepare as module

    describe, module.describe = module.describe, lambda *arguments: (_ for _ in ()).throw(UsageError("ended"))
    try:
        prepare(Toy, root / "raw", say=lambda text: None)
    except UsageError:
        shutil.copytree(root / "other/toy.partial", begun)
    module.describe = describe
    os.environ["MMBENCH_DATA"] = str(root / "data")

    kinds = {
        "manifest": manifest, "table": table, "record": stored("record.json"), "predictions": stored("predictions.npz"),
        "progress": progress, "list": a_list,
    }  # fmt: skip
    use()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    answers: collections.Counter[str] = collections.Counter()
    refused: collections.Counter[str] = collections.Counter()
    raw: list[str] = []
    sys.stdout = io.StringIO()  # what setup tells is not the answer
    for number in range(count):
        kind = list(kinds)[number % len(kinds)]
        restore()
        try:
            kinds[kind]()
            answers["accepted"] += 1
        except (UsageError, DataError, StoreError, CorruptRecord) as error:
            answers[type(error).__name__] += 1
            refused[kind] += 1
            if not str(error).strip():
                raw.append(f"{number} {kind}: an error without words")
        except BaseException as error:
            answers["raw"] += 1
            raw.append(f"{number} {kind}: {type(error).__name__}: {error}"[:300] + traceback.format_exc()[-900:])
    sys.stdout = sys.__stdout__
    shutil.rmtree(root)
    print(json.dumps({"answers": answers, "refused": refused, "raw": raw}))


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""``mmbench export`` and ``import``: there and back, where the data are not; and bundles that were made to do harm."""

import io
import json
import re
import stat
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from mmbench.bundles.exporting import added_of, export
from mmbench.bundles.importing import known_of
from mmbench.bundles.layout import DatasetFacts, Entry, Manifest
from mmbench.bundles.scrubbing import scrubbed
from mmbench.cli import main
from mmbench.elsewhere import entries as made
from mmbench.errors import DataError, StoreError
from mmbench.experiment.plan import Experiment, expand, load
from mmbench.metrics import summary
from mmbench.record import Failure, Features, Predictions, Record
from mmbench.report.collect import collect
from mmbench.store import Store
from mmbench.trial import Trial

GRID = {
    "title": "A few trials",
    "datasets": {"crema_d": {"folds": 2, "recipe": {"epochs": 2}}},
    "methods": {"concat": {}, "mine": {"method": "sum"}},
    "seeds": [0, 1],
}
FACTS = DatasetFacts(dataset="crema_d", data="0" * 64, weights={}, protocols=["clean"], folds=[0, 1], splits={})


def experiment() -> Experiment:
    """An experiment on data that are not here."""
    made = expand(GRID, known={"crema_d": FACTS})
    made.name = "few"
    return made


def predictions(trial: Trial) -> Predictions:
    label = np.random.default_rng(trial.fold).integers(0, 6, 20)
    scores = np.random.default_rng([trial.seed, len(trial.method)]).normal(0, 1, (3, 20, 6))
    scores[:, np.arange(20), label] += 1
    log_probs = (scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))).astype(np.float16)
    return Predictions(
        modalities=np.array(list(trial.encoders)), label=label, group=np.arange(20) // 4 + 5 * (trial.fold or 0),
        present=np.ones((20, 2), bool), predicted=log_probs.argmax(axis=-1).astype(np.int16), log_probs=log_probs,
        log_prior=np.log(np.full(6, 1 / 6, np.float32)), attack=np.empty(0, np.int16),
    )  # fmt: skip


def write(store: Store, trial: Trial, made: Predictions | None = None, **more: object) -> Record:
    """A trial that is done."""
    p = made or predictions(trial)
    metrics = {name: summary(p.label, p.predicted[i], p.log_probs[i]) for i, name in enumerate(p.pattern_names)}
    features = Features(p.modalities, np.zeros((2, 5, 2), np.float32))
    about = {
        "started": "1",
        "finished": "2",
        "environment": {"commit": "c", "cpu": "A CPU"},
        "metrics": metrics,
        "parameters": 7,
    }
    record = Record.model_validate(
        {
            "key": trial.key,
            "trial": trial,
            "status": "done",
            "seconds": {"build": 1, "fit": 2, "test": 3},
            **about,
            **more,
        }
    )
    store.write(record, p, features)
    store.log(trial.key).write_text("/home/someone/secret\n")
    return record


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    made = Store("here/runs")
    for trial in experiment().trials:
        write(made, trial)
    return made


@pytest.fixture
def bundle(store: Store) -> Path:
    export(experiment(), store, Path("few.zip"))
    return Path("few.zip")


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def bring(capsys: pytest.CaptureFixture[str], path: Path, *more: object) -> tuple[int, str, str]:
    return call(capsys, "import", path, "--results", "there", *more)


# There and back


def test_a_bundle_brings_records_and_predictions_to_another_store(store, bundle, capsys):
    code, out, _ = bring(capsys, bundle)
    assert (code, out.splitlines()[0]) == (0, "few: 8 trials added")
    there = Store("there/runs")
    assert there.keys() == store.keys()
    for key in (trial.key for trial in experiment().trials):
        mine, theirs = store.record(key), there.done(key)
        assert theirs == mine
        assert there.predictions(theirs).to_bytes() == store.predictions(mine).to_bytes()
        assert there.features(theirs).to_bytes() == store.features(mine).to_bytes()
        assert not there.log(key).exists()
    assert bring(capsys, bundle)[1].splitlines()[0] == "few: 8 trials there already"


def test_the_report_is_the_same_where_the_data_are_not(store, bundle, capsys):
    bring(capsys, bundle)
    path = Path("there/imported/few.yaml")
    with pytest.raises(Exception, match="none of its data sets can be run here"):
        load(path)  # as what runs trials does
    plan = load(path, known=known_of(path))
    assert [trial.key for trial in plan.trials] == [trial.key for trial in experiment().trials]
    mine, theirs = collect(experiment(), store), collect(plan, Store("there/runs"))
    pd.testing.assert_frame_equal(theirs.table, mine.table)
    assert theirs.not_run == []
    code, out, err = call(capsys, "report", path, "--results", "there")
    assert code == 0, err
    assert Path("there/local/few/table.html").is_file()
    assert "crema_d, clean" in out
    assert call(capsys, "status", path, "--results", "there")[1].splitlines()[-1].startswith("8 trials, 8 ")
    code, _, err = call(capsys, "run", path, "--results", "there", "--dry-run")
    assert (code, "none of its data sets can be run here" in err) == (2, True)


def test_what_a_bundle_leaves_out_is_told(store, capsys):
    def told():
        return call(capsys, "export", "there/imported/few.yaml", "--results", "here", "-o", "again.zip")[2]

    export(experiment(), store, Path("few.zip"))
    bring(capsys, Path("few.zip"))
    assert "not in it" not in told()
    for label, seed in (("mine", 0), ("mine", 1), ("theirs", 0)):
        entry = made.Entry(label=label, dataset="crema_d", data="0" * 64, protocol="clean", seed=seed, parts=[])
        made.Elsewhere.beside(store).write(entry, {})
    made.Elsewhere.beside(store).write(entry.model_copy(update={"protocol": "legacy"}), {})
    assert "not in it: 2 rows that were made elsewhere; `mmbench add-predictions` adds them there too" in told()


def test_a_data_set_that_was_added_without_code_is_named(store, monkeypatch, capsys):
    export(experiment(), store, Path("few.zip"))
    bring(capsys, Path("few.zip"))
    plan = experiment()
    assert added_of(plan) == []
    plan.trials = [
        trial.model_copy(update={"dataset": name})
        for trial, name in zip(plan.trials, ("goods", "handwritten"), strict=False)
    ]
    monkeypatch.setenv("MMBENCH_DATA", "data")
    Path("data/goods").mkdir(parents=True)
    Path("data/goods/manifest.json").write_text('{"declaration": {}}')
    assert added_of(plan) == ["goods"], "handwritten comes with the package"
    path = Path("there/imported/few.bundle.json")
    manifest = Manifest.from_bytes(path.read_bytes())
    manifest.datasets["crema_d"].dataset = "other"
    path.write_bytes(manifest.to_bytes())
    code, _, err = call(capsys, "report", "there/imported/few.yaml", "--results", "there")
    assert code == 2
    assert "data set other is not known here: if it was added without code, `mmbench data add` of its folder" in err


def test_the_same_results_give_the_same_bytes_and_name_no_machine(store, bundle, monkeypatch):
    first = bundle.read_bytes()
    monkeypatch.setattr("getpass.getuser", lambda: "someone")
    export(experiment(), store, Path("again.zip"))
    assert Path("again.zip").read_bytes() == first
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        assert {name.rpartition("/")[2] for name in names} == {
            "manifest.json", "experiment.yaml", "record.json", "predictions.npz", "features.npz",
        }  # fmt: skip
        assert yaml.safe_load(archive.read("experiment.yaml")) == GRID
        manifest = Manifest.from_bytes(archive.read("manifest.json"))
        for name, entry in manifest.entries.items():
            assert (entry.size, entry.sha256) == (len(data := archive.read(name)), sha256(data).hexdigest())
        assert set(manifest.entries) == set(names) - {"manifest.json"}
        text = b"".join(archive.read(name) for name in names if not name.endswith(".npz"))
    assert (manifest.done, manifest.planned) == (8, 8)
    assert manifest.datasets["crema_d"].data == "0" * 64
    assert str(Path.cwd()).encode() not in text
    assert b"secret" not in text


def test_what_is_not_done_is_left_out_and_a_trial_that_diverged_keeps_no_traceback(store, capsys):
    one, other, *_ = experiment().trials
    failure = {"message": f"DivergedError: in {Path.home()}/x/y.py", "traceback": "File /home/someone/y.py"}
    for trial, kind in ((one, "exception"), (other, "diverged")):
        failed = Record(
            key=trial.key,
            trial=trial,
            status="failed",
            started="1",
            finished="2",
            environment={},
            failure=Failure(kind=kind, **failure),
        )
        store.clear(trial.key)
        store.write(failed)
    manifest = export(experiment(), store, Path("few.zip"))
    assert manifest.done == 6
    assert f"runs/{one.key}/record.json" not in manifest.entries
    bring(capsys, Path("few.zip"))
    told = Store("there/runs").record(other.key).failure
    assert (told.kind, told.traceback) == ("diverged", "")
    assert told.message.startswith("DivergedError: in <")
    assert "y.py" not in told.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at /data/people/anna/mmbench/x.py, line 3", "at <path>, line 3"),
        ("~/mmbench/results/runs", "<path>"),
        (r"C:\Users\anna\x.py", "<path>"),
        ("Linux-6.18-x86_64-with-glibc2.36", "Linux-6.18-x86_64-with-glibc2.36"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz, 3/4", "Intel(R) Xeon(R) CPU @ 2.20GHz, 3/4"),
        ("on Host-7 by anna.", "on <host> by <user>."),
        ({"a": ["anna"]}, {"a": ["<user>"]}),
    ],
)
def test_what_is_of_the_machine_is_taken_out(text, expected, monkeypatch):
    from mmbench.bundles import scrubbing

    monkeypatch.setattr("getpass.getuser", lambda: "anna")
    monkeypatch.setattr("socket.gethostname", lambda: "Host-7")
    scrubbing._words.cache_clear()
    try:
        assert scrubbed(text) == expected
    finally:
        scrubbing._words.cache_clear()


def test_settings_that_name_a_folder_cannot_be_exported(store):
    plan = experiment()
    encoders = {
        m: {**choice, "weights": "/home/anna/weights/x.safetensors"} for m, choice in plan.trials[0].encoders.items()
    }
    trial = plan.trials[0].model_copy(update={"encoders": encoders})
    write(store, trial)
    plan.trials = [trial]
    with pytest.raises(DataError, match=r"is '/home/anna/weights/x\.safetensors', a path of this machine"):
        export(plan, store, Path("few.zip"))
    assert not Path("few.zip").exists()


def test_nothing_done_or_damaged_is_told(store, capsys):
    with pytest.raises(DataError, match="nothing of few is done in nowhere"):
        export(experiment(), Store("nowhere"), Path("few.zip"))
    path = store.folder(experiment().trials[0].key) / "predictions.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="not the file that the record was written with; run it again, then export"):
        export(experiment(), store, Path("few.zip"))


def test_predictions_that_differ_are_never_overwritten_silently(store, bundle, capsys):
    there, trial = Store("there/runs"), experiment().trials[0]
    other = predictions(trial.model_copy(update={"seed": 9}))
    mine = write(there, trial, other)
    code, out, err = bring(capsys, bundle)
    assert (code, out) == (1, "")
    assert f"1 trial is done here with other predictions, the first of them {trial.key}; nothing was imported" in err
    assert there.keys() == [trial.key]
    assert not Path("there/imported").exists()
    assert bring(capsys, bundle, "--keep")[1].splitlines()[0] == "few: 7 trials added, 1 trial left as they were"
    assert there.record(trial.key) == mine
    assert bring(capsys, bundle, "--replace")[1].splitlines()[0] == "few: 7 trials there already, 1 trial replaced"
    assert there.record(trial.key).predictions_sha256 == store.record(trial.key).predictions_sha256
    there.done(trial.key)


def test_what_failed_or_is_damaged_here_gives_way(store, bundle, capsys):
    there, (one, other, *_) = Store("there/runs"), experiment().trials
    write(there, one)
    (there.folder(one.key) / "predictions.npz").write_bytes(b"")
    failure = Failure(kind="killed", message="by another")
    there.write(
        Record(key=other.key, trial=other, status="failed", started="", finished="", environment={}, failure=failure)
    )
    assert bring(capsys, bundle)[1].splitlines()[0] == "few: 8 trials added"
    assert all(there.done(trial.key) for trial in experiment().trials)


def test_another_experiment_of_the_same_name_is_not_overwritten(store, bundle, capsys):
    bring(capsys, bundle)
    path = Path("there/imported/few.yaml")
    path.write_text("title: mine\n")
    assert "another experiment of this name was imported; --replace" in bring(capsys, bundle)[2]
    assert path.read_text() == "title: mine\n"
    assert bring(capsys, bundle, "--replace")[0] == 0
    assert yaml.safe_load(path.read_text()) == GRID


# Bundles that were made to do harm


def read(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(content: dict[str, bytes], kind: int = zipfile.ZIP_STORED, vouched: bool = True) -> bytes:
    """A zip of the content; its manifest made to vouch for all of it, as who means harm would."""
    if vouched:
        manifest = Manifest.from_bytes(content["manifest.json"])
        manifest.entries = {
            name: Entry(size=len(data), sha256=sha256(data).hexdigest())
            for name, data in content.items()
            if name != "manifest.json"
        }
        content = {**content, "manifest.json": manifest.to_bytes()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def first(content: dict[str, bytes], name: str) -> str:
    return next(entry for entry in content if entry.endswith(name))


def named(name: str):
    return lambda content: pack({**content, name: b"x"})


def changed(name: str, change, vouched: bool = True):
    def make(content):
        entry = first(content, name)
        return pack({**content, entry: change(content[entry])}, vouched=vouched)

    return make


def of_record(change):
    """The first record changed, with a checksum that fits."""

    def make(content):
        entry = first(content, "record.json")
        record = Record.from_bytes(content[entry])
        return pack({**content, entry: change(record).to_bytes()})

    return make


def of_predictions(**arrays):
    """The first predictions with other arrays, vouched for by their record and the manifest."""

    def make(content):
        entry = first(content, "predictions.npz")
        with np.load(io.BytesIO(content[entry])) as held:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **({name: held[name] for name in held.files} | arrays))
        data, told = buffer.getvalue(), entry.replace("predictions.npz", "record.json")
        record = Record.from_bytes(content[told])
        record.predictions_sha256 = sha256(data).hexdigest()
        return pack({**content, entry: data, told: record.to_bytes()})

    return make


def link(content):
    buffer = io.BytesIO(pack(content))
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo("runs/0123456789abcdef/record.json")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def twice(content):
    buffer = io.BytesIO(pack(content))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(first(content, "record.json"), b"{}")
    return buffer.getvalue()


def bomb(content):
    return pack({**content, first(content, "predictions.npz"): bytes(256 * 2**20)}, zipfile.ZIP_DEFLATED)


def inner_bomb(content):
    return of_predictions(log_probs=np.zeros((3, 20, 6 * 2**18), np.float16))(content)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (named("/etc/passwd"), "entry '/etc/passwd' is none that a bundle has"),
        (named("../../x"), "entry '../../x' is none that a bundle has"),
        (named("runs/../../x/record.json"), "is none that a bundle has"),
        (named("runs/0123456789abcdef/log.txt"), "is none that a bundle has"),
        (named("runs\\0123456789abcdef\\record.json"), "is none that a bundle has"),
        (named("runs/0123456789abcdef/"), "is none that a bundle has"),
        (link, "entry 'runs/0123456789abcdef/record.json' is a link, another special file, or encrypted"),
        (twice, "is there twice"),
        (bomb, "bytes, more than 200 times its own"),
        (inner_bomb, "predictions.npz: its arrays take 188,"),
        (lambda content: pack(content)[:-200], "is damaged, or not a bundle of `mmbench export`: get it anew"),
        (lambda content: b"no zip", "is no zip file, or was cut off"),
        (lambda content: pack({n: d for n, d in content.items() if n != "manifest.json"}, vouched=False), "it has no manifest.json"),
        (changed("manifest.json", lambda data: data.replace(b'"few"', b'"two"'), False), "manifest.json: its checksum is wrong"),
        (changed("predictions.npz", lambda data: data[:-1], False), "is not what its manifest vouches for"),
        (changed("predictions.npz", lambda data: data[:-1]), "not the file that its record was written with"),
        (changed("record.json", lambda data: data.replace(b'"done"', b'"dine"')), "record.json: its checksum is wrong"),
        (changed("record.json", lambda data: b"[]"), "record.json: "),
        (lambda content: pack({n: d for n, d in content.items() if n != first(content, "predictions.npz")}), "its record misses it"),
        (lambda content: pack({n: d for n, d in content.items() if n != "experiment.yaml"}), "experiment.yaml is missing"),
        (changed("experiment.yaml", lambda data: b"a: [*x]"), "experiment.yaml"),
        (of_record(lambda r: r.model_copy(update={"trial": r.trial.model_copy(update={"seed": 7})})), "record.json: it is of trial "),
        (of_record(lambda r: r.model_copy(update={"model_sha256": "0" * 64})), "it names a model, which no bundle has"),
        (of_record(lambda r: r.model_copy(update={"status": "failed"})), "the trial is not done"),
        (of_record(lambda r: r.model_copy(update={"metrics": {**r.metrics, "video": {**r.metrics["video"], "accuracy": 99.0}}})),
         "its record's metrics under video are not those of these predictions"),
        (of_predictions(label=np.array([{}], object)), "array 'label' holds Python objects, which are never read"),
        (of_predictions(label=np.full(20, 7)), "label is not from 0 to 5"),
        (of_predictions(predicted=np.full((3, 20), -1, np.int16)), "predicted is not from 0 to 5"),
        (of_predictions(log_probs=np.full((3, 20, 6), np.nan, np.float16)), "log_probs have NaN"),
        (of_predictions(log_probs=np.zeros((7, 20, 6), np.float16)), "log_probs is float16 of shape (7, 20, 6), expected"),
        (of_predictions(modalities=np.array(["video", "audio"])), "its modalities are not those of the trial"),
        (of_predictions(more=np.zeros(3)), "it holds the arrays "),
    ],
)  # fmt: skip
def test_a_bundle_that_is_not_as_it_should_be_changes_nothing(bundle, capsys, make, said):
    Path("bad.zip").write_bytes(make(read(bundle)))
    code, out, err = bring(capsys, Path("bad.zip"))
    assert (code in (1, 2), out) == (True, ""), err
    assert said in err
    assert Store("there/runs").keys() == []
    assert not Path("there/imported").exists()


def test_the_manifest_may_not_name_a_place_of_its_own(bundle, capsys):
    content = read(bundle)
    manifest = Manifest.from_bytes(content["manifest.json"])
    manifest.experiment = "../../few"
    Path("bad.zip").write_bytes(pack({**content, "manifest.json": manifest.to_bytes()}))
    assert "'../../few' is no name of an experiment" in bring(capsys, Path("bad.zip"))[2]
    told = json.loads(manifest.to_bytes())
    assert told["experiment"] == "../../few"


def test_an_experiment_that_tunes_is_the_same_after_the_way(store):
    content = {
        **GRID,
        "tune": {
            "draws": 3,
            "recipe": {"lr": [0.1, 0.2, 0.3], "weight_decay": {"low": 0.001, "high": 0.1, "log": True}},
        },
    }
    plan = expand(content, known={"crema_d": FACTS})
    plan.name = "tuned"
    for trial in plan.trials[:2]:
        write(store, trial)
    manifest = export(plan, store, Path("tuned.zip"))
    assert manifest.done == 8, "the trials of the default setting are those of another experiment"
    again = expand(yaml.safe_load(read(Path("tuned.zip"))["experiment.yaml"]), known=manifest.datasets)
    draws = [[draw.trial.key for search in made.searches for draw in search.draws] for made in (plan, again)]
    assert draws[0] == draws[1]
    assert len(draws[0]) == 2 * 2 * 3


def test_a_folder_that_cannot_be_written_to_is_told(store, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mmbench.bundles.exporting.write_entry", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreError, match=r"cannot write few\.zip: Permission denied"):
        export(experiment(), store, Path("few.zip"))


# Trials that contradict each other


def turned(content, which: int, **arrays):
    """The bundle with other arrays in one trial's predictions, and a record that vouches for them."""
    key = [name.split("/")[1] for name in content if name.endswith("record.json")][which]
    record = Record.from_bytes(content[f"runs/{key}/record.json"])
    p = Predictions.from_bytes(content[f"runs/{key}/predictions.npz"])
    p = replace(p, **{name: change(getattr(p, name)) for name, change in arrays.items()})
    metrics = {name: summary(p.label, p.predicted[i], p.log_probs[i]) for i, name in enumerate(p.pattern_names)}
    data = p.to_bytes()
    record = record.model_copy(update={"predictions_sha256": sha256(data).hexdigest(), "metrics": metrics})
    return key, pack({**content, f"runs/{key}/predictions.npz": data, f"runs/{key}/record.json": record.to_bytes()})


CHANGES = [
    ({"label": lambda a: a[::-1].copy()}, "labels"),
    ({"group": lambda a: a // 2}, "groups"),
    ({"present": lambda a: a & (np.arange(20) > 3)[:, None]}, "presence of"),
    ({"log_prior": lambda a: np.log(np.arange(1, 7) / 21).astype(np.float32)}, "class frequencies of training"),
]


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_trials_of_a_bundle_that_contradict_each_other_are_refused(store, bundle, capsys, change, what):
    key, data = turned(read(bundle), 3, **change)
    bundle.write_bytes(data)
    code, _, err = bring(capsys, bundle, "--replace")
    assert (code, "contradict each other" in err, what in err, key in err) == (1, True, True, True)
    assert len(set(re.findall("[0-9a-f]{16}", err))) == 2
    assert Store("there/runs").keys() == []


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_trials_that_contradict_those_of_the_store_are_refused(store, bundle, capsys, change, what):
    trial = experiment().trials[0].model_copy(update={"seed": 7})
    p = predictions(trial)
    mine = write(
        Store("there/runs"), trial, replace(p, **{name: turn(getattr(p, name)) for name, turn in change.items()})
    )
    code, _, err = bring(capsys, bundle, "--keep")
    assert (code, "contradict each other" in err, what in err, mine.key in err) == (1, True, True, True)
    assert Store("there/runs").keys() == [mine.key]


def test_what_others_wrote_reaches_the_terminal_without_its_signs(store, bundle, capsys):
    bring(capsys, bundle)
    there, trial = Store("there/runs"), experiment().trials[0]
    evil = "A \x1b[2J\u202e CPU"
    write(there, trial, environment={"cpu": evil, "commit": evil})
    there.log(trial.key).write_text(evil)
    code, out, _ = call(capsys, "show", trial.key, "--results", "there")
    assert code == 0
    failure = Failure(kind="exception", message=evil)
    failed = {
        "status": "failed",
        "metrics": {},
        "predictions_sha256": None,
        "features_sha256": None,
        "failure": failure,
    }
    record = there.record(trial.key).model_copy(update=failed)
    there.clear(trial.key)
    there.write(record)
    out += call(capsys, "status", "--results", "there")[1]
    out += call(capsys, "report", "no\x1b[2J\u202e", "--results", "there")[2]
    assert "A \ufffd[2J\ufffd CPU" in out
    assert {c for c in out if not c.isprintable()} == {"\n"}

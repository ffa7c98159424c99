"""Tests of the script that builds the embedded data set, and of the file that it built."""

import csv
import hashlib
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("PIL", reason="building needs pillow: pip install mmbench[build]")
pytest.importorskip("sklearn", reason="building needs scikit-learn: pip install mmbench[build]")

from PIL import Image

import build_openclipart as build
from mmbench.data.preparing import clipart

PD = "http://web.resource.org/cc/PublicDomain"
ENTITY_BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<svg xmlns="http://www.w3.org/2000/svg"><title>&b;</title></svg>"""
EXTERNAL_ENTITY = b"""<!DOCTYPE svg [<!ENTITY file SYSTEM "file:///etc/passwd">]><svg><title>&file;</title></svg>"""


def svg(title="A Cat", keywords=("cat",), creator="Ann Example", licences=(PD,)) -> bytes:
    """Write a file as the package has them."""
    items = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
    licence = "".join(f'<cc:license rdf:resource="{each}"/>' for each in licences)
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:cc="http://web.resource.org/cc/"
     xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<metadata><rdf:RDF><cc:Work rdf:about=""><dc:title>{title}</dc:title>
<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>
<dc:publisher><cc:Agent rdf:about=""><dc:title>Open Clip Art Library</dc:title></cc:Agent></dc:publisher>
<dc:creator><cc:Agent><dc:title>{creator}</dc:title></cc:Agent></dc:creator>
{licence}</cc:Work></rdf:RDF></metadata></svg>""".encode()


def noise(seed: int, size: int = 40) -> Image.Image:
    """Draw a picture that no other seed's picture resembles."""
    blocks = np.random.default_rng(seed).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((size, size), Image.Resampling.NEAREST)


def add(root: Path, source: str, picture: Image.Image | None = None, text: bytes | None = None, **metadata) -> None:
    """Put a picture and its SVG below `root`, in the packages' layout."""
    png, svg_file = root / "png" / source, (root / "svg" / source).with_suffix(".svg")
    for file in (png, svg_file):
        file.parent.mkdir(parents=True, exist_ok=True)
    seed = int(hashlib.sha256(source.encode()).hexdigest()[:8], 16)
    (picture or noise(seed)).save(png)
    svg_file.write_bytes(text or svg(**{"title": Path(source).stem, **metadata}))


def picture(source="animals/a.png", label=0, seed=0, artist="ann", pixels=None) -> build.Picture:
    """Make a picture as `read_pictures` does."""
    pixels = np.asarray(noise(seed, 32)) if pixels is None else pixels
    thumbnail = np.asarray(Image.fromarray(pixels).resize((12, 12), Image.Resampling.BOX))
    return build.Picture(source, label, "title", "", artist, pixels, thumbnail)


class TestPackages:
    def test_missing_packages_say_what_to_do(self, tmp_path, capsys):
        assert build.main(["--debs", str(tmp_path), "--out", str(tmp_path / "x.npz")]) == 1
        message = capsys.readouterr().err
        assert "apt-get download openclipart-png openclipart-svg" in message
        assert build.VERSION in message

    def test_another_version_is_refused(self, tmp_path, monkeypatch):
        for package in build.PACKAGES:
            (tmp_path / f"{package}_2_all.deb").touch()
        monkeypatch.setattr(build, "_run", lambda command: f"{Path(command[-1]).name.split('_')[0]} 2")
        with pytest.raises(build.BuildError, match="found: 2"):
            build.find_debs(tmp_path)

    def test_right_version_is_found(self, tmp_path, monkeypatch):
        for package in build.PACKAGES:
            (tmp_path / f"{package}_any_all.deb").touch()
        monkeypatch.setattr(build, "_run", lambda command: f"{Path(command[-1]).name.split('_')[0]} {build.VERSION}")
        assert [path.name for path in build.find_debs(tmp_path)] == [f"{name}_any_all.deb" for name in build.PACKAGES]


class TestMetadata:
    def test_fields(self):
        metadata = build.read_metadata(svg("Stop  Sign", ["road", "red sign"], "Ann &amp; Bob"))
        assert metadata == build.Metadata("Stop Sign", ("road", "red sign"), "Ann & Bob", (PD,))

    def test_twice_encoded_title_is_repaired(self):
        assert build.read_metadata(svg("L&amp;Atilde;&amp;copy;zard")).title == "Lézard"

    @pytest.mark.parametrize("licence", [PD, "http://creativecommons.org/licenses/publicdomain/"])
    def test_both_spellings_of_public_domain_pass(self, licence):
        build.check_licence(build.read_metadata(svg(licences=[licence])).licences)

    @pytest.mark.parametrize(
        "licences",
        [
            [],
            [""],
            ["http://creativecommons.org/licenses/GPL/2.0/"],
            [PD, "http://creativecommons.org/licenses/GPL/2.0/"],
        ],
    )
    def test_other_licences_do_not(self, licences):
        with pytest.raises(build.LeftOut, match="licence"):
            build.check_licence(build.read_metadata(svg(licences=licences)).licences)

    def test_licences_of_included_works_count(self):
        other = svg(licences=["http://creativecommons.org/licenses/GPL/2.0/"])
        work = other[other.index(b"<cc:Work") : other.index(b"</cc:Work>") + len(b"</cc:Work>")]
        metadata = build.read_metadata(svg("Mine").replace(b"</rdf:RDF>", work + b"</rdf:RDF>"))
        assert metadata.title == "Mine"
        assert len(metadata.licences) == 2

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (b"<svg><metadata>", "malformed SVG"),
            (b"", "malformed SVG"),
            (b"\x89PNG", "malformed SVG"),
            (b"<svg/>", "no metadata"),
            (ENTITY_BOMB, "SVG declares XML entities"),
            (ENTITY_BOMB.decode().encode("utf-16"), "SVG declares XML entities"),
            (EXTERNAL_ENTITY, "SVG declares XML entities"),
        ],
    )
    def test_unfit_files_name_their_reason(self, text, reason):
        with pytest.raises(build.LeftOut, match=f"^{reason}$"):
            build.read_metadata(text)

    def test_entities_are_refused_before_the_tree_is_built(self, monkeypatch):
        monkeypatch.setattr(build.ElementTree, "fromstring", lambda _: pytest.fail("parsed"))
        with pytest.raises(build.LeftOut):
            build.read_metadata(ENTITY_BOMB)


class TestWords:
    def test_split(self):
        assert build.split_words("Stop-Sign_01, Café (me@example.org)") == ["stop", "sign", "01", "café"]

    @pytest.mark.parametrize(
        ("one", "many"), [("flag", "flags"), ("box", "boxes"), ("smiley", "smilies"), ("berry", "berries")]
    )
    def test_variants_go_both_ways(self, one, many):
        assert many in clipart.variants(one)
        assert one in clipart.variants(many)

    def test_folder_words(self, tmp_path):
        (tmp_path / "signs_and_symbols" / "united_states").mkdir(parents=True)
        words = build.folder_words(tmp_path)
        assert {"sign", "signs", "symbol", "symbols", "state", "unitedstates"} <= words
        assert "cat" not in words

    @pytest.mark.parametrize(
        ("title", "names", "clean"),
        [
            ("Clipart by Nicu Buculei - beer", {"nicu", "buculei"}, "beer"),
            ("Computer Icon", set(), "computer"),  # class nouns stay, generic words go
            ("stand by me", set(), "stand by me"),
            ("SVG ClipArt", set(), ""),
        ],
    )
    def test_title(self, title, names, clean):
        assert build.clean_title(title, frozenset(names)) == clean

    def test_tags(self):
        tags = build.clean_tags(
            ["HASH(0x1)", "Ann Example", "red cat", "cat", "animals"],
            frozenset({"ann", "example"}),
            frozenset({"animals"}),
        )
        assert tags == "red cat"

    @settings(max_examples=50)
    @given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=20), st.lists(st.text(max_size=10), max_size=4))
    def test_clean_tags_hold_no_dropped_word_and_no_word_twice(self, keywords, creator, folders):
        names = build.name_words(creator, "somebody")
        dropped = frozenset(
            form for folder in folders for word in build.split_words(folder) for form in clipart.variants(word)
        )
        tags = build.clean_tags([*keywords, creator, *folders, "icon"], names, dropped)
        words = tags.split()
        assert tags == " ".join(words)
        assert len(words) == len(set(words))
        assert not set(words) & (names | dropped | clipart.GENERIC_TAG_WORDS)

    @given(st.text(max_size=60), st.text(max_size=20))
    def test_clean_title_is_stable_and_nameless(self, title, creator):
        names = build.name_words(creator, "somebody")
        clean = build.clean_title(f"{title} {creator}", names)
        assert not set(clean.split()) & (names | clipart.GENERIC_TITLE_WORDS)
        # Casing may still split a word in rare scripts, so stability is asked of plain text alone.
        if clean.isascii():
            assert build.clean_title(clean, names) == clean

    @pytest.mark.parametrize(
        ("creator", "group"),
        [
            ("Petri Lummemäki", "petri lummemaki"),
            ("  PETRI   Lummemaki ", "petri lummemaki"),
            ("zazou (zazou@example.org)", "zazou"),
            ("zazou@example.org", "zazou example org"),
            ("Rollandin Francesco", "architetto francesco rollandin"),
            ("Andy Sandford", "andy sandford"),  # the "and" in a name is no second artist
            *[(nameless, "unknown") for nameless in ["", "Anonymous", "unknown", "HASH(0x8a0cf9c)", "?"]],
        ],
    )
    def test_artist_group(self, creator, group):
        assert build.artist_group(creator) == group

    def test_two_artists_have_no_group(self):
        with pytest.raises(build.LeftOut, match="two artists"):
            build.artist_group("Nicu Buculei and Nathan Eady")

    def test_excluded_words(self):
        build.check_words({"cat"})
        with pytest.raises(build.LeftOut, match="excluded word: weapon"):
            build.check_words({"cat", "pistol"})


class TestPictures:
    def test_transparency_is_white_and_content_is_centred(self):
        drawing = Image.new("RGBA", (50, 40))
        drawing.paste((200, 0, 0, 255), (5, 10, 25, 20))  # 20 wide, 10 high
        result = np.asarray(build.square(drawing))
        assert result.shape == (20, 20, 3)
        assert (result[5:15] == [200, 0, 0]).all()
        assert (result[:5] == 255).all()
        assert (result[15:] == 255).all()

    def test_half_transparent_is_mixed_with_white(self):
        result = np.asarray(build.square(Image.new("RGBA", (4, 4), (0, 0, 0, 128))))
        assert abs(int(result[0, 0, 0]) - 127) <= 1

    @pytest.mark.parametrize("mode", ["L", "P", "RGB", "LA", "1"])
    def test_any_mode(self, mode):
        assert build.square(Image.new("RGBA", (3, 5), (0, 0, 0, 255)).convert(mode)).size == (5, 5)

    def test_near_white_paper_is_no_content(self):
        page = Image.new("RGB", (30, 30), (250, 250, 250))
        page.paste((0, 0, 0), (10, 10, 14, 14))
        assert build.square(page).size == (4, 4)

    @pytest.mark.parametrize("colour", [(255, 255, 255, 255), (0, 0, 0, 0)])
    def test_blank(self, colour):
        with pytest.raises(build.LeftOut, match="blank"):
            build.square(Image.new("RGBA", (9, 9), colour))

    def test_load(self, tmp_path):
        noise(1, 100).save(tmp_path / "a.png")
        pixels, thumbnail = build.load_picture(tmp_path / "a.png")
        assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
        assert (thumbnail.shape, thumbnail.dtype) == ((12, 12, 3), np.uint8)

    def test_unreadable(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"no picture")
        with pytest.raises(build.LeftOut, match="unreadable PNG"):
            build.load_picture(tmp_path / "a.png")

    def test_too_large(self, tmp_path, monkeypatch):
        noise(1, 100).save(tmp_path / "a.png")
        for limit in (9_999, 4_999):  # Pillow warns above the limit, and refuses above twice the limit
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            with pytest.raises(build.LeftOut, match="too large"):
                build.load_picture(tmp_path / "a.png")


class TestSelection:
    def test_every_picture_is_kept_or_counted(self, tmp_path):
        add(tmp_path, "animals/good.png", keywords=["furry", "animal", "icon"], creator="Ann Example")
        add(tmp_path, "animals/foreign.png", licences=["http://creativecommons.org/licenses/GPL/2.0/"])
        add(tmp_path, "animals/broken.png", text=b"<svg>")
        add(tmp_path, "animals/bomb.png", text=ENTITY_BOMB)
        add(tmp_path, "animals/untitled.png", title="")
        add(tmp_path, "animals/reviewed.png")
        add(tmp_path, "tools/weapons/thing.png")
        add(tmp_path, "tools/pair.png", creator="Ann and Bob")
        add(tmp_path, "food/blank.png", Image.new("RGB", (5, 5), "white"))
        add(tmp_path, "food/no_svg.png")
        (tmp_path / "svg/food/no_svg.svg").unlink()
        (tmp_path / "png/food/link.png").symlink_to("blank.png")
        for i in range(4):
            add(tmp_path, f"office/series{i}.png", title="Series Icon")
        add(tmp_path, "buildings/house.png")  # none of the ten classes
        left_out = Counter()
        (kept,) = build.read_pictures(tmp_path, {"animals/reviewed.png": "real person"}, left_out)
        assert (kept.source, kept.title, kept.tags, kept.artist) == ("animals/good.png", "good", "furry", "ann example")
        assert kept.label == build.CLASSES.index("animals")
        assert left_out == {
            "licence is not stated as Public Domain": 1,
            "malformed SVG": 1,
            "SVG declares XML entities": 1,
            "no title": 1,
            "reviewed: real person": 1,
            "excluded word: weapon": 1,
            "work of two artists": 1,
            "picture is blank on white": 1,
            "no SVG of that name": 1,
            "link to a picture elsewhere": 1,
            "title used more than 3 times": 4,
        }

    def test_near_duplicates_leave_one(self):
        left_out = Counter()
        copy = np.clip(np.asarray(noise(1, 32)).astype(int) + 1, 0, 255).astype(np.uint8)
        pictures = [
            picture("animals/a.png", seed=1),
            picture("animals/b.png", pixels=copy),
            picture("food/c.png", 2, seed=2),
        ]
        kept = build.drop_near_duplicates(pictures, left_out)
        assert len(kept) == 2
        assert +left_out == {"near-duplicate": 1}
        assert build.drop_near_duplicates(pictures[::-1], Counter()) == kept  # the order given makes no difference

    def test_duplicates_in_two_classes_leave_none(self):
        left_out = Counter()
        kept = build.drop_near_duplicates([picture("animals/a.png", 0, 1), picture("food/a.png", 2, 1)], left_out)
        assert kept == []
        assert sum(left_out.values()) == 2

    def test_thin_drawings_are_not_taken_for_copies(self):
        sheets = [np.full((32, 32, 3), 255, dtype=np.uint8) for _ in range(2)]
        sheets[0][:, 3], sheets[1][5, :] = 0, 0
        pictures = [picture(f"tools/{i}.png", 8, pixels=sheet) for i, sheet in enumerate(sheets)]
        assert len(build.drop_near_duplicates(pictures, Counter())) == 2

    def test_cap_goes_by_hash_and_sorts_by_source(self):
        pictures = [picture(f"animals/{i}.png", seed=i) for i in range(20)] + [picture("food/a.png", 2, 99)]
        left_out = Counter()
        kept = build.cap_classes(pictures, left_out, cap=5)
        assert +left_out == {"above the cap of 5 a class": 15}
        assert [each.source for each in kept] == sorted(each.source for each in kept)
        assert build.cap_classes(pictures[::-1], Counter(), cap=5) == kept
        assert [each.source for each in kept[:5]] != [f"animals/{i}.png" for i in range(5)]


class TestSplits:
    @settings(max_examples=8, deadline=None)
    @given(st.integers(0, 10_000))
    def test_properties(self, seed):
        random = np.random.default_rng(seed)
        label = np.repeat(np.arange(4), [60, 40, 30, 20])
        artist = np.array([f"artist {i}" for i in random.integers(0, 50, len(label))])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "SPLIT_TRIALS", 3)
            clean = build.split_by_artist(label, artist)
        assert all(len(set(clean[artist == name])) == 1 for name in set(artist))
        assert all(set(clean[label == each]) == {0, 1, 2} for each in range(4))
        assert np.abs(np.bincount(clean) / len(clean) - [0.6, 0.2, 0.2]).max() < 0.15
        train, test = (int((clean == side).sum()) for side in (0, 2))
        legacy = build.split_at_random(label, train, test)
        assert int((legacy == 0).sum()) == train
        assert int((legacy == 2).sum()) == test
        assert set(legacy.tolist()) == {-1, 0, 2}
        shares = [(legacy[label == each] == 0).mean() for each in range(4)]
        assert max(shares) - min(shares) < 0.1

    def test_too_few_artists_are_an_error(self):
        label = np.repeat([0, 1], 20)
        artist = np.array([*["only one"] * 20, *[f"artist {i}" for i in range(20)]])
        with pytest.raises(build.BuildError, match="artists"):
            build.split_by_artist(label, artist)

    def test_same_seed_same_split(self):
        label = np.arange(100) % 4
        assert (build.split_at_random(label, 60, 20) == build.split_at_random(label, 60, 20)).all()


class TestOutput:
    @pytest.fixture
    def root(self, tmp_path):
        for name in build.CLASSES:
            for i in range(10):
                creator = f"Artist {'ABCDEFGHIJ'[i]}"
                add(tmp_path, f"{name}/{name} {i}.png", keywords=["thing"] if i % 3 else [], creator=creator)
        return tmp_path

    def test_building_twice_gives_the_same_bytes(self, root, tmp_path, monkeypatch):
        monkeypatch.setattr(build, "SPLIT_TRIALS", 3)
        for name in ("one", "two"):
            arrays, left_out = build.build(root, {})
            build.save_npz(tmp_path / f"{name}.npz", arrays)
        assert left_out == {}
        assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
        with np.load(tmp_path / "one.npz", allow_pickle=False) as stored:
            assert set(stored.files) == set(arrays)
            assert all((stored[name] == arrays[name]).all() for name in arrays)
        assert "100 pictures seen, 100 kept by 10 artists" in build.account(arrays, left_out)

    def test_the_clock_is_not_stored(self, tmp_path):
        build.save_npz(tmp_path / "a.npz", {"x": np.zeros(3)})
        with zipfile.ZipFile(tmp_path / "a.npz") as archive:
            assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}

    def test_objects_are_not_pickled(self, tmp_path):
        with pytest.raises(ValueError, match="pickle"):
            build.save_npz(tmp_path / "a.npz", {"x": np.array([{}], dtype=object)})

    def test_contact_sheet(self):
        images = np.zeros((3, 4, 4, 3), dtype=np.uint8)
        sheet = np.asarray(build.contact_sheet(images, columns=2, scale=2, gap=1))
        assert sheet.shape == (19, 19, 3)
        assert (sheet[1:9, 1:9] == 0).all()
        assert (sheet[10:, 10:] == 255).all()  # the fourth place is empty


@pytest.fixture(scope="module")
def data():
    with np.load(build.DEFAULT_OUT, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


class TestShippedFile:
    def test_arrays(self, data):
        n = len(data["label"])
        kinds = {name: (array.shape, array.dtype.kind) for name, array in data.items()}
        assert kinds == {
            "image": ((n, 32, 32, 3), "u"),
            "classes": ((10,), "U"),
            **{name: ((n,), "U") for name in ("title", "tags", "artist", "source")},
            **{name: ((n,), "i") for name in ("label", "split_clean", "split_legacy")},
        }
        assert data["image"].dtype == np.uint8
        assert data["label"].dtype == np.int64
        assert data["split_clean"].dtype == data["split_legacy"].dtype == np.int8
        assert tuple(data["classes"].tolist()) == build.CLASSES
        assert build.DEFAULT_OUT.stat().st_size < 4_000_000

    def test_rows(self, data):
        source = data["source"].tolist()
        assert source == sorted(set(source))
        assert [data["classes"][label] for label in data["label"]] == [path.partition("/")[0] for path in source]
        counts = np.bincount(data["label"], minlength=10)
        assert counts.min() >= 40
        assert counts.max() <= build.CAP
        assert all(title for title in data["title"].tolist())
        assert (data["image"].reshape(len(source), -1).min(axis=1) < 250).all()

    def test_clean_split_is_artist_disjoint(self, data):
        sides = [set(data["artist"][data["split_clean"] == side].tolist()) for side in range(3)]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]

    def test_sides(self, data):
        clean, legacy = data["split_clean"], data["split_legacy"]
        assert np.abs(np.bincount(clean) / len(clean) - [0.6, 0.2, 0.2]).max() < 0.06
        for side in (0, 2):
            assert (clean == side).sum() == (legacy == side).sum()
        assert set(legacy.tolist()) == {-1, 0, 2}
        for split, present in ((clean, (0, 1, 2)), (legacy, (0, 2))):
            for side in present:
                assert set(data["label"][split == side].tolist()) == set(range(10))

    def test_random_split_does_leak_artists(self, data):
        """It must, or the two protocols would not differ."""
        train, test = (set(data["artist"][data["split_legacy"] == side].tolist()) for side in (0, 2))
        assert train & test

    def test_no_picture_twice(self, data):
        assert len({image.tobytes() for image in data["image"]}) == len(data["image"])

    def test_titles_are_not_shared_by_many(self, data):
        assert max(Counter(data["title"].tolist()).values()) <= build.MAX_SAME_TITLE

    def test_words(self, data):
        empty = (data["tags"] == "").mean()
        assert 0.2 < empty < 0.5
        tags = {word for text in data["tags"].tolist() for word in text.split()}
        titles = {word for text in data["title"].tolist() for word in text.split()}
        folders = {part for path in data["source"].tolist() for part in path.split("/")[:-1]}
        folder_words = {form for part in folders for word in build.split_words(part) for form in clipart.variants(word)}
        assert not tags & (clipart.GENERIC_TAG_WORDS | folder_words)
        assert not titles & clipart.GENERIC_TITLE_WORDS
        assert not (tags | titles) & set(build.EXCLUDED_WORDS)
        assert all(text == " ".join(text.split()).lower() for text in data["tags"].tolist())

    def test_artists_are_not_named_in_words(self, data):
        for artist, title, tags in zip(data["artist"], data["title"], data["tags"], strict=True):
            if artist != build.UNKNOWN:
                assert not set(artist.split()) & {*title.split(), *tags.split()}, (artist, title, tags)

    def test_excluded_pictures_are_absent(self, data):
        with build.EXCLUDED_CSV.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        sources = [row["source"] for row in rows]
        assert len(sources) > 100
        assert sources == sorted(set(sources))
        assert all(row["reason"] for row in rows)
        assert not set(sources) & set(data["source"].tolist())

    def test_the_page_quotes_the_checksum(self):
        page = Path(__file__).parents[2] / "docs" / "openclipart.md"
        if not page.exists():
            pytest.skip("docs are not part of this checkout")
        assert hashlib.sha256(build.DEFAULT_OUT.read_bytes()).hexdigest() in page.read_text(encoding="utf-8")

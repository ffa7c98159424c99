import copy
import json
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from mmbench.encoders.clip import MEAN, STD, TINY, ClipImage, ClipText
from mmbench.encoders.pretrained import fingerprint
from mmbench.errors import UsageError
from planted import weights

MERGES = ["r e", "re d</w>", "f i", "fi s", "fis h</w>"]
LETTERS = [letter + end for letter in "adefhirs" for end in ("", "</w>")]
WORDS = [*LETTERS, *(merge.replace(" ", "") for merge in MERGES), "<|startoftext|>", "<|endoftext|>"]
VOCABULARY = {word: n for n, word in enumerate(WORDS)}
A, RED, FISH, START, END = (VOCABULARY[w] for w in ("a</w>", "red</w>", "fish</w>", "<|startoftext|>", "<|endoftext|>"))


def write_tokenizer(folder):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))


def write_clip(folder, end=END):
    """A whole CLIP, as on the hub: both towers in one file."""
    torch.manual_seed(1)
    text = {**TINY, "vocab_size": len(VOCABULARY), "eos_token_id": end, "max_position_embeddings": 9}
    vision = {**TINY, "image_size": 32, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=TINY["projection_dim"])).eval()
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def clip(root):
    return write_clip(root / "clip")


def pictures(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# Pictures


def test_pictures_are_embedded_as_by_clip(clip):
    encoder = ClipImage("clip").eval()
    values = pictures(3, 3, 32, 32)
    normalised = (values / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    expected = clip.visual_projection(clip.vision_model(normalised).pooler_output)
    torch.testing.assert_close(encoder(values), expected)
    assert (encoder.image_size, encoder.out_dim) == (32, 32)
    clips = torch.stack([values, values.flip(0)], dim=1)
    torch.testing.assert_close(encoder(clips), (expected + expected.flip(0)) / 2)


def test_pictures_of_another_size():
    with pytest.raises(UsageError, match="expected pictures of 32 × 32, got 224 × 224"):
        ClipImage(None, size="tiny")(pictures(1, 3, 224, 224))


# Texts


@pytest.mark.parametrize("end", [END, 2])
def test_texts_are_embedded_as_by_clip(root, end):
    clip = write_clip(root / "clip", end)
    encoder = ClipText("clip").eval()
    text = encoder.tokenize(["a red fish", "", "a"])
    assert text["token"].tolist() == [[START, A, RED, FISH, END], [START, *[END] * 4], [START, A, *[END] * 3]]
    assert text["mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert text["token"].dtype == text["mask"].dtype == torch.int32
    for row, n in enumerate([5, 2, 3]):
        alone = text["token"][[row], :n].long()
        expected = clip.text_projection(clip.text_model(alone).pooler_output)[0]
        torch.testing.assert_close(encoder(text)[row], expected)


def test_padding_has_no_effect(clip):
    encoder = ClipText("clip").eval()
    short, long = encoder.tokenize(["a"]), encoder.tokenize(["a", "a red fish a red"])
    torch.testing.assert_close(encoder(short)[0], encoder(long)[0])


def test_texts_are_cut_to_the_models_length(clip):
    encoder = ClipText("clip")
    token = encoder.tokenize(["a " * 50])["token"]
    assert token.tolist() == [[START, *[A] * 7, END]]
    assert {n: v.shape for n, v in encoder.tokenize([]).items()} == {"token": (0, 1), "mask": (0, 1)}


def test_the_tokenizer_has_to_end_texts_as_the_model_does(root):
    write_tokenizer(root / "words")
    encoder = ClipText(None, tokenizer="words", size="tiny")
    with pytest.raises(UsageError, match=f"ends texts with {END}, the model with 49407"):
        encoder.tokenize(["a"])


def test_without_weights_a_tokenizer_is_named():
    with pytest.raises(UsageError, match="without weights, tokenizer has to name a folder"):
        ClipText(None)


# Files


def test_the_file_of_a_single_tower_will_do(root, clip):
    for kind, encoder in (("vision", ClipImage), ("text", ClipText)):
        whole = load_file(root / "clip" / "model.safetensors")
        own = {n: v for n, v in whole.items() if n.startswith((kind, {"vision": "visual_proj"}.get(kind, kind)))}
        (root / kind).mkdir()
        save_file(own, root / kind / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((root / "clip" / "config.json").read_text())[f"{kind}_config"]
        (root / kind / "config.json").write_text(json.dumps(config))
        arguments = {} if kind == "vision" else {"tokenizer": "clip"}
        one, other = weights(encoder(kind, **arguments)), weights(encoder("clip", **arguments))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_are_in_float32_whatever_the_file_has(root, clip):
    clip.half().save_pretrained(root / "half")
    assert {p.dtype for p in ClipImage("half").parameters()} == {torch.float32}


def test_weight_files(root, clip):
    names = ["config.json", "model.safetensors"]
    assert ClipImage.weight_files({"weights": "clip"}) == [root / "clip" / name for name in names]
    expected = [root / "clip" / name for name in [*names, "vocab.json", "merges.txt"]]
    assert ClipText.weight_files({"weights": "clip", "tokenizer": None}) == expected
    assert ClipText.weight_files({"weights": None, "tokenizer": "clip"}) == expected[2:]
    assert ClipImage.weight_files({"weights": None}) == []
    write_tokenizer(root / "words")
    both = ClipText.weight_files({"weights": "clip", "tokenizer": "words"})
    assert both == [*expected[:2], *(root / "words" / name for name in ("vocab.json", "merges.txt"))]


def test_a_missing_folder_says_what_belongs_into_it(root):
    what = r"'clip-vit-base-patch32' are missing; .*: a folder with config.json and model.safetensors"
    with pytest.raises(UsageError, match=rf"{what}, as on"):
        ClipImage()
    with pytest.raises(UsageError, match=rf"{what}, and with tokenizer.json or vocab.json and merges.txt"):
        ClipText()
    (root / "clip-vit-base-patch32").mkdir()
    with pytest.raises(UsageError, match=r"clip-vit-base-patch32/config.json is missing"):
        ClipImage()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"\x80\x02", b"\xff" * 100])
def test_damaged_folders(root, clip, name, content):
    path = root / "clip" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="clip"):
        ClipImage("clip")


def test_no_pickle_is_read(root, clip):
    torch.save(load_file(root / "clip" / "model.safetensors"), root / "clip" / "pytorch_model.bin")
    (root / "clip" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"clip/model.safetensors is missing"):
        ClipImage("clip")


def test_everything_that_is_read_is_hashed(root, clip):
    """Whatever else lies in the folder, or is changed there, changes the hash or nothing."""
    (root / "clip" / "tokenizer_config.json").write_text(
        '{"vocab_file": "/root/vocab.json", "special_tokens_map_file": "x.json"}'
    )

    def made():
        torch.manual_seed(0)
        encoder = ClipText("clip").eval()
        try:
            text = encoder.tokenize(["a red fish", "a dish"])
            result = [encoder(text).tolist(), text["token"].tolist()]
        except UsageError as error:
            result = str(error)
        return fingerprint(ClipText.weight_files({"weights": "clip"})), result

    whole = made()
    other = {name: torch.randn(value.shape) for name, value in load_file(root / "clip" / "model.safetensors").items()}
    save_file(other, root / "other.safetensors", metadata={"format": "pt"})
    words = {word: len(VOCABULARY) - 1 - number for word, number in VOCABULARY.items()}
    index = {"metadata": {}, "weight_map": {name: "other.safetensors" for name in other}}
    beside = {
        "adapter_config.json": json.dumps({"peft_type": "LORA", "base_model_name_or_path": "/else", "r": 1}),
        "generation_config.json": json.dumps({"eos_token_id": 1}),
        "config.4.0.0.json": "{}",
        "model.safetensors.index.json": json.dumps(index),
        "pytorch_model.bin.index.json": json.dumps(index),
        "other.safetensors": (root / "other.safetensors").read_bytes(),
        "adapter_model.safetensors": (root / "other.safetensors").read_bytes(),
        "model.fp16.safetensors": (root / "other.safetensors").read_bytes(),
        "tokenizer.4.0.0.json": "{}",
        "tokenizer.model": json.dumps(words),
        "tekken.json": json.dumps(words),
        "vocab.txt": "a\nb\n",
        "chat_template.jinja": "{{ x }}",
        "preprocessor_config.json": json.dumps({"image_mean": [0, 0, 0]}),
        "modeling_clip.py": "raise SystemExit",
        "added_tokens.json": json.dumps({"red": 5}),
        "special_tokens_map.json": json.dumps({"unk_token": "a"}),
        "merges.txt": "#version: 0.2\n",
        "config.json": (root / "clip" / "config.json").read_text().replace('"quick_gelu"', '"relu"'),
        "model.safetensors": (root / "other.safetensors").read_bytes(),
        "vocab.json": json.dumps(words),
    }
    unread = 0
    for name, content in beside.items():
        path = root / "clip" / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        changed = made()
        assert changed == whole or changed[0] != whole[0], name
        unread += changed[0] == whole[0]
        path.unlink() if before is None else path.write_bytes(before)
    assert made() == whole
    assert unread == 14


@pytest.mark.parametrize(
    ("file", "setting", "value"),
    [
        ("config.json", "transformers_weights", "other.safetensors"),
        ("config.json", "transformers_weights", "other.safetensors.index.json"),
        ("config.json", "configuration_files", ["config.4.0.0.json"]),
        ("config.json", "auto_map", {"AutoModel": "modeling_clip.CLIPModel"}),
        ("config.json", "quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("config.json", "fusion_config", {"x": 1}),
        ("tokenizer_config.json", "fast_tokenizer_files", ["tokenizer.json", "tokenizer.4.0.0.json"]),
        ("tokenizer_config.json", "auto_map", {"AutoTokenizer": ["x.Y", None]}),
        ("tokenizer_config.json", "vocab", "/else/vocab.json"),
        ("tokenizer_config.json", "merges", "/else/merges.txt"),
        ("tokenizer_config.json", "init_inputs", ["/else/vocab.json"]),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_setting_that_names_other_files_or_code_is_refused(root, clip, file, setting, value, device):
    path = root / "clip" / file
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**held, setting: value}))
    with pytest.raises(UsageError, match=rf"clip/{file} .*({setting}|'other\.safetensors)"), torch.device(device):
        ClipText("clip").tokenize(["a"])
    if file == "config.json" and setting != "transformers_weights":  # which has a meaning at the top alone
        part = {**held, "vision_config": {**held["vision_config"], setting: value}}
        path.write_text(json.dumps(part))
        with pytest.raises(UsageError, match=rf"clip/{file} .*({setting}|'other\.safetensors)"), torch.device(device):
            ClipImage("clip")


def test_a_setting_that_names_the_weights_that_are_read(root, clip):
    path = root / "clip" / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "transformers_weights": "model.safetensors", "auto_map": None})
    )
    assert ClipImage("clip").out_dim == 32


@pytest.mark.parametrize("place", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_no_attention_is_fetched(root, clip, place, device, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it looked for code on the hub"))
    path = root / "clip" / "config.json"
    held = json.loads(path.read_text())
    vision = {**held["vision_config"], place: "kernels-community/flash-attn"}
    path.write_text(json.dumps({**held, place: "kernels-community/flash-attn", "vision_config": vision}))
    with torch.device(device):
        assert ClipImage("clip").model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_configuration_of_too_many_layers(root, clip, device):
    path = root / "clip" / "config.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "text_config": {**held["text_config"], "num_hidden_layers": 1 << 40}}))
    with (
        pytest.raises(UsageError, match=r"config\.json describes a model of 1,099,511,627,776 layers"),
        torch.device(device),
    ):
        ClipText("clip")


@pytest.mark.parametrize(("part", "setting"), [("text_config", "vocab_size"), ("vision_config", "intermediate_size")])
def test_a_configuration_of_a_larger_model_than_its_weights(root, clip, part, setting):
    path = root / "clip" / "config.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, part: {**held[part], setting: 1 << 30}}))
    encoder = ClipText if part == "text_config" else ClipImage
    with pytest.raises(
        UsageError, match=r"config\.json describes a model of [\d,]{14,} parameters, the file of its weights"
    ):
        encoder("clip")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("visual_projection.weight"), r"visual_projection.weight is missing"),
        (lambda t: t.update({"vision_mdel.x": torch.zeros(1)}), r"vision_mdel.x is not of this model"),
        (
            lambda t: t.update({"visual_projection.weight": torch.zeros(3, 32)}),
            r"visual_projection.weight is of shape \(3, 32\), expected \(32, 32\)",
        ),
    ],
)
def test_weights_that_do_not_fit(root, clip, change, match):
    tensors = load_file(root / "clip" / "model.safetensors")
    change(tensors)
    save_file(tensors, root / "clip" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=match):
        ClipImage("clip")


def test_another_model(root, clip):
    config = root / "clip" / "config.json"
    config.write_text(config.read_text().replace('"model_type": "clip"', '"model_type": "bert"'))
    with pytest.raises(UsageError, match="expected model_type clip or clip_vision_model, got bert"):
        ClipImage("clip")


def test_tiny_has_no_published_weights(clip):
    with pytest.raises(UsageError, match="size: tiny has no published weights"):
        ClipImage("clip", size="tiny")


def test_the_meta_device_needs_no_folder(root, clip):
    with torch.device("meta"):
        for encoder in (ClipImage(), ClipText()):
            assert encoder.out_dim == 512
            assert all(p.is_meta for p in encoder.parameters())
        assert ClipImage().image_size == 224
        assert ClipImage("clip").out_dim == 32, "the configuration is read where it is there"


# Training


@pytest.mark.parametrize("kind", [ClipImage, ClipText])
def test_layers_and_gradients(clip, kind):
    encoder = kind("clip", layer_decay=0.5).train()
    groups = encoder.parameter_groups()
    assert [factor for factor, _ in groups] == [0.125, 0.25, 0.5, 1]
    assert sum(len(ps) for _, ps in groups) == len(list(encoder.parameters()))
    projection = encoder.model.visual_projection if kind is ClipImage else encoder.model.text_projection
    assert id(projection.weight) in {id(p) for p in groups[-1][1]}
    value = pictures(4, 3, 32, 32) if kind is ClipImage else encoder.tokenize(["a red fish", "a", "red", "fish a fish"])
    encoder(value).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
    again = kind("clip", gradient_checkpointing=True).train()
    again(value).square().sum().backward()
    torch.testing.assert_close([p.grad for p in again.parameters()], [p.grad for p in encoder.parameters()])


def test_a_copy_can_be_a_teacher(clip):
    encoder = ClipText("clip")
    text = encoder.tokenize(["a red fish"])
    teacher = copy.deepcopy(encoder).requires_grad_(False).eval()
    assert not teacher(text).requires_grad
    teacher.load_state_dict(encoder.state_dict())
    assert torch.equal(teacher.tokenize(["a red fish"])["token"], text["token"])

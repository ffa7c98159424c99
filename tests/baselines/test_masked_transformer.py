import math

import pytest
import torch

from planted import batch_of, every_pattern, noisy_features, random_features


def linear(layer, x):
    y = layer.weight @ x
    return y if layer.bias is None else y + layer.bias


def normalised(norm, x):
    centre = x.sum() / len(x)
    spread = (x - centre).square().sum() / len(x)
    return (x - centre) / (spread + norm.eps).sqrt() * norm.weight + norm.bias


def naive_layer(layer, tokens):
    """Each token attends to all; what is absent is not among them."""
    out, size = [], len(tokens[0]) // 4
    for x in tokens:
        heads = []
        for head in range(4):
            part = slice(head * size, (head + 1) * size)
            query = linear(layer.query, x)[part]
            scores = [(query @ linear(layer.key, t)[part] / math.sqrt(size)).exp() for t in tokens]
            values = [linear(layer.value, t)[part] for t in tokens]
            heads.append(sum(s * v for s, v in zip(scores, values, strict=True)) / sum(scores))
        y = normalised(layer.attention_norm, x + linear(layer.out, torch.cat(heads)))
        first, *_, second = layer.feed_forward
        out.append(normalised(layer.norm, y + linear(second, linear(first, y).clamp(min=0))))
    return out


def naive_logits(task, features, i, row, prompts=()):
    """The logits of one sample, by a sequence of the start token, the prompts, and what it has."""
    tokens = [task.start, *prompts]
    tokens += [linear(task.project[m], features[m][i]) for m, here in zip(task.modalities, row, strict=True) if here]
    for layer in task.layers:
        tokens = naive_layer(layer, tokens)
    return linear(task.classifier, tokens[0])


def make_step(world, method, **arguments):
    """A method in float64 and without dropout, features, and a batch of every pattern, nothing included."""
    task = world.task(method, width=8, dropout=0.0, **arguments).double()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.mul_(2).add_(0.1 * torch.randn_like(parameter))
    present = every_pattern(len(task.modalities))
    size = len(present)
    batch = batch_of(world.complete, size, present=present)
    features = random_features(task, size)
    task.embed = lambda encoders, batch, cells: features
    return task, batch, features


def mean_cross_entropy(logits, labels):
    """Of those samples that have logits."""
    terms = [z.exp().sum().log() - z[y] for z, y in zip(logits, labels, strict=True) if z is not None]
    assert 0 < len(terms) < len(logits)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("name", ["planted2", "planted3"])
@pytest.mark.parametrize("layers", [1, 2])
def test_logits_by_attention_one_token_at_a_time(make_world, name, layers):
    task, batch, features = make_step(make_world(name), "masked_transformer", layers=layers)
    for training in (True, False):
        task.train(training)
        with torch.set_grad_enabled(training):
            logits = task.fuse(features, batch.present)
        for i, row in enumerate(batch.present.tolist()):
            torch.testing.assert_close(logits[i], naive_logits(task, features, i, row))


@pytest.mark.parametrize("drop", [False, True])
def test_loss_and_gradients(world3, drop):
    task, batch, features = make_step(world3, "masked_transformer", drop_visible=drop)
    visible = batch.present.clone()
    if drop:
        visible[-1, -1] = False
        task.draw_visible = lambda present: visible
    logits = [naive_logits(task, features, i, row) if any(row) else None for i, row in enumerate(visible.tolist())]
    expected = mean_cross_entropy(logits, batch.label)
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected)
    wanted = [*(p for n, p in task.named_parameters() if not n.startswith("encoders")), *features.values()]
    torch.testing.assert_close(torch.autograd.grad(got, wanted), torch.autograd.grad(expected, wanted))


def test_torchs_own_layer_computes_the_same(world3):
    layer = world3.task("masked_transformer").layers[0].eval()
    reference = torch.nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
    first, *_, second = layer.feed_forward
    with torch.no_grad():
        attention = reference.self_attn
        attention.in_proj_weight.copy_(torch.cat([part.weight for part in (layer.query, layer.key, layer.value)]))
        attention.in_proj_bias.copy_(torch.cat([layer.query.bias, torch.randn(128), layer.value.bias]))
        for own, other in ((layer.out, attention.out_proj), (first, reference.linear1), (second, reference.linear2)):
            other.load_state_dict(own.state_dict())
    tokens, attended = torch.randn(20, 5, 128), torch.rand(20, 5) < 0.6
    attended[:, 0] = True
    expected = reference.eval()(tokens, src_key_padding_mask=~attended)
    torch.testing.assert_close(layer(tokens, tokens, attended), expected)
    torch.testing.assert_close(layer(tokens[:, :1], tokens, attended), expected[:, :1])


def dropped(task):
    """What the first layer of a task drops numbers of, on two samples of three tokens: the probability and the shape, in order."""
    layer, seen = task.layers[0], []
    for module in layer.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda module, inputs, _: seen.append((module.p, tuple(inputs[0].shape))))
    tokens = torch.randn(2, 3, 8)
    layer(tokens[:, :1], tokens, torch.ones(2, 3, dtype=torch.bool))
    return seen


def test_layers_drop_attention_weights_and_what_each_part_adds_and_has_inside(world3):
    task = world3.task("masked_transformer", width=8, dropout=0.3)
    assert dropped(task) == [(0.3, shape) for shape in ((2, 4, 1, 3), (2, 1, 8), (2, 1, 32), (2, 1, 8))]


def test_a_token_that_is_all_dropped_is_what_it_was_before_the_norms(world3):
    layer = world3.task("masked_transformer", width=8).layers[0].train()
    layer.dropout.p = 1.0
    tokens = torch.randn(2, 3, 8)
    got = layer(tokens, tokens, torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(got, layer.norm(layer.attention_norm(tokens)))


@pytest.mark.parametrize("drop", [False, True])
def test_what_is_not_visible_is_neither_encoded_nor_learnt_from(world3, drop):
    task = world3.task("masked_transformer", dropout=0.0, drop_visible=drop)
    task.encoders.eval()
    batch = batch_of(world3.complete, 12)
    visible = batch.present.clone()
    visible[:5, 0] = visible[3:9, 1] = False
    if drop:
        task.draw_visible = lambda present: visible
    else:
        batch.present = visible
    embed, seen, losses = task.embed, [], []
    for noise in (False, True):

        def note(encoders, batch, cells, noise=noise):
            seen.append(cells)
            features = embed(encoders, batch, cells)
            return noisy_features(features, visible) if noise else features

        task.embed = note
        losses.append(task.training_step(batch, 0))
    assert all(torch.equal(cells, visible) for cells in seen)
    assert losses[0] == losses[1]


def test_not_even_what_is_no_number_passes_the_mask(world3):
    task, batch, features = make_step(world3, "masked_transformer")
    expected = task.fuse(features, batch.present)
    hidden = {m: f.masked_fill(~batch.present[:, [c]], torch.nan) for c, (m, f) in enumerate(features.items())}
    assert torch.equal(task.fuse(hidden, batch.present), expected)


@pytest.mark.parametrize("drop", [False, True])
def test_each_sample_shows_a_random_part_of_what_it_has_where_that_is_asked_for(world3, drop):
    task, shown = world3.task("masked_transformer", drop_visible=drop), []
    fuse = task.fuse
    task.fuse = lambda features, present: (shown.append(present), fuse(features, present))[1]
    torch.manual_seed(0)
    for count, subsets in ((3, 7), (2, 3)):  # what each sample has, and in how many ways it can show some of it
        batch = batch_of(world3.complete, 16, present=(torch.arange(3) < count).repeat(16, 1))
        shown.clear()
        for _ in range(6):
            task.training_step(batch, 0)
        visible = torch.cat(shown)
        assert len(visible.unique(dim=0)) == (subsets if drop else 1)
        assert visible.any(dim=1).all()
        assert not visible[:, count:].any()


def test_a_batch_in_which_nothing_is_present(world3):
    task = world3.task("masked_transformer")
    batch = batch_of(world3.complete, 3, present=torch.zeros(3, 3, dtype=torch.bool))
    loss = task.training_step(batch, 0)
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in task.parameters())

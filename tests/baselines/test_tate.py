import math
from itertools import combinations

import pytest
import torch

from mmbench.recipe import Recipe
from planted import batch_of, every_pattern, fit, noisy_features, random_features, same, weights

RECIPE = Recipe(epochs=4, batch_size=8, lr=0.01)


def linear(layer, x):
    return layer.weight @ x + layer.bias


def normalised(x, norm):
    centre = sum(x) / len(x)
    spread = sum((v - centre) ** 2 for v in x) / len(x)
    return (x - centre) / (spread + norm.eps).sqrt() * norm.weight + norm.bias


def naive_layer(layer, tokens, allowed):
    """A post-norm transformer layer of four heads in which each token attends to the allowed ones."""
    d = len(tokens[0])
    size, attention = d // 4, layer.self_attn
    q, k, v = (
        [
            attention.in_proj_weight[n * d : (n + 1) * d] @ x + attention.in_proj_bias[n * d : (n + 1) * d]
            for x in tokens
        ]
        for n in range(3)
    )
    out = []
    for i, x in enumerate(tokens):
        heads = []
        for head in range(4):
            part = slice(head * size, (head + 1) * size)
            scores = {j: (q[i][part] @ k[j][part] / math.sqrt(size)).exp() for j in allowed}
            heads.append(sum(scores[j] * v[j][part] for j in allowed) / sum(scores.values()))
        y = normalised(x + linear(attention.out_proj, torch.cat(heads)), layer.norm1)
        out.append(normalised(y + linear(layer.linear2, linear(layer.linear1, y).clamp(min=0)), layer.norm2))
    return out


def naive_network(network, features, i, row):
    """Pair vectors, embedding, decoder output and predicted tag of one sample."""
    width = network.classifier.in_features
    single = []
    for (m, f), here in zip(features.items(), row, strict=True):
        x = naive_layer(network.unimodal[m], [linear(network.project[m], f[i])], [0])[0]
        single.append(x if here else torch.zeros(width, dtype=x.dtype))
    pairs = list(combinations(range(len(row)), 2))
    joint = [
        torch.cat([linear(w, single[a]), linear(w, single[b])]) for w, (a, b) in zip(network.common, pairs, strict=True)
    ]
    tag = torch.tensor([float(here) for here in row], dtype=torch.double)
    tokens = [linear(network.tagged, torch.cat([c, tag])) for c in joint]
    allowed = [n for n, (a, b) in enumerate(pairs) if row[a] or row[b]] or list(range(len(pairs)))
    encoded = naive_layer(network.encoder, tokens, allowed)
    decoded = naive_layer(network.decoder, encoded, allowed)
    logit = linear(network.tag, sum(decoded) / len(pairs))
    return joint, sum(encoded) / len(pairs), decoded, 1 / (1 + torch.exp(-logit))


def kl(target, predicted):
    p = target.exp() / target.exp().sum()
    q = predicted.exp() / predicted.exp().sum()
    return sum(a * (a / b).log() for a, b in zip(p, q, strict=True))


@pytest.fixture(params=["planted2", "planted3"])
def step(request, make_world):
    """A method in float64 and without dropout, given features, and a batch in which some samples have all or nothing."""

    def make(size=12, **arguments):
        world = make_world(request.param)
        task = world.task("tate", width=8, dropout=0.0, **arguments).double()
        with torch.no_grad():
            for parameter in task.parameters():
                parameter.mul_(2).add_(0.1 * torch.randn_like(parameter))
        batch = batch_of(world.complete, size)
        batch.present = every_pattern(len(task.modalities)).repeat(3, 1)[:size]
        batch.present[size // 3] = True
        features = random_features(task, size)
        task.encode = lambda batch: features
        return task, batch, features

    return make


def test_the_network_one_number_at_a_time(step):
    task, batch, features = step()
    for training in (True, False):  # torch has another implementation where no gradient is needed
        task.train(training)
        with torch.set_grad_enabled(training):
            got = task.network(task.zero_absent(features, batch.present), batch.present)
            logits = task.fuse(features, batch.present)
        for i, row in enumerate(batch.present.tolist()):
            joint, embedding, decoded, tag = naive_network(task.network, features, i, row)
            for value, expected in zip(got, (torch.stack(joint), embedding, torch.stack(decoded), tag), strict=True):
                torch.testing.assert_close(value[i], expected, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(logits[i], linear(task.network.classifier, embedding), rtol=1e-6, atol=1e-6)


def test_stage_one_is_the_cross_entropy_of_all_that_is_present(step):
    task, batch, features = step()
    assert task.is_pretraining
    terms = []
    for i, row in enumerate(batch.present.tolist()):
        if any(row):
            z = linear(task.network.classifier, naive_network(task.network, features, i, row)[1])
            terms.append(z.exp().sum().log() - z[batch.label[i]])
    assert len(terms) < 12
    torch.testing.assert_close(task.training_step(batch, 0), sum(terms) / len(terms))


def test_loss_and_gradients_of_stage_two(step):
    task, batch, features = step(auxiliary_weight=0.7)
    task.pretraining_epochs = 0
    visible = batch.present.clone()
    visible[4, 0] = visible[-1, -1] = False
    task.draw_visible = lambda present: visible
    batch.inputs = {m: v if m == "words" else v.double() for m, v in batch.inputs.items()}
    teacher = task.teacher_network
    inputs = {m: encoder.eval()(batch.inputs[m]).detach() for m, encoder in task.teacher_encoders.items()}
    task.train()  # as Lightning leaves the teacher too
    pairs = list(combinations(range(len(task.modalities)), 2))
    terms = []
    for i, (has, shows) in enumerate(zip(batch.present.tolist(), visible.tolist(), strict=True)):
        if not any(has):
            continue
        target_joint, target, *_ = naive_network(teacher, inputs, i, has)
        _, embedding, decoded, tag = naive_network(task.network, features, i, shows)
        z = linear(task.network.classifier, embedding)
        recover = [kl(target_joint[n], decoded[n]) for n, (a, b) in enumerate(pairs) if has[a] or has[b]]
        wrong = sum(abs(bit - float(t)) for bit, t in zip(tag, shows, strict=True)) / len(shows)
        ce = z.exp().sum().log() - z[batch.label[i]]
        terms.append(ce + 0.7 * (kl(target, embedding) + sum(recover) / len(recover) + wrong))
    expected = sum(terms) / len(terms)
    got = task.training_step(batch, 0)
    torch.testing.assert_close(got, expected)
    wanted = [*task.network.parameters(), *features.values()]
    torch.testing.assert_close(
        torch.autograd.grad(got, wanted), torch.autograd.grad(expected, wanted), rtol=1e-5, atol=1e-7
    )


def test_the_tag_is_the_pattern(step):
    task, batch, features = step()
    seen = []
    task.network.tagged.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    task.fuse(features, batch.present)
    count = len(task.modalities)
    assert torch.equal(seen[0][:, 0, -count:], batch.present.double())
    assert torch.equal(seen[0][:, -1, -count:], batch.present.double())


def test_the_teacher_is_what_stage_one_left_and_stays_so(world3):
    task = world3.task("tate", recipe=RECIPE, pretraining=0.5)
    student, teacher = (
        torch.nn.ModuleList(part)
        for part in ((task.encoders, task.network), (task.teacher_encoders, task.teacher_network))
    )
    initial, seen = weights(teacher), []
    step = task.training_step

    def training_step(batch, batch_idx):
        seen.append((task.current_epoch, weights(teacher), weights(student)))
        loss = step(batch, batch_idx)
        assert task.training
        assert task.is_pretraining or not any(module.training for part in teacher for module in part.modules())
        return loss

    task.training_step = training_step
    fit(task, world3.data.splits.train, epochs=4, batches=3)
    assert [epoch for epoch, *_ in seen] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert all(same(taught, initial) for _, taught, _ in seen[:6])
    assert not same(seen[5][2], initial)  # the student moved
    pretrained = seen[6][2]  # what is trained, when stage two begins
    assert all(same(taught, pretrained) for _, taught, _ in seen[6:])
    assert same(weights(teacher), pretrained)
    assert not same(seen[-1][2], pretrained)


def test_the_teacher_sees_what_is_present_and_the_student_what_is_shown(world3):
    task = world3.task("tate", dropout=0.0).eval()
    task.on_train_epoch_start()
    task.pretraining_epochs = 0
    task.on_train_epoch_start()
    batch = batch_of(world3.data.splits.train, 12)
    features = task.encode(batch)
    expected = task.network(features, batch.present)[:2]
    torch.testing.assert_close(task.teach(batch), expected)
    visible = batch.present.clone()
    visible[:, 0] = False
    losses = []
    for noise in (False, True):
        task.draw_visible = lambda present: visible
        task.encode = lambda batch, noise=noise: noisy_features(features, visible) if noise else features
        losses.append(task.training_step(batch, 0))
    assert losses[0] == losses[1]


def test_a_batch_in_which_nothing_is_present(world3):
    task = world3.task("tate")
    batch = batch_of(world3.complete, 3, present=torch.zeros(3, 3, dtype=torch.bool))
    for task.pretraining_epochs in (1, 0):
        loss = task.training_step(batch, 0)
        loss.backward()
        assert loss == 0
        assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())

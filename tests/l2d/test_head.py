"""The label-wise head: every label is computed from its own query and the map, and from nothing else, as torch's own layers would."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2d.head import LABEL_PRIOR, LabelHead

CHANNELS, LABELS = 6, 7


def make_head(**options: float) -> LabelHead:
    torch.manual_seed(0)
    return LabelHead(CHANNELS, LABELS, width=16, feedforward=24, **options).eval()


def make_map(images: int = 3, height: int = 4, width: int = 5) -> Tensor:
    return torch.randn(images, CHANNELS, height, width, generator=torch.Generator().manual_seed(1))


def decode(head: LabelHead, last_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, logits and attention maps by torch's own attention, with the head's weights."""
    attention = nn.MultiheadAttention(16, 8, batch_first=True, dtype=torch.float64).eval()
    attention.out_proj.load_state_dict(head.project.state_dict())
    layers = (head.query, head.key, head.value)
    attention.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
    attention.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    tokens = head.embed(last_map.flatten(2).transpose(1, 2)).relu()
    x = head.norm_query(2 * head.queries).expand(len(last_map), -1, -1)
    read, maps = attention(x, tokens, tokens, average_attn_weights=True)
    x = head.norm_attention(x + read)
    x = head.norm_feedforward(x + head.reduce(head.expand(x).relu()))
    return x, (x * head.classifier).sum(-1) + head.bias, maps.unflatten(-1, last_map.shape[-2:])


@torch.no_grad()
def test_the_head_is_torchs_attention_with_three_norms_and_a_feed_forward() -> None:
    head, last_map = make_head().double(), make_map().double()
    generator = torch.Generator().manual_seed(2)
    for parameter in head.parameters():  # norms and biases start alike, and would hide that they were exchanged
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
    for ours, torchs in zip((*head(last_map), head.attention(last_map)), decode(head, last_map), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-9)


def test_the_published_sizes_are_the_defaults() -> None:
    head = LabelHead(CHANNELS, LABELS)
    assert (head.embed.weight.shape, head.expand.weight.shape, head.heads, head.dropout.p) == ((768, CHANNELS), (2048, 768), 8, 0.1)


def test_the_classifier_starts_as_xaviers() -> None:
    torch.manual_seed(0)
    classifier = LabelHead(CHANNELS, 80).classifier.detach()
    assert float(classifier.std()) == pytest.approx(math.sqrt(2 / (80 + 768)), rel=0.02)
    assert float(classifier.mean()) == pytest.approx(0.0, abs=0.001)


def test_a_subset_of_labels_equals_the_columns_of_the_whole() -> None:
    head, last_map, labels = make_head(), make_map(), torch.tensor([5, 0, 3, 0])
    embeddings, logits = head(last_map)
    some_embeddings, some_logits = head(last_map, labels)
    torch.testing.assert_close(some_embeddings, embeddings[:, labels])
    torch.testing.assert_close(some_logits, logits[:, labels])


def test_no_image_and_no_label_influences_another() -> None:
    head, last_map = make_head(), make_map()
    embeddings, logits = head(last_map)
    torch.testing.assert_close(head(last_map[1:2])[1], logits[1:2])
    with torch.no_grad():
        head.queries[2] *= -1
        head.classifier[2] += 1
        head.bias[2] += 1
    others = [label for label in range(LABELS) if label != 2]
    changed_embeddings, changed_logits = head(last_map)
    assert torch.equal(changed_embeddings[:, others], embeddings[:, others])
    assert torch.equal(changed_logits[:, others], logits[:, others])
    assert not torch.allclose(changed_embeddings[:, 2], embeddings[:, 2])


def test_attention_is_a_distribution_over_the_positions_and_reads_the_same_memory() -> None:
    head, last_map = make_head(), make_map()
    weights = head.attention(last_map)
    assert weights.shape == (3, LABELS, 4, 5)
    torch.testing.assert_close(weights.sum((2, 3)), torch.ones(3, LABELS))
    torch.testing.assert_close(head.attention(last_map, torch.tensor([4, 1])), weights[:, [4, 1]])
    # Where all positions look alike, no query can prefer one.
    flat = torch.ones(1, CHANNELS, 4, 5)
    torch.testing.assert_close(head.attention(flat), torch.full((1, LABELS, 4, 5), 1 / 20))


def test_memory_is_decoded_as_the_map_is() -> None:
    head, last_map = make_head(), make_map()
    for decoded, expected in zip(head.decode(head.memory(last_map)), head(last_map), strict=True):
        assert torch.equal(decoded, expected)


def test_evaluation_is_deterministic_and_training_is_not() -> None:
    head, last_map = make_head(dropout=0.5), make_map()
    assert torch.equal(head(last_map)[1], head(last_map)[1])
    head.train()
    assert not torch.equal(head(last_map)[1], head(last_map)[1])


def test_training_drops_from_every_images_queries_apart() -> None:
    head = make_head(dropout=0.5).train()
    same = make_map(1).expand(2, -1, -1, -1)
    first, second = head(same)[1]
    assert not torch.allclose(first, second)


def test_training_drops_attention_weights() -> None:
    head, last_map = make_head(dropout=0.5).train(), make_map()
    head.dropout.forward = lambda x: x  # type: ignore[method-assign]
    assert not torch.equal(head(last_map)[1], head(last_map)[1])


@pytest.mark.parametrize("place", range(4))
def test_training_drops_from_queries_and_from_every_branch(place: int) -> None:
    """One place after the other: queries, what they read, the hidden layer, what comes out of it."""
    head, last_map = make_head(dropout=0.5).train(), make_map()
    head.dropout.p = 0.0
    expected, calls = head(last_map)[1], itertools.count()
    head.dropout.forward = lambda x: F.dropout(x, 0.5) if next(calls) == place else x  # type: ignore[method-assign]
    assert not torch.equal(head(last_map)[1], expected)


def test_a_query_whose_branches_are_all_dropped_goes_on_alone() -> None:
    head = make_head().train()
    head.dropout.forward = torch.zeros_like  # type: ignore[method-assign]
    expected = head.norm_feedforward(head.norm_attention(head.norm_query(head.queries)))
    torch.testing.assert_close(head(make_map())[0], expected.expand(3, -1, -1))


def test_without_dropout_training_and_evaluation_agree() -> None:
    head, last_map = make_head(dropout=0.0), make_map()
    expected = head(last_map)[1]
    torch.testing.assert_close(head.train()(last_map)[1], expected)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradients_are_finite(scale: float) -> None:
    head = make_head().train()
    last_map = (scale * make_map()).requires_grad_()
    head(last_map)[1].sum().backward()
    gradients = [last_map.grad, *(parameter.grad for parameter in head.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_the_queries_are_saved_but_not_trained() -> None:
    head = make_head()
    assert "queries" not in dict(head.named_parameters())
    torch.manual_seed(99)
    other = LabelHead(CHANNELS, LABELS, width=16, feedforward=24).eval()
    assert not torch.equal(other.queries, head.queries)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(make_map())[1], head(make_map())[1])


def test_an_untrained_head_holds_every_label_for_rare() -> None:
    torch.manual_seed(0)
    head = LabelHead(CHANNELS, 200)
    torch.testing.assert_close(head.bias.detach().sigmoid(), torch.full((200,), LABEL_PRIOR))
    probabilities = head(make_map(8))[1].sigmoid()
    assert probabilities.median().item() == pytest.approx(LABEL_PRIOR, abs=0.02)


def test_the_smallest_head() -> None:
    assert LabelHead(CHANNELS, 1, width=1, feedforward=1, heads=1)(make_map())[1].shape == (3, 1)


@pytest.mark.parametrize(
    ("labels", "sizes", "sentence"),
    [
        (3, {"width": 12}, "multiple of its 8 attention heads; got 12"),
        (3, {"width": 0}, "multiple of its 8 attention heads; got 0"),
        (3, {"feedforward": 0}, "at least 1; got 0"),
        (0, {}, "at least one label; got 0"),
    ],
)
def test_sizes_that_no_layer_can_have_are_refused(labels: int, sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LabelHead(CHANNELS, labels, **sizes)
